"""Pooling, kernels, the memory proxy and the fitted patch."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.planning import topology
from bmjax.planning.topology import BUDGETS, Topology, feature_map_voxels, fit, pool

spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)
sizes = st.tuples(*[st.integers(8, 300)] * 3)


def test_an_isotropic_patch_of_64_pools_four_times_to_4():
    net = pool((2.0, 2.0, 2.0), (64, 64, 64))
    assert net.strides == ((1, 1, 1), *[(2, 2, 2)] * 4)
    assert net.kernel_sizes == ((3, 3, 3),) * 5
    assert net.features == (32, 64, 128, 256, 320)
    assert net.patch_size == (64, 64, 64)


def test_thick_slices_are_convolved_and_pooled_in_plane_first():
    net = pool((5.0, 1.0, 1.0), (16, 128, 128))
    assert net.strides[1:4] == ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert net.kernel_sizes[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert net.kernel_sizes[-1] == (3, 3, 3)


def test_a_lone_axis_of_11_voxels_is_not_pooled():
    assert pool((1.0, 1.0), (11, 4)).strides == ((1, 1),)
    assert pool((1.0, 1.0), (12, 4)).strides == ((1, 1), (2, 1))


def test_features_stop_at_320_in_3d_and_512_in_2d():
    assert max(pool((1.0,) * 3, (512,) * 3).features) == 320
    assert max(pool((1.0,) * 2, (512,) * 2).features) == 512


@settings(deadline=None, max_examples=100)
@given(spacings, sizes)
def test_a_patch_is_rounded_up_to_whole_bottleneck_voxels(spacing, size):
    net = pool(spacing, size)
    steps = topology.divisor(net.strides)
    for got, wanted, step in zip(net.patch_size, size, steps, strict=True):
        assert got % step == 0
        assert wanted <= got < wanted + step
    assert pool(spacing, net.patch_size) == net


@settings(deadline=None, max_examples=100)
@given(spacings, sizes)
def test_the_nearest_legal_patch_is_legal(spacing, size):
    legal = topology.nearest_legal(spacing, size)
    assert pool(spacing, legal).patch_size == legal


@settings(deadline=None, max_examples=40)
@given(spacings, sizes, st.sampled_from(sorted(BUDGETS)))
def test_a_fitted_patch_meets_its_budget_and_has_at_least_two_per_batch(
    spacing, size, preset
):
    net = fit(
        spacing, size, dataset_voxels=prod(size) * 50.0, num_outputs=4, preset=preset
    )
    cost = feature_map_voxels(net, budget=BUDGETS[preset], num_outputs=4)
    assert cost <= dict(BUDGETS[preset].reference)[3]
    assert net.batch_size >= 2


def test_memory_proxy_of_a_plain_network_by_hand():
    net = Topology(
        patch_size=(8, 8),
        strides=((1, 1), (2, 2)),
        kernel_sizes=((3, 3),) * 2,
        features=(32, 64),
    )
    encoder = 2 * 32 * 64 + 2 * 64 * 16
    decoder = 32 * 64 + 2 * 32 * 64  # transposed convolution, two convolutions
    head = 4 * 64
    got = feature_map_voxels(net, budget=BUDGETS["default"], num_outputs=4)
    assert got == encoder + decoder + head


def test_memory_proxy_of_a_residual_network_by_hand():
    net = Topology(
        patch_size=(8, 8),
        strides=((1, 1), (2, 2)),
        kernel_sizes=((3, 3),) * 2,
        features=(32, 64),
    )
    stem = 32 * 64
    encoder = 2 * 32 * 64 + (3 * 2 + 1) * 64 * 16  # one projection where it widens
    decoder = 32 * 64 + 32 * 64
    got = feature_map_voxels(net, budget=BUDGETS["resenc_m"], num_outputs=4)
    assert got == stem + encoder + decoder + 4 * 64


def test_few_voxels_cap_the_batch_of_the_default_planner_only():
    size = (32, 32, 32)
    few = {"dataset_voxels": float(np.prod(size)) * 60, "num_outputs": 4}
    assert fit((1.0,) * 3, size, **few).batch_size == 3  # 5 % of 60 cases
    assert fit((1.0,) * 3, size, preset="resenc_m", **few).batch_size == 60


def test_a_patch_that_does_not_divide_names_the_nearest_that_does():
    with pytest.raises(ValueError, match=r"nearest legal patch is \(48, 64, 64\)"):
        topology.require_divisible((50, 64, 70), ((1, 1, 1), *[(2, 2, 2)] * 4))
