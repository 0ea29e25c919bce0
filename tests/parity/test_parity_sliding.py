"""Windows, weights and stitched logits beside nnU-Net's predictor and MONAI's."""

import importlib
from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.tree_util import Partial
from pairs import SMALL_NETS, distance, make_pair

from bmjax.inference import SlidingWindow, fold_logits, sliding_logits, stack_folds
from bmjax.inference.windows import boxes, gaussian, window_starts

pytestmark = pytest.mark.parity

WINDOWS = [(64, 64, 64), (16, 8, 12), (20, 28), (9, 15, 7)]
VOLUMES = [(110, 64, 77), (16, 31, 12), (61, 28), (10, 40, 29)]
PLACES = list(zip(VOLUMES, WINDOWS, strict=True))
OVERLAPS = [0.5, 0.25, 0.7]


@pytest.fixture
def nnunet():
    return importlib.import_module("nnunetv2.inference.sliding_window_prediction")


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize(("size", "window"), PLACES)
def test_the_grid_is_nnunets(nnunet, size, window, overlap):
    theirs = nnunet.compute_steps_for_sliding_window(size, window, 1 - overlap)
    ours = window_starts(size, window, overlap=overlap)
    assert [list(along) for along in ours] == theirs


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize(("size", "window"), PLACES)
def test_the_grid_is_monais(size, window, overlap):
    from monai.data.utils import dense_patch_slices
    from monai.inferers.utils import _get_scan_interval

    step = _get_scan_interval(size, window, len(size), (overlap,) * len(size))
    theirs = dense_patch_slices(size, window, step)
    starts = window_starts(size, window, overlap=overlap, convention="monai")
    along = [sorted({box[i].start for box in theirs}) for i in range(len(size))]
    assert [list(s) for s in starts] == along
    if len(size) == 3:
        settings = SlidingWindow(overlap=overlap, convention="monai")
        assert list(boxes(size, window, settings)) == theirs


@pytest.mark.parametrize("window", WINDOWS)
def test_the_weights_are_those_of_both(nnunet, window):
    import torch
    from monai.data.utils import compute_importance_map

    theirs = nnunet.compute_gaussian(
        window, dtype=torch.float32, device=torch.device("cpu")
    )
    np.testing.assert_array_equal(gaussian(window), theirs.numpy())
    theirs = compute_importance_map(window, mode="gaussian")
    np.testing.assert_allclose(gaussian(window, "monai"), theirs.numpy(), rtol=1e-6)


def first_output(model, variables, image):
    return model.apply(variables, image, is_training=False)[0]


@pytest.fixture(scope="module", params=["ResEncUNet", "PlainUNet in 2-D"])
def net(request):
    """Ours, the reference, its window, and a volume that takes several of them."""
    model, window = SMALL_NETS[request.param]
    pair = make_pair(model, num_axes=len(window))
    pair.net.decoder.deep_supervision = False
    pair.net.eval()
    size = (*(3,) * (3 - len(window)), *(n + n // 2 + 1 for n in window))
    volume = np.random.default_rng(1).normal(size=(*size, 4)).astype(np.float32)
    forward = Partial(partial(first_output, model), {"params": pair.params})
    return SimpleNamespace(
        pair=pair, window=window, volume=volume, forward=forward, num_axes=len(window)
    )


def predictor_of(net, *, mirror):
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    theirs = nnUNetPredictor(
        use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False
    )
    theirs.network = net.pair.net
    theirs.allowed_mirroring_axes = tuple(range(net.num_axes))
    theirs.configuration_manager = SimpleNamespace(patch_size=net.window)
    theirs.label_manager = SimpleNamespace(num_segmentation_heads=3)
    theirs.list_of_parameters = [net.pair.net.state_dict()]
    return theirs


def their_logits(theirs, volume):
    import torch

    image = torch.from_numpy(np.moveaxis(volume, -1, 0).copy())
    logits = theirs.predict_logits_from_preprocessed_data(image)
    return np.moveaxis(logits.float().numpy(), 0, -1)


@pytest.mark.parametrize("flips", ["none", "all"])
def test_stitched_logits_are_nnunets(net, in_float32, flips):
    theirs = predictor_of(net, mirror=flips == "all")
    ours = sliding_logits(
        net.forward,
        net.volume,
        window=net.window,
        num_classes=3,
        settings=SlidingWindow(flips=flips),
    )
    assert distance(ours, their_logits(theirs, net.volume)) < 1e-4


def test_logits_of_several_folds_are_nnunets(net, in_float32):
    theirs = predictor_of(net, mirror=False)
    first = {k: v.clone() for k, v in net.pair.net.state_dict().items()}
    other = {k: 0.8 * v for k, v in first.items()}
    theirs.list_of_parameters = [other, first]  # the last one stays in the network
    weaker = jax.tree.map(lambda leaf: np.float32(0.8) * leaf, net.forward)
    stacked = stack_folds([weaker, net.forward])
    arguments = {"window": net.window, "num_classes": 3, "num_folds": 2}
    ours = sliding_logits(stacked, net.volume, **arguments)
    assert distance(ours, their_logits(theirs, net.volume)) < 1e-4
    apart = fold_logits(stacked, net.volume, **arguments)
    np.testing.assert_allclose(apart.mean(0), ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_stitched_logits_are_monais(net, overlap):
    import torch
    from monai.inferers import sliding_window_inference

    if net.num_axes == 2:
        pytest.skip("MONAI slides a 2-D window over 2-D images alone")
    image = torch.from_numpy(np.moveaxis(net.volume, -1, 0)[None].copy())
    with torch.no_grad():
        theirs = sliding_window_inference(
            image, net.window, 2, net.pair.net, overlap=overlap, mode="gaussian"
        )
    ours = sliding_logits(
        net.forward,
        net.volume,
        window=net.window,
        num_classes=3,
        settings=SlidingWindow(overlap=overlap, convention="monai", batch_size=2),
    )
    assert distance(ours, np.moveaxis(theirs[0].numpy(), 0, -1)) < 1e-4
