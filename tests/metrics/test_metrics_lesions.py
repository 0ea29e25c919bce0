"""Components, matching and the challenge's rule on hand-made masks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from bmjax.metrics import lesions

CUBE_MM = (1.0, 1.0, 1.0)
SHAPE = (6, 8, 10)


def masks():
    return arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))


def check(test):
    return settings(deadline=None, max_examples=40)(test)


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
    (match,) = lesions.match(predicted, real, spacing_mm=CUBE_MM).matches
    assert match.is_found
    assert match.dice == pytest.approx(2 / 5)


def test_a_missed_lesion_and_an_invented_one_are_told_apart():
    real, predicted = blank(), blank()
    real[0, 0, 0] = True
    predicted[5, 7, 8:10] = True
    matching = lesions.match(predicted, real, spacing_mm=CUBE_MM)
    assert [m.is_found for m in matching.matches] == [False]
    assert matching.matches[0].dice == 0
    assert [p.num_voxels for p in matching.false_positives] == [2]


def test_one_predicted_component_may_find_two_lesions():
    real, predicted = blank(), blank()
    real[1, 1, 1] = real[1, 1, 4] = True
    predicted[1, 1, 1:5] = True
    matching = lesions.match(predicted, real, spacing_mm=CUBE_MM)
    assert [m.dice for m in matching.matches] == [pytest.approx(2 / 5)] * 2
    assert matching.false_positives == ()


@check
@given(masks())
def test_a_mask_matches_itself(mask):
    matching = lesions.match(mask, mask, spacing_mm=CUBE_MM)
    assert all(m.is_found and m.dice == 1 for m in matching.matches)
    assert matching.false_positives == ()
    result = lesions.brats_mets_2023(mask, mask, spacing_mm=CUBE_MM)
    assert result.num_false_negative == result.num_false_positive == 0


@check
@given(masks(), masks())
def test_mirroring_both_masks_changes_no_count(a, b):
    def summary(a, b):
        m = lesions.match(a, b, spacing_mm=CUBE_MM)
        dices = sorted(round(match.dice, 12) for match in m.matches)
        c = lesions.brats_mets_2023(a, b, spacing_mm=CUBE_MM)
        return dices, len(m.false_positives), c.num_true_positive, round(c.dice, 12)

    assert summary(a, b) == summary(a[:, ::-1, ::-1], b[:, ::-1, ::-1])


@check
@given(masks())
def test_dilation_is_that_of_the_18_neighbourhood(mask):
    structure = ndimage.generate_binary_structure(3, 2)
    np.testing.assert_array_equal(
        lesions.dilate_18(mask), ndimage.binary_dilation(mask, structure)
    )


def challenge(predicted, real, spacing_mm=CUBE_MM):
    return lesions.brats_mets_2023(predicted, real, spacing_mm=spacing_mm)


def literal_challenge(predicted, real, min_volume_mm3):
    """The published rule step by step on whole volumes, by scipy alone."""
    full = np.ones((3, 3, 3))
    near = ndimage.generate_binary_structure(3, 2)
    dilated, num = ndimage.label(ndimage.binary_dilation(real, near), full)
    parts, num_parts = ndimage.label(predicted, full)
    dices, matched = [], set()
    for index in range(1, num + 1):
        lesion = real & (dilated == index)
        touching = set(parts[ndimage.binary_dilation(lesion, near)].tolist()) - {0}
        matched |= touching
        union = np.isin(parts, list(touching))
        if lesion.sum() > min_volume_mm3:
            dices.append(2 * (union & lesion).sum() / (union.sum() + lesion.sum()))
    total = len(dices) + num_parts - len(matched)
    return sum(dices) / total if total else 1.0


@check
@given(masks(), masks())
def test_challenge_equals_its_rule_step_by_step(predicted, real):
    result = challenge(predicted, real)
    assert result.dice == pytest.approx(literal_challenge(predicted, real, 2.0))


def test_challenge_score_of_two_empty_masks_is_one():
    assert challenge(blank(), blank()).dice == 1


def test_challenge_merges_lesions_whose_dilations_meet():
    real = blank()
    real[1, 1, 1:3] = real[1, 1, 4:6] = True  # one voxel apart
    predicted = real.copy()
    predicted[1, 1, 4:6] = False
    result = challenge(predicted, real)
    assert result.num_true_positive == 1
    assert result.dice == pytest.approx(2 * 2 / (2 + 4))


def test_challenge_matches_a_prediction_beside_the_lesion():
    real, predicted = blank(), blank()
    real[1, 1, 1:4] = True
    predicted[1, 1, 4:6] = True  # touches the dilation, not the lesion
    result = challenge(predicted, real)
    assert (result.num_true_positive, result.num_false_positive) == (1, 0)
    assert result.dice == 0


def test_challenge_leaves_out_lesions_of_two_cubic_millimetres():
    real, predicted = blank(), blank()
    real[1, 1, 1:3] = True  # 2 mm3
    real[4, 5, 5:8] = predicted[4, 5, 5:8] = True
    result = challenge(predicted, real)
    assert (result.dice, result.num_false_negative) == (1.0, 0)


def test_challenge_counts_false_positives_of_any_size():
    real, predicted = blank(), blank()
    real[4, 5, 5:8] = predicted[4, 5, 5:8] = True
    predicted[0, 0, 0] = True
    result = challenge(predicted, real)
    assert result.num_false_positive == 1
    assert result.dice == pytest.approx(0.5)


def test_challenge_limit_is_a_volume_not_a_voxel_count():
    real = blank()
    real[1, 1, 1:3] = True
    result = challenge(blank(), real, spacing_mm=(2.0, 1.0, 1.0))  # 4 mm3
    assert (result.dice, result.num_false_negative) == (0.0, 1)
