"""Tests of bmjax.data.resample: exactly what scipy's zoom does, only faster."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bmjax.data.resample import (
    blocks,
    linear_slices,
    matrix,
    nearest,
    new_size,
    resample,
    resample_labels,
    thick_axis,
)


def zoom(volume, size, order):
    factors = [out / n for out, n in zip(size, volume.shape, strict=True)]
    result = ndimage.zoom(volume, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(result, volume.min(), volume.max())


sizes = st.tuples(*[st.integers(2, 24)] * 3)


@given(before=sizes, after=sizes, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_resampling_equals_scipys_zoom(before, after, seed):
    volume = np.random.default_rng(seed).normal(size=before).astype(np.float32)
    for kind, order in (("cubic", 3), ("linear", 1)):
        got = resample(volume, after, kind=kind)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, zoom(volume, after, order), atol=1e-4)


def test_a_real_head_equals_scipys_zoom(real_cases):
    from bmjax.data import nifti

    path = sorted(real_cases.glob("*/*-t1c.nii.gz"))[0]
    volume = nifti.read(path).array[40:110, 60:180, 70:170]
    volume = volume / volume.std()
    for size in ((35, 60, 50), (70, 150, 125)):
        got = resample(volume, size, kind="cubic")
        np.testing.assert_allclose(got, zoom(volume, size, 3), atol=1e-4)


@given(before=st.integers(1, 200), after=st.integers(1, 200))
@settings(max_examples=40, deadline=None)
def test_rows_of_a_matrix_sum_to_one(before, after):
    for kind in ("cubic", "linear"):
        rows = matrix(before, after, kind).sum(1)
        np.testing.assert_allclose(rows, 1, atol=1e-12)


@given(before=st.integers(1, 150), after=st.integers(1, 150))
@settings(max_examples=40, deadline=None)
def test_a_matrix_is_scipys_zoom_of_each_unit_impulse(before, after):
    for kind, order in (("cubic", 3), ("linear", 1)):
        columns = [
            ndimage.zoom(
                unit, after / before, order=order, mode="nearest", grid_mode=True
            )
            for unit in np.eye(before)
        ]
        want = np.stack(columns, axis=1)
        np.testing.assert_allclose(matrix(before, after, kind), want, atol=1e-12)


@pytest.mark.parametrize("kind", ["cubic", "linear"])
@pytest.mark.parametrize(("before", "after"), [(240, 480), (300, 200), (90, 90)])
def test_a_band_leaves_out_only_what_rounding_would_lose(before, after, kind):
    whole = np.zeros((after, before))
    for block in blocks(before, after, kind):
        rows, columns = block.weights.shape
        here = slice(block.row, block.row + rows)
        whole[here, block.column : block.column + columns] = block.weights
        assert columns <= rows * before / after + 40
    lost = np.abs(whole - matrix(before, after, kind)).sum(1)
    assert lost.max() < 1e-6


@pytest.mark.parametrize("apart", [None, 0, 2])
@pytest.mark.parametrize("kind", ["cubic", "linear"])
def test_a_device_resamples_as_the_host_does(rng, kind, apart):
    volume = rng.normal(size=(20, 71, 9)).astype(np.float32)
    size = (31, 150, 7)
    want = resample(volume, size, kind=kind, apart=apart)
    on_device = jax.jit(partial(resample, size=size, kind=kind, apart=apart))
    got = on_device(jnp.asarray(volume))
    assert isinstance(got, jax.Array) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_products_lower_for_cuda_in_full_precision():
    volume = jax.ShapeDtypeStruct((20, 30, 40), jnp.float32)
    traced = jax.jit(partial(resample, size=(25, 60, 40), kind="cubic")).trace(volume)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)


@given(before=sizes, after=sizes, apart=st.sampled_from([None, 0, 1, 2]))
@settings(max_examples=30, deadline=None)
def test_slices_are_those_of_the_whole(before, after, apart):
    volume = np.random.default_rng(0).normal(size=(*before, 2)).astype(np.float32)
    got = np.stack(list(linear_slices(volume, after, apart=apart)))
    for channel in range(2):
        whole = np.ascontiguousarray(volume[..., channel])
        want = resample(whole, after, kind="linear", apart=apart)
        np.testing.assert_allclose(got[..., channel], want, atol=1e-5)


def test_the_input_is_never_written_to(rng):
    volume = rng.normal(size=(7, 12, 13)).astype(np.float32)
    volume.flags.writeable = False
    for size in ((7, 12, 20), (14, 12, 13)):
        assert resample(volume, size, kind="cubic", apart=0).shape == size


def test_the_same_size_is_the_same_array():
    volume = np.ones((2, 3, 4), np.float32)
    assert resample(volume, (2, 3, 4), kind="cubic") is volume
    labels = volume.astype(np.int8)
    assert resample_labels(labels, (2, 3, 4)) is labels


def test_cubic_never_leaves_the_range_of_its_input(rng):
    volume = (rng.random((9, 9, 9)) > 0.5).astype(np.float32)
    result = resample(volume, (20, 21, 22), kind="cubic")
    assert result.min() >= 0 and result.max() <= 1


def by_slices(volume, size, order):
    """nnU-Net's separate-z: each slice on its own, then the nearest slice."""
    planes = [
        zoom(plane[None], (1, *size[1:]), order)[0] if order else plane
        for plane in volume
    ]
    scale = len(planes) / size[0]
    rows = scale * (np.arange(size[0]) + 0.5) - 0.5
    index = ndimage.map_coordinates(
        np.arange(len(planes), dtype=float), rows[None], order=0, mode="nearest"
    )
    return np.stack([planes[int(i)] for i in index])


@pytest.mark.parametrize("depth", [4, 7, 11])
def test_thick_slices_are_resampled_on_their_own(rng, depth):
    volume = rng.normal(size=(7, 12, 13)).astype(np.float32)
    got = resample(volume, (depth, 18, 9), kind="cubic", apart=0)
    np.testing.assert_allclose(got, by_slices(volume, (depth, 18, 9), 3), atol=1e-4)
    # the same along another axis
    turned = resample(volume.transpose(1, 0, 2), (18, depth, 9), kind="cubic", apart=1)
    np.testing.assert_allclose(turned.transpose(1, 0, 2), got, atol=1e-5)


def test_the_thick_axis_is_the_one_lowest_resolution_axis():
    assert thick_axis((6.0, 0.5, 0.5)) == 0
    assert thick_axis((1.0, 1.0, 1.0), (1.0, 4.0, 1.0)) == 1
    assert thick_axis((3.0, 1.0, 1.0)) is None  # three times is not more than three
    assert thick_axis((5.0, 5.0, 1.0)) is None  # two thick axes


def labels_by_scipy(labels, size):
    """Labels, and where rounding decides between two of them."""
    result, is_tie = np.zeros(size, labels.dtype), np.zeros(size, bool)
    for value in np.unique(labels):
        share = zoom((labels == value).astype(float), size, 1)
        result[share >= 0.5] = value
        is_tie |= np.abs(share - 0.5) < 1e-5
    return result, is_tie


@given(before=sizes, after=sizes, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_labels_are_resampled_one_by_one_as_in_nnunet(before, after, seed):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=before), 2)
    labels = np.digitize(smooth, [0, smooth.std(), 2 * smooth.std()]).astype(np.int8)
    got = resample_labels(labels, after)
    want, is_tie = labels_by_scipy(labels, after)
    np.testing.assert_array_equal(got[~is_tie], want[~is_tie])


def test_labels_of_thick_slices_take_the_nearest_slice():
    labels = np.zeros((3, 4, 4), np.int8)
    labels[1] = 2
    got = resample_labels(labels, (6, 8, 8), apart=0)
    assert [int(plane.max()) for plane in got] == [0, 0, 2, 2, 0, 0]


def test_new_sizes_cover_the_same_space():
    size = new_size(
        (155, 240, 240), spacing_mm=(1.0, 1.0, 1.0), new_spacing_mm=(2.0, 0.5, 0.8)
    )
    assert size == (78, 480, 300)
    assert new_size((1,), spacing_mm=(1.0,), new_spacing_mm=(5.0,)) == (1,)


def test_nearest_voxels_are_the_ones_that_contain_the_centre():
    assert list(nearest(3, 6)) == [0, 0, 1, 1, 2, 2]
    assert list(nearest(6, 3)) == [1, 3, 5]
