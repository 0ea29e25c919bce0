"""How many lesions are found at what price, by size and by confidence.

A candidate is a component of the probability map above a low threshold; its confidence
is its highest probability. The free-response curve (FROC) sweeps the confidence that a
candidate needs to count: sensitivity over all lesions against false positives per case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from bmjax.metrics.boxes import bounding_box
from bmjax.metrics.lesions import SIZE_BIN_NAMES, VOLUME_BIN_NAMES, components

CANDIDATE_THRESHOLD = 0.1
FROC_RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class Confidences:
    """Candidates of one case against its lesions.

    Attributes:
      lesions: for each reference lesion the highest confidence of a candidate that
        shares a voxel with it, 0 where there is none.
      false_positives: confidence of each candidate that shares no voxel with a lesion.
    """

    lesions: Float[np.ndarray, " l"]
    false_positives: Float[np.ndarray, " f"]


@dataclass(frozen=True, kw_only=True)
class Froc:
    """A free-response curve, from the highest confidence down.

    Attributes:
      threshold: least confidence of a candidate that counts; the first is infinite.
      sensitivity: share of all lesions found by the candidates that count.
      false_positives_per_case: of the candidates that count.
    """

    threshold: Float[np.ndarray, " t"]
    sensitivity: Float[np.ndarray, " t"]
    false_positives_per_case: Float[np.ndarray, " t"]

    def at(self, rate: float | Sequence[float]) -> Any:
        """Sensitivity at a rate of false positives per case.

        Linear between operating points; beyond the last one no more is found.
        """
        return np.interp(rate, self.false_positives_per_case, self.sensitivity)

    def score(self, rates: Sequence[float] = FROC_RATES) -> float:
        """Mean sensitivity at given rates; by default those of CAMELYON16 and MONAI."""
        return float(np.mean(self.at(rates)))

    def area(self, max_rate: float = FROC_RATES[-1]) -> float:
        """Area under the curve up to a rate, over that rate: 1 is perfect."""
        within = self.false_positives_per_case < max_rate
        rates = np.append(self.false_positives_per_case[within], max_rate)
        heights = np.append(self.sensitivity[within], self.at(max_rate))
        return float(np.trapezoid(heights, rates) / max_rate)


def confidences(
    probs: Float[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    threshold: float = CANDIDATE_THRESHOLD,
) -> Confidences:
    """Find the candidates of a probability map and the lesions that they touch.

    Args:
      probs: probability of the region.
      reference: reference mask on the same grid.
      threshold: a candidate's voxels have at least this probability.
    """
    is_candidate = probs >= threshold
    box = bounding_box(is_candidate | reference)
    probs, candidates = probs[box], components(is_candidate[box])
    real = components(reference[box])
    numbers = np.arange(1, int(candidates.max(initial=0)) + 1)
    of_candidate = np.append(0.0, ndimage.maximum(probs, candidates, numbers))
    is_shared = (candidates > 0) & (real > 0)
    touched = np.zeros(int(real.max(initial=0)) + 1)
    np.maximum.at(touched, real[is_shared], of_candidate[candidates[is_shared]])
    is_false = ~np.isin(numbers, candidates[is_shared])
    return Confidences(lesions=touched[1:], false_positives=of_candidate[1:][is_false])


def froc(
    lesions: Float[np.ndarray, " l"],
    false_positives: Float[np.ndarray, " f"],
    *,
    num_cases: int,
) -> Froc:
    """The free-response curve of a set of cases.

    Args:
      lesions: confidence of each reference lesion of all cases, 0 where not found.
      false_positives: confidence of each false candidate of all cases.
      num_cases: cases, those without any lesion or candidate included.

    Raises:
      ValueError: there is no lesion to be found, or no case.
    """
    if not len(lesions) or num_cases < 1:
        raise ValueError(
            f"a FROC of {len(lesions)} lesions in {num_cases} cases is undefined; "
            "expected at least one of each"
        )
    every = np.unique(np.concatenate([lesions, false_positives]))[::-1]
    thresholds = np.append(np.inf, every[every > 0])
    return Froc(
        threshold=thresholds,
        sensitivity=_at_least(lesions, thresholds) / len(lesions),
        false_positives_per_case=_at_least(false_positives, thresholds) / num_cases,
    )


def sensitivity_by_bin(
    lesion_rows: Sequence[Mapping[str, Any]], *, num_cases: int, num_patients: int
) -> dict[str, Any]:
    """Share of lesions found, in all and by size, and the rate of false positives.

    Args:
      lesion_rows: rows of one region, see `case.Comparison.lesions`.
      num_cases: cases, those without lesions included.
      num_patients: patients, of whom each may have several cases.
    """
    real = [row for row in lesion_rows if row["kind"] == "reference"]
    num_false = len(lesion_rows) - len(real)
    return {
        "false_positives_per_case": num_false / num_cases,
        "false_positives_per_patient": num_false / num_patients,
        "all": _found(real),
        "by_size": {
            name: _found([row for row in real if row["size_bin"] == name])
            for name in SIZE_BIN_NAMES
        },
        "by_volume": {
            name: _found([row for row in real if row["volume_bin"] == name])
            for name in VOLUME_BIN_NAMES
        },
    }


def _found(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    num_found = sum(bool(row["is_found"]) for row in members)
    num = len(members)
    return {
        "num_lesions": num,
        "num_found": num_found,
        "sensitivity": num_found / num if num else float("nan"),
    }


def _at_least(
    values: Float[np.ndarray, " v"], thresholds: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " t"]:
    """How many values reach each threshold."""
    below = np.searchsorted(np.sort(values), thresholds, side="left")
    return (len(values) - below).astype(np.float64)
