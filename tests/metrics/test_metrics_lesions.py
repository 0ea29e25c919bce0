"""Components, sizes and matching on hand-made masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmjax.metrics import lesions

CUBE_MM = (1.0, 1.0, 1.0)
SHAPE = (6, 8, 10)


def masks():
    return arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))


def check(test):
    return settings(deadline=None, max_examples=40)(test)


def match(predicted, real):
    return lesions.match(lesions.pair(predicted, real, spacing_mm=CUBE_MM))


def blank():
    return np.zeros(SHAPE, bool)


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    mask = blank()
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert lesions.components(mask).max() == 1


def test_a_lesion_has_its_volume_centre_and_box():
    mask = blank()
    mask[1:3, 2:4, 3:7] = True
    (lesion,) = lesions.measure(lesions.components(mask), spacing_mm=(3.0, 1.0, 0.5))
    assert lesion.num_voxels == 16
    assert lesion.volume_mm3 == pytest.approx(24.0)
    assert lesion.diameter_mm == pytest.approx((6 * 24 / math.pi) ** (1 / 3))
    assert lesion.centre_vox == (1.5, 2.5, 4.5)
    assert (lesion.lower_vox, lesion.upper_vox) == ((1, 2, 3), (3, 4, 7))


def test_an_empty_mask_has_no_lesion():
    numbered = lesions.components(blank())
    assert lesions.measure(numbered, spacing_mm=CUBE_MM) == ()


@pytest.mark.parametrize(
    ("diameter", "name"),
    [
        (2.99, "<3 mm"),
        (3.0, "3-5 mm"),
        (5.0, "5-10 mm"),
        (10.0, ">=10 mm"),
        (44.0, ">=10 mm"),
    ],
)
def test_a_size_bin_holds_its_lower_end(diameter, name):
    assert lesions.size_bin(diameter) == name


def test_volume_is_in_millilitres():
    mask = np.ones((10, 10, 10), bool)
    assert lesions.volume_ml(mask, spacing_mm=(2.0, 1.0, 0.5)) == pytest.approx(1.0)


def test_one_common_voxel_finds_a_lesion():
    real, predicted = blank(), blank()
    real[1, 1, 1:4] = True
    predicted[1, 1, 3:5] = True
    (found,) = match(predicted, real).matches
    assert found.is_found
    assert found.dice == pytest.approx(2 / 5)


def test_a_missed_lesion_and_an_invented_one_are_told_apart():
    real, predicted = blank(), blank()
    real[0, 0, 0] = True
    predicted[5, 7, 8:10] = True
    matching = match(predicted, real)
    assert [m.is_found for m in matching.matches] == [False]
    assert matching.matches[0].dice == 0
    assert [p.num_voxels for p in matching.false_positives] == [2]


def test_one_predicted_component_may_find_two_lesions():
    real, predicted = blank(), blank()
    real[1, 1, 1] = real[1, 1, 4] = True
    predicted[1, 1, 1:5] = True
    matching = match(predicted, real)
    assert [m.dice for m in matching.matches] == [pytest.approx(2 / 5)] * 2
    assert matching.false_positives == ()


@check
@given(masks())
def test_a_mask_matches_itself(mask):
    matching = match(mask, mask)
    assert all(m.is_found and m.dice == 1 for m in matching.matches)
    assert matching.false_positives == ()


@check
@given(masks(), masks())
def test_mirroring_both_masks_changes_no_count(a, b):
    def summary(a, b):
        m = match(a, b)
        return sorted(found.dice for found in m.matches), len(m.false_positives)

    assert summary(a, b) == summary(a[:, ::-1, ::-1], b[:, ::-1, ::-1])
