"""The summary.json of nnU-Net's evaluation, from our rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bmjax.planning.labels import LabelScheme

METRICS = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")


def nnunet_summary(
    rows: Sequence[Mapping[str, Any]],
    files: Mapping[str, Mapping[str, Any]],
    *,
    scheme: LabelScheme,
) -> dict[str, Any]:
    """What `nnUNetv2_evaluate_folder` writes of the same cases and regions.

    Dice and IoU are NaN where both masks are empty, whatever the convention of the
    other tables, and then in no mean.

    Args:
      rows: of cases.csv.
      files: prediction and reference of each case.
      scheme: its regions are the keys, by their label values.
    """
    keys = {
        name: str(values[0] if len(values) == 1 else values)
        for name, values in scheme.regions
    }
    cases = [
        {
            "metrics": {key: _metrics(row, name) for name, key in keys.items()},
            "prediction_file": files[row["case"]]["prediction"],
            "reference_file": files[row["case"]]["reference"],
        }
        for row in rows
    ]
    means = {
        key: {
            metric: _nanmean([case["metrics"][key][metric] for case in cases])
            for metric in METRICS
        }
        for key in keys.values()
    }
    foreground = {
        metric: float(np.mean([of[metric] for of in means.values()]))
        for metric in METRICS
    }
    return {"foreground_mean": foreground, "mean": means, "metric_per_case": cases}


def _metrics(row: Mapping[str, Any], name: str) -> dict[str, float | int]:
    tp, fp, fn, tn = (row[f"{kind}_{name}"] for kind in ("tp", "fp", "fn", "tn"))
    union = tp + fp + fn
    return {
        "Dice": 2 * tp / (tp + union) if union else float("nan"),
        "FN": fn,
        "FP": fp,
        "IoU": tp / union if union else float("nan"),
        "TN": tn,
        "TP": tp,
        "n_pred": fp + tp,
        "n_ref": fn + tp,
    }


def _nanmean(values: Sequence[float]) -> float:
    kept = [value for value in values if value == value]
    return float(np.mean(kept)) if kept else float("nan")
