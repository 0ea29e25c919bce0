"""Losses and their gradients on random logits, in both precisions."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pairs import (
    REGIONS,
    channels_first,
    channels_last,
    distance,
    regions_of,
    shrunk,
)

from bmjax import losses
from bmjax.losses.compound import deep_supervision_weights

pytestmark = pytest.mark.parity

NUM_LABELS = 4
IGNORED = 4
SIZE = (2, 8, 12, 6)
SIZES = ((8, 12, 6), (4, 6, 6), (2, 3, 3), (1, 3, 3))
TRUTHS = ("random", "empty", "voxel", "full", "one sample empty")
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(params=TOLERANCE)
def dtype(request):
    """The precision on both sides."""
    if request.param == "float64":
        request.getfixturevalue("double_losses")
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def draw_labels(truth, *, p_ignored=0.0):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_LABELS, SIZE).astype(np.int32)
    match truth:
        case "empty":
            labels[:] = 0
        case "voxel":
            labels[:] = 0
            labels[0, 2, 3, 1] = 3
        case "full":
            labels[:] = 3
        case "one sample empty":
            labels[1] = 0
    labels[rng.random(SIZE) < p_ignored] = IGNORED
    return labels


def check(ours, theirs, *, num_channels, dtype, sizes=SIZES[:1]):
    """Compare value and gradients of two losses of the logits of each size."""
    import torch

    rng = np.random.default_rng(1)
    logits = [3 * rng.normal(size=(2, *size, num_channels)) for size in sizes]
    logits = [x.astype(dtype) for x in logits]
    value, grads = jax.value_and_grad(ours)([jnp.asarray(x) for x in logits])
    leaves = [torch.from_numpy(channels_first(x)).requires_grad_() for x in logits]
    expected = theirs(leaves)
    expected.backward()
    assert value.dtype == dtype
    assert distance(value, expected.detach()) < TOLERANCE[dtype]
    for grad, leaf in zip(grads, leaves, strict=True):
        if leaf.grad is None or not leaf.grad.any():
            assert not np.any(grad)
        else:
            assert grad.dtype == dtype
            assert distance(grad, channels_last(leaf.grad)) < TOLERANCE[dtype]


def nnunets(name, dice, **options):
    """A loss as nnU-Net's trainer builds it."""
    module = importlib.import_module("nnunetv2.training.loss.compound_losses")
    overlap = {
        "batch_dice": dice == "batch",
        "do_bg": name == "DC_and_BCE_loss",
        "smooth": 1e-5,
        "ddp": False,
    }
    kinds = ({}, overlap) if name == "DC_and_BCE_loss" else (overlap, {})
    kind = module.MemoryEfficientSoftDiceLoss
    return getattr(module, name)(*kinds, dice_class=kind, **options)


def tversky_bce(reading, logits, regions):
    """The transfer study's loss as its code, or as its text has it."""
    import torch
    from monai.losses import TverskyLoss
    from torch.nn.functional import binary_cross_entropy_with_logits

    regions = regions.to(logits.dtype)
    if reading == "code":
        options = {"weight": 1 + 10 * regions}
    else:
        options = {"pos_weight": torch.tensor(10, dtype=logits.dtype)}
    overlap = TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7)(logits, regions)
    return overlap + binary_cross_entropy_with_logits(logits, regions, **options)


READINGS = {
    "code": losses.TverskyBCE(),
    "text": losses.TverskyBCE(voxel_weight=0.0, positive_weight=10.0),
}
targets_of_regions = partial(losses.region_targets, regions=REGIONS)
targets_of_labels = partial(losses.one_hot, num_classes=NUM_LABELS)


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_dice_and_binary_cross_entropy_are_nnunets(dice, truth, dtype):
    import torch

    labels = draw_labels(truth)
    regions = torch.from_numpy(regions_of(labels))
    loss = losses.DiceBCE(batch_dice=dice == "batch")
    other = nnunets("DC_and_BCE_loss", dice)
    check(
        lambda x: loss(x[0], targets_of_regions(jnp.asarray(labels))),
        lambda x: other(x[0], regions),
        num_channels=len(REGIONS),
        dtype=dtype,
    )


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_dice_and_cross_entropy_are_nnunets(dice, truth, dtype):
    import torch

    labels = draw_labels(truth)
    label_map = torch.from_numpy(labels[:, None])
    loss = losses.DiceCE(batch_dice=dice == "batch")
    other = nnunets("DC_and_CE_loss", dice)
    check(
        lambda x: loss(x[0], targets_of_labels(jnp.asarray(labels))),
        lambda x: other(x[0], label_map),
        num_channels=NUM_LABELS,
        dtype=dtype,
    )


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("reading", READINGS)
def test_tversky_and_weighted_cross_entropy_are_monais_and_torchs(
    reading, truth, dtype
):
    import torch

    labels = draw_labels(truth)
    regions = torch.from_numpy(regions_of(labels))
    check(
        lambda x: READINGS[reading](x[0], targets_of_regions(jnp.asarray(labels))),
        lambda x: tversky_bce(reading, x[0], regions),
        num_channels=len(REGIONS),
        dtype=dtype,
    )


@pytest.mark.parametrize("p_ignored", [0.3, 1.0])
@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_ignored_voxels_are_left_out_of_regions_as_by_nnunet(dice, p_ignored, dtype):
    import torch

    labels = draw_labels("random", p_ignored=p_ignored)
    is_ignored = labels == IGNORED
    regions = regions_of(np.where(is_ignored, 0, labels))
    regions = torch.from_numpy(np.concatenate([regions, is_ignored[:, None]], 1))
    valid = jnp.asarray(~is_ignored, jnp.float32)
    other = nnunets("DC_and_BCE_loss", dice, use_ignore_label=True)
    # With an ignore label nnU-Net sums the cross-entropy over regions, without one it
    # takes their mean; ours is the mean always.
    loss = losses.DiceBCE(batch_dice=dice == "batch", bce_weight=len(REGIONS))
    check(
        lambda x: loss(x[0], targets_of_regions(jnp.asarray(labels)), valid=valid),
        lambda x: other(x[0], regions),
        num_channels=len(REGIONS),
        dtype=dtype,
    )


@pytest.mark.parametrize("p_ignored", [0.3, 1.0])
@pytest.mark.parametrize("dice", ["sample", "batch"])
def test_ignored_voxels_are_left_out_of_labels_as_by_nnunet(dice, p_ignored, dtype):
    import torch

    labels = draw_labels("random", p_ignored=p_ignored)
    label_map = torch.from_numpy(labels[:, None])
    valid = jnp.asarray(labels != IGNORED, jnp.float32)
    loss = losses.DiceCE(batch_dice=dice == "batch")
    other = nnunets("DC_and_CE_loss", dice, ignore_label=IGNORED)
    check(
        lambda x: loss(x[0], targets_of_labels(jnp.asarray(labels)), valid=valid),
        lambda x: other(x[0], label_map),
        num_channels=NUM_LABELS,
        dtype=dtype,
    )


def deep(loss):
    """nnU-Net's wrapper with the weights of its trainer."""
    module = importlib.import_module("nnunetv2.training.loss.deep_supervision")
    weights = 1 / 2.0 ** np.arange(len(SIZES))
    weights[-1] = 0
    weights = weights / weights.sum()
    np.testing.assert_allclose(deep_supervision_weights(len(SIZES)), weights)
    return module.DeepSupervisionWrapper(loss, weights)


def test_deep_supervision_of_regions_is_nnunets(dtype):
    labels = draw_labels("random")
    regions = shrunk(regions_of(labels), SIZES)
    loss = losses.DeepSupervision(loss=losses.DiceBCE(batch_dice=True))
    other = deep(nnunets("DC_and_BCE_loss", "batch"))
    check(
        lambda x: loss(x, jnp.asarray(labels), targets_of_regions),
        lambda x: other(x, regions),
        num_channels=len(REGIONS),
        dtype=dtype,
        sizes=SIZES,
    )


def test_deep_supervision_of_labels_with_ignored_voxels_is_nnunets(dtype):
    labels = draw_labels("random", p_ignored=0.3)
    label_maps = shrunk(labels[:, None], SIZES)
    loss = losses.DeepSupervision(loss=losses.DiceCE(batch_dice=True))
    other = deep(nnunets("DC_and_CE_loss", "batch", ignore_label=IGNORED))
    check(
        lambda x: loss(x, jnp.asarray(labels), targets_of_labels, ignore_label=IGNORED),
        lambda x: other(x, label_maps),
        num_channels=NUM_LABELS,
        dtype=dtype,
        sizes=SIZES,
    )


@pytest.mark.parametrize("reading", READINGS)
def test_deep_supervision_of_tversky_is_nnunets(reading, dtype):
    labels = draw_labels("random")
    regions = shrunk(regions_of(labels), SIZES)
    loss = losses.DeepSupervision(loss=READINGS[reading])
    other = deep(partial(tversky_bce, reading))
    check(
        lambda x: loss(x, jnp.asarray(labels), targets_of_regions),
        lambda x: other(x, regions),
        num_channels=len(REGIONS),
        dtype=dtype,
        sizes=SIZES,
    )
