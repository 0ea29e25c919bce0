"""Sensitivity for small lesions at equal false positives."""

import math

import numpy as np
import pytest

from bmjax.study.sampling import Found, summary


def found(small, false_positives, others=(0.99,)):
    arrays = [np.array(x, float) for x in (small, others, false_positives)]
    return Found(
        small=arrays[0], others=arrays[1], false_positives=arrays[2], num_cases=2
    )


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.0, 1 / 4),  # above every false candidate
        (0.5, 2 / 4),  # one in two cases: all above the second, of .6
        (1.0, 3 / 4),
        (8.0, 3 / 4),  # the last one was never touched
    ],
)
def test_the_threshold_has_the_rate_of_false_positives(rate, expected):
    run = found(small=(0.9, 0.7, 0.3, 0.0), false_positives=(0.8, 0.6))
    assert run.sensitivity(rate) == pytest.approx(expected)


def test_a_network_that_is_only_surer_finds_no_more():
    one = found(small=(0.5, 0.2), false_positives=(0.4, 0.1))
    surer = found(small=(0.95, 0.7), false_positives=(0.9, 0.6))
    for rate in (0.0, 0.5, 1.0, 2.0):
        assert one.sensitivity(rate) == surer.sensitivity(rate)


def test_larger_lesions_do_not_count():
    one = found(small=(0.5,), false_positives=(), others=(0.9, 0.8))
    other = found(small=(0.5,), false_positives=(), others=(0.0,))
    assert one.sensitivity(1.0) == other.sensitivity(1.0) == 1.0


def test_the_summary_has_mean_and_spread_of_the_seeds():
    runs = [
        found(small=(0.9, 0.8), false_positives=(0.5,)),
        found(small=(0.9, 0.1), false_positives=(0.5, 0.4)),
    ]
    table = summary({"lesion": runs, "class": runs[:1]}, rates=(0.25,))
    assert "2 lesions of TC below 100 mm3" in str(table.title)
    _, lesion, one = (list(column.cells)[0] for column in table.columns)
    assert lesion == f"0.750 (sd {math.sqrt(0.125):.3f}; 1.000 0.500)"
    assert one.startswith("1.000 (sd nan")
