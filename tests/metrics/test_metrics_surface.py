"""Surfaces and distances by hand, by invariant and by brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmjax.metrics import surface, surfels

CUBE_MM = (1.0, 1.0, 1.0)
THICK_MM = (3.0, 1.0, 0.5)
SHAPE = (5, 6, 7)
MEASURES = (
    surface.hausdorff,
    surface.weighted_hausdorff,
    surface.larger_percentile,
    surface.pooled_percentile,
    surface.pooled_mean,
    surface.mean_of_means,
)
KINDS = (surface.surfel_distances, surface.voxel_distances)


def masks():
    return arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))


def check(test):
    return settings(deadline=None, max_examples=40)(test)


def voxel(*place):
    mask = np.zeros(SHAPE, bool)
    mask[place] = True
    return mask


def test_area_of_a_single_voxel_is_that_of_an_octahedron():
    corners, areas = surfels.surfels(voxel(2, 2, 2), spacing_mm=CUBE_MM)
    assert len(corners) == 8
    assert areas.sum() == pytest.approx(math.sqrt(3))  # edge 1 / sqrt 2


def test_area_of_a_flat_face_is_its_size_in_mm2():
    table = surfels.areas_mm2(THICK_MM)
    assert table[0b00001111] == pytest.approx(1.0 * 0.5)  # the lower z half
    assert table[0b00110011] == pytest.approx(3.0 * 0.5)  # the lower y half
    assert table[0b01010101] == pytest.approx(3.0 * 1.0)  # the lower x half


def test_an_inverted_pattern_has_the_same_area():
    table = surfels.areas_mm2(THICK_MM)
    np.testing.assert_array_equal(table, table[::-1])
    assert table[0] == 0
    assert (table[1:-1] > 0).all()


def test_area_grows_with_the_square_of_the_voxel_size():
    doubled = surfels.areas_mm2((6.0, 2.0, 1.0))
    np.testing.assert_allclose(doubled, 4 * surfels.areas_mm2(THICK_MM))


def test_a_body_at_the_border_has_its_whole_surface():
    corner, middle = voxel(0, 0, 0), voxel(2, 2, 2)
    areas = [surfels.surfels(m, spacing_mm=THICK_MM)[1].sum() for m in (corner, middle)]
    assert areas[0] == pytest.approx(areas[1])
    full = np.ones(SHAPE, bool)
    assert surface.border(full).sum() == full.size - math.prod(n - 2 for n in SHAPE)


@pytest.mark.parametrize("distances", KINDS)
@pytest.mark.parametrize(
    ("step", "mm"), [((1, 0, 0), 3.0), ((0, 2, 0), 2.0), ((0, 0, 3), 1.5)]
)
def test_two_voxels_apart_have_that_hausdorff_distance(distances, step, mm):
    found = distances(voxel(1, 1, 1), voxel(*np.add(1, step)), spacing_mm=THICK_MM)
    assert surface.hausdorff(found) == pytest.approx(mm)


def test_voxel_distances_of_two_bars_by_hand():
    real, predicted = np.zeros((2, *SHAPE), bool)
    real[2, 2, 1:4] = True
    predicted[2, 2, 1:6] = True  # two voxels too long: 1 and 2 mm
    found = surface.voxel_distances(predicted, real, spacing_mm=CUBE_MM)
    assert sorted(found.to_reference) == [0, 0, 0, 1, 2]
    assert list(found.to_prediction) == [0, 0, 0]
    assert surface.hausdorff(found) == 2
    assert surface.larger_percentile(found) == pytest.approx(1.8)
    assert surface.pooled_percentile(found) == pytest.approx(1.65)
    assert surface.pooled_mean(found) == pytest.approx(3 / 8)
    assert surface.mean_of_means(found) == pytest.approx((3 / 5 + 0) / 2)
    assert surface.surface_dice(found, tolerance_mm=1.0) == pytest.approx(7 / 8)
    assert surface.mean_surface_share(found, tolerance_mm=1.0) == pytest.approx(0.9)


def test_weighted_percentile_takes_the_first_distance_that_reaches_the_share():
    found = surface.Distances(
        to_reference=np.array([5.0, 1.0, 2.0]),
        to_prediction=np.array([0.5]),
        predicted_areas=np.array([1.0, 8.0, 1.0]),
        reference_areas=np.array([1.0]),
    )
    assert surface.weighted_hausdorff(found, percent=80) == 1.0
    assert surface.weighted_hausdorff(found, percent=85) == 2.0
    assert surface.weighted_hausdorff(found, percent=100) == 5.0


def test_distance_to_the_other_mask_is_zero_inside_it():
    real, predicted = np.zeros((2, 9, 9, 9), bool)
    real[1:8, 1:8, 1:8] = True
    predicted[3:6, 3:6, 3:6] = True
    # The predicted surface lies inside. Of the reference's 218 voxels the 8 corners are
    # sqrt(4 + 4 + 4) away and 24 next to them sqrt(4 + 4 + 1): the eleventh counts
    found = surface.hd95_to_mask(predicted, real, spacing_mm=CUBE_MM)
    assert found == pytest.approx(3.0)


@pytest.mark.parametrize("distances", KINDS)
def test_one_empty_mask_is_infinitely_far_and_two_are_undefined(distances):
    nothing, something = np.zeros(SHAPE, bool), voxel(1, 1, 1)
    for pair in ((nothing, something), (something, nothing)):
        found = distances(*pair, spacing_mm=CUBE_MM)
        assert [measure(found) for measure in MEASURES] == [math.inf] * len(MEASURES)
        assert surface.surface_dice(found, tolerance_mm=1.0) == 0
        assert surface.mean_surface_share(found, tolerance_mm=1.0) == 0
        assert math.isnan(surface.hd95_to_mask(*pair, spacing_mm=CUBE_MM))
    found = distances(nothing, nothing, spacing_mm=CUBE_MM)
    assert all(math.isnan(measure(found)) for measure in MEASURES)
    assert math.isnan(surface.surface_dice(found, tolerance_mm=1.0))
    assert surface.hd95_to_mask(nothing, nothing, spacing_mm=CUBE_MM) == 0


@check
@given(masks(), masks())
def test_every_measure_is_symmetric_and_orders_with_hausdorff(a, b):
    for distances in KINDS:
        forth = distances(a, b, spacing_mm=THICK_MM)
        back = distances(b, a, spacing_mm=THICK_MM)
        largest = surface.hausdorff(forth)
        for measure in MEASURES:
            np.testing.assert_allclose(measure(forth), measure(back), rtol=1e-12)
            assert not measure(forth) > largest
        share = surface.surface_dice(forth, tolerance_mm=1.0)
        back_share = surface.surface_dice(back, tolerance_mm=1.0)
        np.testing.assert_allclose(share, back_share, rtol=1e-12)


@check
@given(masks())
def test_a_mask_is_at_no_distance_from_itself(mask):
    if not mask.any():
        return
    for distances in KINDS:
        found = distances(mask, mask, spacing_mm=THICK_MM)
        assert all(measure(found) == 0 for measure in MEASURES)
        assert surface.surface_dice(found, tolerance_mm=0.0) == 1


@check
@given(masks(), masks(), st.permutations(range(3)))
def test_turning_both_masks_and_the_spacing_changes_nothing(a, b, order):
    spacing = tuple(THICK_MM[i] for i in order)
    for distances in KINDS:
        found = distances(a, b, spacing_mm=THICK_MM)
        turned = distances(a.transpose(order), b.transpose(order), spacing_mm=spacing)
        for measure in (surface.hausdorff, surface.pooled_mean):
            np.testing.assert_allclose(measure(found), measure(turned), rtol=1e-12)


@check
@given(masks(), masks())
def test_distances_equal_those_to_every_other_voxel(a, b):
    found = surface.voxel_distances(a, b, spacing_mm=THICK_MM)
    points, others = (np.argwhere(surface.border(m)) * THICK_MM for m in (a, b))
    if not len(points) or not len(others):
        return
    apart = [[math.dist(p, q) for q in others] for p in points]
    np.testing.assert_allclose(found.to_reference, np.min(apart, axis=1), atol=1e-12)
    np.testing.assert_allclose(found.to_prediction, np.min(apart, axis=0), atol=1e-12)


@check
@given(masks())
def test_border_voxels_are_those_with_a_face_neighbour_outside(mask):
    padded = np.pad(mask, 1)
    steps = [
        s for s in itertools.product((-1, 0, 1), repeat=3) if sum(map(abs, s)) == 1
    ]
    rolled = [np.roll(padded, s, (0, 1, 2))[1:-1, 1:-1, 1:-1] for s in steps]
    np.testing.assert_array_equal(
        surface.border(mask), mask & ~np.logical_and.reduce(rolled)
    )
