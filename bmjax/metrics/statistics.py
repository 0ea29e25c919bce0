"""Mean, spread and confidence interval over cases."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import stdtrit

from bmjax.metrics import agreement, detection


def describe(values: Iterable[float]) -> dict[str, float | int]:
    """Summary of the finite values; what is undefined is NaN.

    Args:
      values: one number per case; NaN and infinity are left out and lower `n`.

    Returns:
      n, mean, sd (n - 1 in the denominator), median, the 95 % confidence interval of
      the mean by Student's t (n >= 2), not clipped to the quantity's range, and how
      many values were infinite.
    """
    every = np.array(list(values), np.float64)
    kept = every[np.isfinite(every)]
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
        "n_infinite": int(np.isinf(every).sum()),
    }


def summarise(
    rows: Sequence[Mapping[str, Any]],
    lesion_rows: Sequence[Mapping[str, Any]],
    *,
    region: str,
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Statistics of every metric of a region over the cases, agreement, and detection.

    Args:
      rows: one mapping per case with columns `METRIC_REGION`.
      lesion_rows: rows of all lesions, see `case.Comparison`.
      region: name of the region.
      metrics: names of the metrics, as far as the rows have them.
    """
    if not rows:
        return {}
    summary: dict[str, Any] = {
        metric: describe(row[f"{metric}_{region}"] for row in rows)
        for metric in metrics
        if f"{metric}_{region}" in rows[0]
    }
    first, second = (
        np.array([row[f"{name}_ml_{region}"] for row in rows], np.float64)
        for name in ("reference", "predicted")
    )
    summary["agreement"] = {
        **asdict(agreement.bland_altman(first, second)),
        "icc": asdict(agreement.icc(np.stack([first, second], axis=1))),
    }
    if f"reference_lesions_{region}" in rows[0]:
        own = [row for row in lesion_rows if row["region"] == region]
        summary["detection"] = detection.sensitivity_by_bin(
            own,
            num_cases=len(rows),
            num_patients=len({row.get("patient", row["case"]) for row in rows}),
        )
    return summary
