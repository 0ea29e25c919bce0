"""The challenges' lesion-wise rules on hand-made masks, and step by step."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from bmjax.metrics import challenge, lesions, surface

CUBE_MM = (1.0, 1.0, 1.0)
SHAPE = (6, 8, 10)


def masks():
    return arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))


def check(test):
    return settings(deadline=None, max_examples=40)(test)


def blank():
    return np.zeros(SHAPE, bool)


def of_2023(predicted, real, spacing_mm=CUBE_MM):
    return challenge.brats_mets_2023(
        lesions.pair(predicted, real, spacing_mm=spacing_mm)
    )


def of_package(predicted, real, spacing_mm=CUBE_MM):
    return challenge.brats_evaluation(
        lesions.pair(predicted, real, spacing_mm=spacing_mm)
    )


@check
@given(masks())
def test_dilation_is_that_of_the_18_neighbourhood(mask):
    structure = ndimage.generate_binary_structure(3, 2)
    np.testing.assert_array_equal(
        challenge.dilate_18(mask), ndimage.binary_dilation(mask, structure)
    )


def literal_2023(predicted, real, spacing_mm):
    """The published rule step by step on whole volumes."""
    full = np.ones((3, 3, 3))
    near = ndimage.generate_binary_structure(3, 2)
    dilated, num = ndimage.label(ndimage.binary_dilation(real, near), full)
    parts, num_parts = ndimage.label(predicted, full)
    dices, distances, matched = [], [], set()
    for index in range(1, num + 1):
        lesion = real & (dilated == index)
        touching = set(parts[ndimage.binary_dilation(lesion, near)].tolist()) - {0}
        matched |= touching
        union = np.isin(parts, list(touching))
        if lesion.sum() * math.prod(spacing_mm) <= 2.0:
            continue
        dices.append(2 * (union & lesion).sum() / (union.sum() + lesion.sum()))
        between = surface.surfel_distances(union, lesion, spacing_mm=spacing_mm)
        distances.append(surface.weighted_hausdorff(between) if touching else 374.0)
    num_false = num_parts - len(matched)
    total = len(dices) + num_false
    if not total:
        return 1.0, 0.0
    return sum(dices) / total, (sum(distances) + 374.0 * num_false) / total


@check
@given(masks(), masks(), st.sampled_from([CUBE_MM, (3.0, 1.0, 0.5)]))
def test_challenge_equals_its_rule_step_by_step(predicted, real, spacing_mm):
    result = of_2023(predicted, real, spacing_mm)
    dice, hd95_mm = literal_2023(predicted, real, spacing_mm)
    assert result.dice == pytest.approx(dice)
    assert result.hd95_mm == pytest.approx(hd95_mm)


@check
@given(masks())
def test_a_mask_scores_perfectly_against_itself(mask):
    result = of_2023(mask, mask)
    assert (result.dice, result.hd95_mm) == (1.0, 0.0)
    assert result.num_false_negative == result.num_false_positive == 0
    successor = of_package(mask, mask)
    assert successor.num_false_negative == successor.num_false_positive == 0
    assert successor.large.num_false_negative == 0


@check
@given(masks(), masks())
def test_mirroring_both_masks_changes_no_challenge_score(a, b):
    def summary(a, b):
        first, second = of_2023(a, b), of_package(a, b)
        return np.array(
            [first.dice, first.hd95_mm, second.num_true_positive, second.dice]
        )

    mirrored = summary(a[:, ::-1, ::-1], b[:, ::-1, ::-1])
    np.testing.assert_allclose(summary(a, b), mirrored, rtol=1e-9)


def test_a_missed_lesion_and_an_invented_one_cost_374_mm_each():
    real, predicted = blank(), blank()
    real[1, 1, 1:4] = predicted[1, 1, 1:4] = True
    real[4, 5, 5:8] = True
    predicted[4, 1, 8] = True
    result = of_2023(predicted, real)
    assert result.dice == pytest.approx(1 / 3)
    assert result.hd95_mm == pytest.approx(2 * 374 / 3)


def test_a_missed_lesion_alone_scores_nothing():
    real = blank()
    real[1, 1, 1:4] = True
    result = of_2023(blank(), real)
    assert (result.dice, result.hd95_mm) == (0.0, 374.0)


def test_challenge_score_of_two_empty_masks_is_one():
    assert of_2023(blank(), blank()).dice == 1


def test_challenge_merges_lesions_whose_dilations_meet():
    real = blank()
    real[1, 1, 1:3] = real[1, 1, 4:6] = True  # one voxel apart
    predicted = real.copy()
    predicted[1, 1, 4:6] = False
    result = of_2023(predicted, real)
    assert result.num_true_positive == 1
    assert result.dice == pytest.approx(2 * 2 / (2 + 4))


def test_challenge_matches_a_prediction_beside_the_lesion():
    real, predicted = blank(), blank()
    real[1, 1, 1:4] = True
    predicted[1, 1, 4:6] = True  # touches the dilation, not the lesion
    result = of_2023(predicted, real)
    assert (result.num_true_positive, result.num_false_positive) == (1, 0)
    assert result.dice == 0


def test_challenge_leaves_out_lesions_of_two_cubic_millimetres():
    real, predicted = blank(), blank()
    real[1, 1, 1:3] = True  # 2 mm3
    real[4, 5, 5:8] = predicted[4, 5, 5:8] = True
    result = of_2023(predicted, real)
    assert (result.dice, result.num_false_negative) == (1.0, 0)


def test_challenge_counts_false_positives_of_any_size():
    real, predicted = blank(), blank()
    real[4, 5, 5:8] = predicted[4, 5, 5:8] = True
    predicted[0, 0, 0] = True
    result = of_2023(predicted, real)
    assert result.num_false_positive == 1
    assert result.dice == pytest.approx(0.5)


def test_challenge_limit_is_a_volume_not_a_voxel_count():
    real = blank()
    real[1, 1, 1:3] = True
    result = of_2023(blank(), real, spacing_mm=(2.0, 1.0, 1.0))  # 4 mm3
    assert (result.dice, result.num_false_negative) == (0.0, 1)


def cube(mask, z, y, x, size=3):
    mask[z : z + size, y : y + size, x : x + size] = True


def test_successor_scores_large_lesions_and_counts_small_ones_by_hand():
    real, predicted = blank(), blank()
    cube(real, 0, 0, 0)  # 27 mm3, found but for nine voxels
    cube(predicted, 0, 0, 0)
    predicted[2, :3, :3] = False
    real[5, 7, 0:2] = predicted[5, 7, 0:2] = True  # small and found
    real[5, 4, 9] = True  # small and missed
    predicted[0, 7, 9] = True  # invented
    result = of_package(predicted, real)
    assert (result.num_true_positive, result.num_false_negative) == (2, 1)
    assert result.num_false_positive == 1
    assert (result.large.num_true_positive, result.large.num_false_negative) == (1, 0)
    assert (result.small.num_true_positive, result.small.num_false_negative) == (1, 1)
    assert result.dice == pytest.approx((2 * 18 / (18 + 27)) / 2)
    # 26 reference border voxels, nine of them 1 mm away; 18 predicted ones, one of
    # them (the cube's centre) 1 mm away: more than 5 % of both
    assert result.hd95_mm == pytest.approx((1.0 + 373.0) / 2)
    assert result.nsd == pytest.approx(1.0 / 2)


def test_successor_matches_one_to_one_where_lesions_compete():
    real, predicted = blank(), blank()
    real[0, 0, 0:3] = real[0, 0, 6:9] = True
    predicted[0, 0, 0:9] = True  # covers both
    result = of_package(predicted, real)
    assert (result.num_true_positive, result.num_false_negative) == (1, 1)


def test_successor_is_undefined_without_a_large_lesion():
    real = blank()
    real[0, 0, 0:3] = True
    result = of_package(real, real)
    assert math.isnan(result.dice) and math.isnan(result.hd95_mm)
    assert result.small.num_true_positive == 1


def test_successor_detects_at_a_dice_of_exactly_a_tenth():
    real, predicted = blank(), blank()
    real[0, 0, 0] = True
    predicted[0, :2, :] = True
    predicted[0, 0, 9] = False  # Dice 2 / 20
    assert of_package(predicted, real).small.num_true_positive == 1


def test_successor_detects_from_a_dice_of_a_tenth_on():
    real, predicted = blank(), blank()
    real[0, 0, 0] = True
    predicted[0, :, :] = True  # Dice 2 / 81
    result = of_package(predicted, real)
    assert (result.num_true_positive, result.small.num_true_positive) == (1, 0)
