"""Mean, spread and confidence interval over cases, and the share of lesions found."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from bmjax.metrics.case import METRICS
from bmjax.metrics.lesions import SIZE_BIN_NAMES


def describe(values: Iterable[float]) -> dict[str, float | int]:
    """Summary of the finite values; what is undefined is NaN.

    Args:
      values: one number per case; NaN and infinity are left out and lower `n`.

    Returns:
      n, mean, sd (n - 1 in the denominator), median, and the 95 % confidence interval
      of the mean by Student's t (n >= 2), not clipped to the quantity's range.
    """
    kept = np.array([v for v in values if math.isfinite(v)], np.float64)
    n = len(kept)
    mean = float(kept.mean()) if n else math.nan
    sd = float(kept.std(ddof=1)) if n > 1 else math.nan
    half = float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n) if n > 1 else math.nan
    return {
        "n": n,
        "mean": mean,
        "sd": sd,
        "median": float(np.median(kept)) if n else math.nan,
        "ci95_low": mean - half,
        "ci95_high": mean + half,
    }


def summarise(
    rows: Sequence[Mapping[str, Any]],
    lesion_rows: Sequence[Mapping[str, Any]],
    *,
    region: str,
) -> dict[str, Any]:
    """Statistics of every metric of a region over the cases, and lesion detection.

    Args:
      rows: one mapping per case with columns `METRIC_REGION`.
      lesion_rows: rows of all lesions, see `case.Comparison`.
      region: name of the region.
    """
    summary: dict[str, Any] = {
        metric: describe(row[f"{metric}_{region}"] for row in rows)
        for metric in METRICS
        if rows and f"{metric}_{region}" in rows[0]
    }
    own = [row for row in lesion_rows if row["region"] == region]
    real = [row for row in own if row["kind"] == "reference"]
    if "reference_lesions" in summary:
        bins = {
            name: [row for row in real if row["size_bin"] == name]
            for name in SIZE_BIN_NAMES
        }
        summary["detection"] = {
            "false_positives_per_case": (len(own) - len(real)) / len(rows),
            "all": _detected(real),
            "by_size": {name: _detected(members) for name, members in bins.items()},
        }
    return summary


def _detected(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    num_found = sum(bool(row["is_found"]) for row in members)
    num = len(members)
    return {
        "num_lesions": num,
        "num_found": num_found,
        "sensitivity": num_found / num if num else math.nan,
    }
