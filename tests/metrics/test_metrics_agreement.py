"""Bland-Altman and intraclass correlation against published examples."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bmjax.metrics import agreement

# Shrout and Fleiss (1979), table 2: six targets, four judges
SHROUT_FLEISS = np.array(
    [
        [9, 2, 5, 8],
        [6, 1, 3, 2],
        [8, 4, 6, 8],
        [7, 1, 2, 6],
        [10, 5, 6, 9],
        [6, 2, 4, 7],
    ],
    np.float64,
)


def test_icc_of_the_published_example():
    found = agreement.icc(SHROUT_FLEISS)
    assert found.value == pytest.approx(0.29, abs=0.005)  # ICC(2,1) of the paper
    assert found.ci95_low == pytest.approx(0.019, abs=0.001)  # as R's psych::ICC
    assert found.ci95_high == pytest.approx(0.761, abs=0.001)


def test_icc_of_equal_readers_is_one():
    volumes = np.array([1.0, 4.0, 2.0])
    found = agreement.icc(np.stack([volumes, volumes], axis=1))
    assert (found.value, found.ci95_low, found.ci95_high) == (1.0, 1.0, 1.0)


def test_a_constant_offset_lowers_absolute_agreement():
    volumes = np.array([1.0, 4.0, 2.0])
    assert agreement.icc(np.stack([volumes, volumes + 1], axis=1)).value < 0.9


@pytest.mark.parametrize("shape", [(1, 2), (0, 2), (3, 1)])
def test_icc_of_too_few_measurements_is_undefined(shape):
    assert math.isnan(agreement.icc(np.ones(shape)).value)


def test_icc_without_any_variance_is_undefined():
    assert math.isnan(agreement.icc(np.ones((4, 2))).value)


def test_icc_of_equal_cases_has_no_interval():
    found = agreement.icc(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]))
    assert found.value == 0
    assert math.isnan(found.ci95_low)


def test_bland_altman_by_hand():
    found = agreement.bland_altman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0]))
    assert (found.n, found.bias, found.sd) == (3, 1.0, 1.0)
    assert (found.lower, found.upper) == pytest.approx((1 - 1.96, 1 + 1.96))
    half = 4.302652729911275 / math.sqrt(3)  # Student's t, 2 degrees of freedom
    assert found.bias_ci95_high == pytest.approx(1 + half)
    assert found.bias_ci95_low == pytest.approx(1 - half)


def test_bland_altman_of_one_case_has_no_spread():
    found = agreement.bland_altman(np.array([1.0]), np.array([2.0]))
    assert found.bias == 1.0
    assert math.isnan(found.sd) and math.isnan(found.bias_ci95_low)


numbers = st.floats(0, 100).map(lambda x: round(x, 3))


# few degrees of freedom: a quantile below 1, and one too large to be multiplied
@example(np.array([[0.0, 2.0], [2.0, 1.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]]))
@example(np.array([[0.0, 22], [31.0, 0.0], [24.0, 0.0], [19.0, 0.0], [24.0, 0.0]]))
@settings(deadline=None, max_examples=60)
@given(arrays(np.float64, (5, 2), elements=numbers))
def test_icc_lies_within_its_interval_and_below_one(ratings):
    found = agreement.icc(ratings)
    if math.isnan(found.value):
        return
    assert found.value <= 1 + 1e-9
    if math.isfinite(found.ci95_low):
        assert found.ci95_low <= found.value + 1e-6
        assert found.value <= found.ci95_high + 1e-6


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, (5, 2), elements=numbers))
def test_swapping_the_readers_turns_the_bias_only(ratings):
    first, second = ratings.T
    forth = agreement.bland_altman(first, second)
    back = agreement.bland_altman(second, first)
    assert forth.bias == pytest.approx(-back.bias)
    assert forth.upper == pytest.approx(-back.lower)
    assert agreement.icc(ratings).value == pytest.approx(
        agreement.icc(ratings[:, ::-1]).value, nan_ok=True
    )
