"""Wilson's interval against its published values and its own symmetry."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from bmjax.metrics.proportion import wilson


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_scipy(counts):
    found, num = counts
    expected = binomtest(found, num).proportion_ci(method="wilson")
    assert wilson(found, num) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_interval_of_nothing_is_undefined():
    assert all(math.isnan(end) for end in wilson(0, 0))


@pytest.mark.parametrize("counts", [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(counts):
    with pytest.raises(ValueError, match="expected 0 to 3"):
        wilson(*counts)
