"""Splits cases in three, with the sizes of the 2-D study: 413 give 280, 83 and 50.

Those are the sizes of scikit-learn's `train_test_split(all, 0.2)` and then
`train_test_split(rest, 0.15)`, which round the held-out part up.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Literal

import numpy as np

By = Literal["patient", "exam"]
VAL_SHARE, TEST_SHARE = 0.2, 0.15


@dataclass(frozen=True)
class ThreeWay:
    """Ids of the cases of each set, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def sets(self) -> dict[str, tuple[str, ...]]:
        """The ids by the name of the set."""
        return asdict(self)

    def shared_patients(self, patients: Mapping[str, str]) -> tuple[str, ...]:
        """Patients who are in more than one set: their scores are too good."""
        sets = [{patients[case] for case in ids} for ids in self.sets().values()]
        shared = set().union(*(one & other for one, other in combinations(sets, 2)))
        return tuple(sorted(shared))


def sizes(count: int) -> tuple[int, int, int]:
    """How many of `count` are trained on, validated on and tested on.

    Raises:
      ValueError: there are too few for three sets.
    """
    num_val = math.ceil(VAL_SHARE * count)
    num_test = math.ceil(TEST_SHARE * (count - num_val))
    num_train = count - num_val - num_test
    if num_train < 1 or not num_test:
        raise ValueError(
            f"{count} patients or exams cannot be split into training, validation and "
            "test; give at least 3"
        )
    return num_train, num_val, num_test


def split_three_ways(
    patients: Mapping[str, str], *, by: By = "patient", seed: int = 0
) -> ThreeWay:
    """Draw the three sets.

    Args:
      patients: case id -> patient.
      by: `patient` draws patients, with all their exams; `exam` draws exams, as the
        published code does, so that a patient may be on two sides.
      seed: of the draw.

    Raises:
      ValueError: there are too few patients or exams.
    """
    unit_of = patients if by == "patient" else {case: case for case in patients}
    units = sorted(set(unit_of.values()))
    num_train, num_val, _ = sizes(len(units))
    order = [units[i] for i in np.random.default_rng(seed).permutation(len(units))]
    chosen = (
        order[:num_train],
        order[num_train : num_train + num_val],
        order[num_train + num_val :],
    )
    train, val, test = (
        tuple(sorted(case for case in patients if unit_of[case] in set(part)))
        for part in chosen
    )
    return ThreeWay(train, val, test)
