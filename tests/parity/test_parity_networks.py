"""Logits, parameter counts and exchange of weights at the published sizes."""

import math

import jax
import numpy as np
import pytest
from pairs import (
    BRATS,
    FEATURES,
    SBT,
    SMALL_NETS,
    channels_last,
    distance,
    draw_image,
    make_pair,
    outputs_of,
    reference,
    shapes,
    state_of,
)

from bmjax import models
from bmjax.surgery import flatten, from_torch, to_torch
from bmjax.weights import read_weights, write_weights

pytestmark = pytest.mark.parity

# The smallest images that leave two voxels per axis at the bottleneck.
NETS = {
    "PlainUNet of the SBT plan": (models.PlainUNet(**SBT), (32, 64, 64)),
    "PlainUNet of the BraTS plan": (models.PlainUNet(**BRATS), (64, 64, 32)),
    "ResEncUNet of the BraTS plan": (models.ResEncUNet(**BRATS), (64, 64, 32)),
    "SegResNet": (models.SegResNet(num_classes=3), (16, 16, 16)),
    "PlainUNet in 2-D": (
        models.PlainUNet(
            features=(*FEATURES, 512, 512),
            strides=((1, 1), *((2, 2),) * 6, (1, 2)),
            kernel_sizes=((3, 3),) * 8,
            num_classes=3,
        ),
        (128, 256),
    ),
    "ResEncUNet in 2-D": (
        models.ResEncUNet(
            features=FEATURES,
            strides=((1, 1), *((2, 2),) * 5),
            kernel_sizes=((3, 3),) * 6,
            num_classes=3,
        ),
        (64, 64),
    ),
    "SegResNet in 2-D": (models.SegResNet(num_classes=3), (32, 32)),
}
COUNTS = {
    "PlainUNet of the SBT plan": 31_114_767,
    "PlainUNet of the BraTS plan": 30_789_391,
    "ResEncUNet of the BraTS plan": 101_943_567,
    "SegResNet": 18_798_627,
}


@pytest.fixture(scope="module", params=NETS)
def full(request):
    model, size = NETS[request.param]
    return make_pair(model, num_axes=len(size)), size


def test_logits_of_every_resolution_are_the_references(full):
    import torch

    pair, size = full
    image = draw_image(*size, batch=1)
    with torch.no_grad():
        theirs = outputs_of(pair.net, image)
    ours = jax.jit(pair.model.apply)({"params": pair.params}, image)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert distance(mine, channels_last(other.numpy())) < 1e-4


def test_export_is_loaded_whole_and_comes_back_bit_for_bit(full):
    import torch

    pair, size = full
    state = {k: torch.from_numpy(x) for k, x in to_torch(pair.params).items()}
    with torch.no_grad():
        for tensor in pair.net.parameters():
            tensor.fill_(torch.nan)
    pair.net.load_state_dict(state, strict=True)
    again = from_torch(shapes(pair.model, num_axes=len(size)), state_of(pair.net))
    ours, theirs = flatten(pair.params), flatten(again)
    assert list(ours) == list(theirs)
    for path, array in ours.items():
        assert array.tobytes() == theirs[path].tobytes(), path


@pytest.mark.parametrize("title", COUNTS)
def test_both_have_the_published_number_of_parameters(title):
    import torch

    model, size = NETS[title]
    with torch.device("meta"):
        net = reference(model, num_axes=len(size))
    assert sum(tensor.numel() for tensor in net.parameters()) == COUNTS[title]
    leaves = jax.tree.leaves(shapes(model))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == COUNTS[title]


@pytest.mark.parametrize("title", SMALL_NETS)
def test_files_are_exchanged_bit_for_bit(title, tmp_path):
    import torch

    model, size = SMALL_NETS[title]
    pair = make_pair(model, num_axes=len(size))
    ours, theirs = tmp_path / "ours.pth", tmp_path / "theirs.pth"
    write_weights(ours, to_torch(pair.params))
    loaded = torch.load(ours, weights_only=True)
    pair.net.load_state_dict(loaded, strict=True)
    for name, tensor in pair.net.state_dict().items():
        assert torch.equal(tensor, loaded[name]), name

    torch.save({"network_weights": pair.net.state_dict(), "current_epoch": 7}, theirs)
    weights = read_weights(theirs)
    assert weights.metadata["current_epoch"] == 7
    target = shapes(model, num_axes=len(size))
    again = flatten(from_torch(target, weights.tensors))
    for path, array in flatten(pair.params).items():
        assert np.array_equal(array, again[path]), path
