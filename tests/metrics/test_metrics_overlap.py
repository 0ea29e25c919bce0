"""Overlap measures by hand, by invariant, and the same in numpy and under jit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmjax.metrics import overlap
from bmjax.metrics.overlap import Counts

RATIOS = (overlap.dice, overlap.iou, overlap.sensitivity, overlap.precision)
BY_HAND = Counts(tp=3, fp=1, fn=2, tn=10)


def masks(shape=(3, 4, 5)):
    return arrays(np.bool_, shape)


def check(test):
    return settings(deadline=None, max_examples=40)(test)


@pytest.mark.parametrize(
    ("measure", "value"),
    [
        (overlap.dice, 6 / 9),
        (overlap.iou, 3 / 6),
        (overlap.sensitivity, 3 / 5),
        (overlap.specificity, 10 / 11),
        (overlap.precision, 3 / 4),
        (overlap.accuracy, 13 / 16),
    ],
)
def test_ratio_of_hand_made_counts(measure, value):
    assert measure(BY_HAND) == pytest.approx(value)


@pytest.mark.parametrize("measure", RATIOS)
def test_two_empty_masks_are_undefined_unless_the_caller_names_a_value(measure):
    nothing = Counts(tp=0, fp=0, fn=0, tn=7)
    assert math.isnan(measure(nothing))
    assert measure(nothing, both_empty=1.0) == 1.0


def test_one_empty_mask_gives_dice_zero():
    assert overlap.dice(Counts(tp=0, fp=0, fn=4, tn=7), both_empty=1.0) == 0
    assert overlap.dice(Counts(tp=0, fp=4, fn=0, tn=7), both_empty=1.0) == 0


def test_sensitivity_without_reference_is_undefined_whatever_the_convention():
    counts = Counts(tp=0, fp=4, fn=0, tn=7)
    assert math.isnan(overlap.sensitivity(counts, both_empty=1.0))


def test_precision_without_prediction_is_undefined_whatever_the_convention():
    counts = Counts(tp=0, fp=0, fn=4, tn=7)
    assert math.isnan(overlap.precision(counts, both_empty=1.0))


def test_specificity_of_a_full_reference_is_undefined():
    assert math.isnan(overlap.specificity(Counts(tp=4, fp=0, fn=0, tn=0)))


@check
@given(masks(), masks())
def test_dice_and_iou_are_symmetric_bounded_and_tied(a, b):
    ab, ba = overlap.count(a, b), overlap.count(b, a)
    dice, iou = overlap.dice(ab, both_empty=1.0), overlap.iou(ab, both_empty=1.0)
    assert dice == overlap.dice(ba, both_empty=1.0)
    assert 0 <= iou <= dice <= 1
    assert dice == pytest.approx(2 * iou / (1 + iou))


@check
@given(masks(), masks())
def test_counts_add_up_to_the_volume(a, b):
    assert sum(overlap.count(a, b)) == a.size


@check
@given(masks())
def test_a_mask_agrees_with_itself(a):
    assert overlap.dice(overlap.count(a, a), both_empty=1.0) == 1
    assert overlap.accuracy(overlap.count(a, a)) == 1


@check
@given(
    arrays(np.int16, (3, 4, 5), elements=st.integers(0, 3)),
    arrays(np.int16, (3, 4, 5), elements=st.integers(0, 3)),
)
def test_region_counts_of_the_confusion_table_equal_counting_masks(a, b):
    table = overlap.confusion(a, b, num_labels=4)
    for labels in ((1, 2, 3), (1, 3), (3,)):
        expected = overlap.count(np.isin(a, labels), np.isin(b, labels))
        assert overlap.region_counts(table, labels=labels) == expected


def test_the_same_functions_work_under_jit(rng):
    a, b = rng.random((2, 3, 4, 5, 6)) < 0.3  # b z y x each
    a[0] = b[0] = False

    @jax.jit
    def measured(a, b):
        counts = overlap.count(a, b, axis=(1, 2, 3))
        return overlap.dice(counts, both_empty=1.0), overlap.specificity(counts)

    counts = overlap.count(a, b, axis=(1, 2, 3))
    dice, specificity = measured(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(dice, overlap.dice(counts, both_empty=1.0), rtol=1e-6)
    np.testing.assert_allclose(specificity, overlap.specificity(counts), rtol=1e-6)
    assert dice[0] == 1
