"""Candidates, their confidence and the free-response curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmjax.metrics import detection, lesions

SHAPE = (4, 5, 9)


def volume():
    probs, real = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    real[0, 0, 0:3] = True
    probs[0, 0, 2:4] = (0.75, 0.25)
    real[3, 4, 8] = True  # nothing there
    probs[0, 4, 8] = 0.5  # false
    probs[3, 0, 0] = 0.0625  # too faint for a candidate
    return probs, real


def test_a_lesion_has_the_confidence_of_the_best_candidate_that_touches_it():
    found = detection.confidences(*volume())
    assert list(found.lesions) == [0.75, 0.0]
    assert list(found.false_positives) == [0.5]


def test_a_candidate_needs_the_threshold():
    probs, real = volume()
    found = detection.confidences(probs, real, threshold=0.05)
    assert list(found.false_positives) == [0.5, 0.0625]


def test_one_candidate_may_find_two_lesions():
    probs, real = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    real[0, 0, 0] = real[0, 0, 4] = True
    probs[0, 0, 0:5] = 0.5
    assert list(detection.confidences(probs, real).lesions) == [0.5, 0.5]


def test_curve_of_hand_made_confidences():
    curve = detection.froc(np.array([0.9, 0.6, 0.0]), np.array([0.8, 0.3]), num_cases=2)
    assert list(curve.threshold) == [np.inf, 0.9, 0.8, 0.6, 0.3]
    np.testing.assert_allclose(curve.sensitivity, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert list(curve.false_positives_per_case) == [0, 0, 0.5, 0.5, 1]
    assert curve.at(0) == pytest.approx(1 / 3)
    assert curve.at(0.25) == pytest.approx(1 / 3)
    assert curve.at(9) == pytest.approx(2 / 3)
    at_rates = [1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert curve.score() == pytest.approx(np.mean(at_rates))
    assert curve.area(2.0) == pytest.approx((0.5 / 3 + 1.5 * 2 / 3) / 2)


def test_a_perfect_detector_has_area_and_score_one():
    curve = detection.froc(np.array([0.9, 0.6]), np.zeros(0), num_cases=3)
    assert curve.area() == curve.score() == 1


def test_a_curve_without_lesions_is_refused():
    with pytest.raises(ValueError, match="0 lesions in 2 cases"):
        detection.froc(np.zeros(0), np.array([0.5]), num_cases=2)


confidence_lists = arrays(
    np.float64, st.integers(1, 12), elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])
)


@settings(deadline=None, max_examples=60)
@given(confidence_lists, confidence_lists, st.integers(1, 5))
def test_a_curve_rises_and_stays_within_its_bounds(found, false, num_cases):
    curve = detection.froc(found, false, num_cases=num_cases)
    assert (np.diff(curve.sensitivity) >= 0).all()
    assert (np.diff(curve.false_positives_per_case) >= 0).all()
    assert 0 <= curve.area() <= curve.sensitivity[-1] <= 1


@settings(deadline=None, max_examples=40)
@given(arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False)))
def test_lesions_are_numbered_alike_in_a_larger_volume(mask):
    inside = lesions.components(mask)
    around = lesions.components(np.pad(mask, 2))[2:-2, 2:-2, 2:-2]
    np.testing.assert_array_equal(inside, around)


def test_sensitivity_by_size_counts_lesions_not_cases():
    rows = [
        {
            "kind": "reference",
            "size_bin": "<3 mm",
            "volume_bin": "<100 mm3",
            "is_found": f,
        }
        for f in (True, False, False)
    ]
    rows.append({"kind": "false positive", "is_found": False})
    found = detection.sensitivity_by_bin(rows, num_cases=2, num_patients=1)
    assert found["all"]["sensitivity"] == pytest.approx(1 / 3)
    assert found["by_size"]["<3 mm"]["num_lesions"] == 3
    assert np.isnan(found["by_size"]["3-5 mm"]["sensitivity"])
    assert found["by_volume"]["<100 mm3"]["num_found"] == 1
    assert found["false_positives_per_case"] == 0.5
    assert found["false_positives_per_patient"] == 1
