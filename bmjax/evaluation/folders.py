"""Compares a folder of predictions with a folder of references, case by case.

A case that cannot be compared (no prediction, unreadable, other grid, unknown labels)
is a failure with its reason; the others are evaluated all the same.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bmjax.data.cases import Case
from bmjax.evaluation.nnunet import nnunet_summary
from bmjax.evaluation.pairing import (
    Expected,
    asked_for,
    case_names,
    expected_cases,
    predicted_files,
)
from bmjax.evaluation.result import Evaluation
from bmjax.evaluation.scoring import Scorer, Scores
from bmjax.locks import held
from bmjax.metrics import conventions, detection, statistics
from bmjax.metrics.case import TOLERANCES_MM
from bmjax.planning.labels import BRATS_METS, LabelScheme

BothEmpty = Literal["exclude", "one"]
Progress = Callable[[int, int, str], None]
_BOTH_EMPTY = {
    "exclude": "Dice, IoU, sensitivity, precision are undefined (blank, left out of n) "
    "where prediction and reference are both empty",
    "one": "Dice, IoU, sensitivity, precision are 1 where prediction and reference are "
    "both empty",
}

# maps that `bmjax predict` and `bmjax explain` write beside the label file of a case
_MAPS = ("_prob_", "_entropy_", "_disagreement_", "_explain_")


def evaluate(
    predictions: str | Path,
    reference: str | Path | Sequence[Case],
    *,
    out: str | Path | None = None,
    scheme: LabelScheme = BRATS_METS,
    cases: Sequence[str] | None = None,
    by: Sequence[str] = (),
    both_empty: BothEmpty = "exclude",
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate label files, or probabilities, against reference label files.

    Two readers are compared in the same way, one of them as the reference: Dice and
    surface distances do not depend on which; the summary holds bias, limits of
    agreement and ICC of the volumes.

    Args:
      predictions: folder of CASE.nii.gz files, of probabilities (see `prediction`), or
        a second reader's raw folder or manifest of cases with labels.
      reference: raw folder of cases or CSV manifest as `bmjax check` reads it, a
        folder of CASE.nii.gz label files, or cases already found.
      out: folder for cases.csv, lesions.csv, froc.csv (with probabilities),
        summary.json, summary_nnunet.json and conventions.json.
      scheme: labels and regions; both are evaluated.
      cases: case ids that must be there. By default those that predict.json in the
        predictions folder lists, else every reference case.
      by: columns of the manifest (or patient, visit) to summarise by as well.
      both_empty: what Dice, IoU, sensitivity and precision are where prediction and
        reference are both empty: undefined and left out of the mean, or one.
      tolerances_mm: of the surface Dice [mm].
      num_workers: cases compared at the same time; None: one for each processor, at
        most four.
      progress: called with cases done, cases in all, and the case just done.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: there is no case to evaluate, or no such column.
    """
    predictions = Path(predictions)
    if isinstance(reference, str):
        reference = Path(reference)
    if not predictions.exists():
        raise FileNotFoundError(
            f"{predictions}: no such folder of predictions; run `bmjax predict` first"
        )
    wanted = list(cases) if cases is not None else asked_for(predictions)
    expected, failures = expected_cases(reference, wanted)
    if not expected and not failures:
        raise ValueError(f"{reference}: no reference label file found there")
    _require_columns(by, expected)
    paths = predicted_files(predictions, [item.case for item in expected])
    scorer = Scorer(
        scheme=scheme,
        both_empty=1.0 if both_empty == "one" else math.nan,
        tolerances_mm=tuple(tolerances_mm),
    )
    scored: list[Scores] = []
    outcomes = _run(scorer, expected, paths, num_workers=num_workers)
    for done, (item, outcome) in enumerate(outcomes, start=1):
        if isinstance(outcome, Scores):
            scored.append(outcome)
        else:
            failures.append(
                {
                    "case": item.case,
                    "file": str(paths[item.case]),
                    "message": str(outcome),
                }
            )
        if progress is not None:
            progress(done, len(expected), item.case)
    failures.sort(key=lambda failure: failure["case"])
    known = {item.case for item in expected} | {f["case"] for f in failures}
    others = case_names(predictions) if predictions.is_dir() else set()
    maps = {
        name
        for name in others
        for kind in _MAPS
        if kind in name and name.partition(kind)[0] in known
    }
    metrics = conventions.metric_names(tolerances_mm)
    rows = tuple(s.row for s in scored)
    files = {s.row["case"]: s.files for s in scored}
    evaluation = Evaluation(
        regions=tuple(scorer.regions),
        rows=rows,
        lesions=tuple(row for s in scored for row in s.lesions),
        froc=tuple(_froc_rows(scored, scorer.regions)),
        failures=tuple(failures),
        summary={
            "num_expected": len(scored) + len(failures),
            "num_evaluated": len(scored),
            "failed": failures,
            "empty_predictions": [r["case"] for r in rows if r["is_prediction_empty"]],
            "not_evaluated": sorted(others - known - maps),
            "regions": _summary(scored, scorer.regions, metrics),
            "groups": {
                column: {
                    value: {
                        "num_evaluated": len(members),
                        "regions": _summary(members, scorer.regions, metrics),
                    }
                    for value, members in _grouped(scored, column).items()
                }
                for column in by
            },
        },
        nnunet=nnunet_summary(rows, files, scheme=scheme) if rows else {},
        conventions={
            **conventions.definitions(tolerances_mm),
            "both_empty": _BOTH_EMPTY[both_empty],
            "regions": {name: list(values) for name, values in scorer.regions.items()},
        },
        files=files,
    )
    if out is not None:
        with held(
            Path(out),
            doing="writing scores",
            otherwise="choose another --out",
            name=".scores.lock",  # predicting may go on in the same folder
        ):
            evaluation.write(Path(out))
    return evaluation


def _run(
    scorer: Scorer,
    expected: Sequence[Expected],
    paths: Mapping[str, Path],
    *,
    num_workers: int | None,
) -> Iterator[tuple[Expected, Scores | OSError | ValueError]]:
    """Score the cases side by side; yields each with its scores or its error."""

    def attempt(item: Expected) -> tuple[Expected, Scores | OSError | ValueError]:
        try:
            return item, scorer((item, paths[item.case]))
        except (OSError, ValueError) as error:
            return item, error

    with ThreadPoolExecutor(num_workers or min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(attempt, expected)


def _require_columns(by: Sequence[str], expected: Sequence[Expected]) -> None:
    there = {name for item in expected for name in item.columns}
    absent = [name for name in by if name not in there]
    if absent:
        raise ValueError(
            f"no column {', '.join(absent)} to summarise by; the reference has "
            f"{', '.join(sorted(there)) or 'none: give a manifest as the reference'}"
        )


def _grouped(scored: Sequence[Scores], column: str) -> dict[str, list[Scores]]:
    """Cases by the value of a column, in the order of the values."""
    values = sorted({str(s.row.get(column, "")) for s in scored})
    return {
        value or "(blank)": [s for s in scored if str(s.row.get(column, "")) == value]
        for value in values
    }


def _summary(
    scored: Sequence[Scores],
    regions: Mapping[str, tuple[int, ...]],
    metrics: Sequence[str],
) -> dict[str, dict[str, Any]]:
    rows = [s.row for s in scored]
    lesions = [row for s in scored for row in s.lesions]
    summary = {}
    for name in regions:
        summary[name] = statistics.summarise(
            rows, lesions, region=name, metrics=metrics
        )
        found = _froc(scored, name)
        if found is not None:
            curve, num_cases = found
            summary[name]["froc"] = {
                "num_cases": num_cases,
                "score": curve.score(),
                "area": curve.area(),
                "sensitivity_at": {
                    f"{rate:g}": float(curve.at(rate)) for rate in detection.FROC_RATES
                },
            }
    return summary


def _froc(scored: Sequence[Scores], region: str) -> tuple[detection.Froc, int] | None:
    """The curve of a region over the cases with probabilities, and their number."""
    known = [s.confidences[region] for s in scored if region in s.confidences]
    lesions = np.concatenate([np.zeros(0), *(c.lesions for c in known)])
    false = np.concatenate([np.zeros(0), *(c.false_positives for c in known)])
    if not lesions.size:
        return None
    return detection.froc(lesions, false, num_cases=len(known)), len(known)


def _froc_rows(
    scored: Sequence[Scores], regions: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, Any]]:
    """The operating points of every curve."""
    for name in regions:
        found = _froc(scored, name)
        if found is None:
            continue
        curve, _ = found
        for threshold, sensitivity, rate in zip(
            curve.threshold,
            curve.sensitivity,
            curve.false_positives_per_case,
            strict=True,
        ):
            yield {
                "region": name,
                "threshold": float(threshold),
                "sensitivity": float(sensitivity),
                "false_positives_per_case": float(rate),
            }
