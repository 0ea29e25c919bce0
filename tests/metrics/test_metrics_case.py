"""All measures of a case, and their summary over cases."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.metrics import case, conventions, statistics

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "NETC": (1,)}


def compare(prediction, reference, **rest):
    return case.compare(
        prediction,
        reference,
        regions=REGIONS,
        lesion_regions=("WT", "ET"),
        spacing_mm=(2.0, 1.0, 1.0),
        **rest,
    )


def two_lesions():
    labels = np.zeros((8, 10, 12), np.int16)
    labels[1:4, 2:5, 2:6] = 2
    labels[2, 3, 3:5] = 3
    labels[6, 8, 10] = 3
    return labels


def test_regions_are_unions_of_labels():
    reference = two_lesions()
    prediction = np.where(reference == 3, 1, reference)  # core called necrotic
    measures = compare(prediction, reference).measures
    assert measures["WT"]["dice"] == measures["TC"]["dice"] == 1
    assert measures["ET"]["dice"] == 0
    assert math.isnan(measures["NETC"]["sensitivity"])
    assert measures["WT"]["reference_ml"] == pytest.approx(37 * 2 / 1000)


def test_a_true_negative_outside_the_box_counts():
    reference = two_lesions()
    measured = compare(reference, reference).measures["WT"]
    assert measured["specificity"] == measured["accuracy"] == 1
    prediction = reference.copy()
    prediction[0, 0, 0] = 2
    measured = compare(prediction, reference).measures["WT"]
    negatives = reference.size - 37
    assert measured["specificity"] == pytest.approx((negatives - 1) / negatives)


def test_every_metric_has_a_definition():
    measured = compare(two_lesions(), two_lesions()).measures["WT"]
    assert set(measured) == set(conventions.metric_names(case.TOLERANCES_MM))
    definitions = conventions.definitions(case.TOLERANCES_MM)
    assert set(measured) <= set(definitions)
    assert not any("{" in text for text in definitions.values())


def test_every_tolerance_has_its_columns():
    measured = compare(two_lesions(), two_lesions(), tolerances_mm=(0.5, 2.0)).measures
    assert measured["WT"]["nsd_surfel_0.5mm"] == measured["WT"]["nsd_voxel_2mm"] == 1
    assert "nsd_surfel_1mm" not in measured["WT"]


def test_distances_of_a_missed_region_are_infinite_and_of_an_absent_one_undefined():
    reference = two_lesions()
    prediction = np.where(reference == 3, 2, reference)
    measures = compare(prediction, reference, both_empty=1.0).measures
    assert measures["ET"]["hd95_surfel"] == measures["ET"]["assd_monai"] == math.inf
    assert measures["ET"]["nsd_surfel_1mm"] == 0
    assert math.isnan(measures["NETC"]["hd95_surfel"])
    assert measures["NETC"]["dice"] == 1


def test_probabilities_give_lesions_their_confidence():
    reference = two_lesions()
    prediction = reference.copy()
    prediction[6, 8, 10] = 0  # missed, but suspected
    prediction[6, 1, 1] = 3  # invented
    probs = np.where(prediction == 3, 0.75, 0.0).astype(np.float32)
    probs[6, 8, 10] = 0.25
    probs[6, 1, 1] = 0.625
    probs[0, 9, 11] = 0.125  # suspected outside of the box of all labels
    comparison = compare(prediction, reference, probs={"ET": probs})
    rows = [row for row in comparison.lesions if row["region"] == "ET"]
    confidence = {row["centre_vox"]: row["confidence"] for row in rows}
    assert confidence == {(2, 3, 3.5): 0.75, (6, 8, 10): 0.25, (6, 1, 1): 0.625}
    assert sorted(comparison.confidences["ET"].false_positives) == [0.125, 0.625]
    assert all("confidence" not in r for r in comparison.lesions if r["region"] != "ET")


def test_lesion_rows_have_their_place_in_the_whole_volume():
    reference = two_lesions()
    prediction = reference.copy()
    prediction[6, 8, 10] = 0
    rows = [r for r in compare(prediction, reference).lesions if r["region"] == "WT"]
    missed = next(r for r in rows if not r["is_found"])
    assert missed["centre_vox"] == (6.0, 8.0, 10.0)
    assert missed["volume_mm3"] == 2.0


@pytest.mark.parametrize(("both_empty", "value"), [(math.nan, math.nan), (1.0, 1.0)])
def test_two_empty_volumes_follow_the_convention(both_empty, value):
    nothing = np.zeros((4, 5, 6), np.int16)
    comparison = compare(nothing, nothing, both_empty=both_empty)
    np.testing.assert_equal(comparison.measures["WT"]["dice"], value)
    assert comparison.measures["WT"]["specificity"] == 1
    assert comparison.lesions == ()


def test_description_of_three_values_by_hand():
    described = statistics.describe([1.0, 2.0, 6.0, math.nan, math.inf])
    assert described["n"] == 3
    assert described["n_infinite"] == 1
    assert described["mean"] == 3.0
    assert described["median"] == 2.0
    assert described["sd"] == pytest.approx(math.sqrt(7.0))
    half = 4.302652729911275 * math.sqrt(7.0 / 3.0)  # Student's t, 2 degrees of freedom
    assert described["ci95_high"] == pytest.approx(3.0 + half)
    assert described["ci95_low"] == pytest.approx(3.0 - half)


def test_description_of_one_value_has_no_interval():
    described = statistics.describe([0.5])
    assert (described["n"], described["mean"]) == (1, 0.5)
    assert math.isnan(described["sd"]) and math.isnan(described["ci95_low"])


def test_description_of_nothing_is_undefined():
    described = statistics.describe([math.nan])
    assert described["n"] == 0
    assert math.isnan(described["mean"]) and math.isnan(described["median"])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.randoms())
def test_the_order_of_cases_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    first, second = statistics.describe(values), statistics.describe(shuffled)
    assert first == pytest.approx(second)
