"""Panoptic quality of lesions by hand and by invariant."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmjax.metrics import instances, lesions

SHAPE = (4, 5, 12)


def masks():
    return arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))


def quality(predicted, real):
    return instances.quality(lesions.pair(predicted, real, spacing_mm=(1.0, 1.0, 1.0)))


def test_quality_of_three_lesions_by_hand():
    real, predicted = np.zeros((2, *SHAPE), bool)
    real[0, 0, 0:4] = True
    predicted[0, 0, 1:4] = True  # IoU 3 / 4
    real[3, 4, 0:4] = True
    predicted[3, 4, 3:6] = True  # IoU 1 / 6: both wrong
    predicted[0, 4, 11] = True  # invented
    found = quality(predicted, real)
    assert found.num_true_positive == 1
    assert (found.num_false_positive, found.num_false_negative) == (2, 1)
    assert found.recognition == pytest.approx(1 / (1 + 2 / 2 + 1 / 2))
    assert found.segmentation == pytest.approx(3 / 4)
    assert found.panoptic == pytest.approx(found.recognition * 3 / 4)


def test_an_iou_of_exactly_one_half_is_a_match():
    real, predicted = np.zeros((2, *SHAPE), bool)
    real[0, 0, 0:2] = True
    predicted[0, 0, 0:4] = True
    assert quality(predicted, real).num_true_positive == 1


def test_without_any_lesion_quality_is_undefined():
    nothing = np.zeros(SHAPE, bool)
    found = quality(nothing, nothing)
    assert math.isnan(found.recognition) and math.isnan(found.panoptic)


def test_without_a_match_panoptic_quality_is_zero():
    real = np.zeros(SHAPE, bool)
    real[0, 0, 0] = True
    found = quality(np.zeros(SHAPE, bool), real)
    assert (found.recognition, found.panoptic) == (0.0, 0.0)
    assert math.isnan(found.segmentation)


def test_touching_lesions_are_one_instance():
    real, predicted = np.zeros((2, *SHAPE), bool)
    real[0, 0, 0:4] = True
    predicted[0, 0, 0:2] = predicted[1, 1, 2:4] = True  # touch at a corner
    found = quality(predicted, real)
    assert found.num_true_positive + found.num_false_positive == 1


@settings(deadline=None, max_examples=60)
@given(masks(), masks())
def test_panoptic_quality_is_recognition_times_segmentation(a, b):
    found = quality(a, b)
    if found.num_true_positive:
        product = found.recognition * found.segmentation
        assert found.panoptic == pytest.approx(product)
        assert 0.5 <= found.segmentation <= 1
    swapped = quality(b, a)
    assert swapped.num_false_positive == found.num_false_negative
    np.testing.assert_allclose(swapped.panoptic, found.panoptic)
