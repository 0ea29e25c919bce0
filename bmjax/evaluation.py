"""Compares a folder of predictions with a folder of references, case by case.

A case that cannot be compared (no prediction, unreadable, other grid, unknown labels)
is a failure with its reason; the others are evaluated all the same.
"""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bmjax.data import grids, nifti, streams
from bmjax.data.cases import CHANNELS, Case, sort_cases, survey
from bmjax.data.reading import Reading
from bmjax.data.regrid import onto_grid
from bmjax.data.soundness import count_labels, label_fault
from bmjax.metrics import case, statistics
from bmjax.planning.labels import BRATS_METS, LabelScheme

BothEmpty = Literal["exclude", "one"]
SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out, as plain rows.

    Attributes:
      regions: names of the regions and labels, in the order of the tables.
      rows: one dict per evaluated case: case, patient, visit, free columns of the
        manifest, then `METRIC_REGION` columns; NaN where a metric is undefined.
      lesions: one dict per reference lesion or false positive.
      failures: one dict per case that could not be evaluated: case, file, message.
      summary: what summary.json holds.
      conventions: the definition of each column.
      files: prediction, reference and images of each evaluated case.
    """

    regions: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    lesions: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, str], ...]
    summary: dict[str, Any]
    conventions: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def ok(self) -> bool:
        """Whether every expected case was evaluated, and there was one."""
        return bool(self.rows) and not self.failures

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; undefined numbers are None."""
        return _json_safe(
            {
                "regions": list(self.regions),
                "cases": list(self.rows),
                "lesions": list(self.lesions),
                "failures": list(self.failures),
                "summary": self.summary,
                "conventions": self.conventions,
                "files": self.files,
            }
        )


@dataclass(frozen=True)
class _Expected:
    case: str
    labels: Path
    columns: dict[str, str] = field(default_factory=dict)
    images: dict[str, Path] = field(default_factory=dict)
    reading: Reading = Reading()


@dataclass(frozen=True, kw_only=True)
class _Compared:
    row: dict[str, Any]
    lesions: list[dict[str, Any]]
    files: dict[str, Any]


def evaluate(
    predictions: str | Path,
    reference: str | Path | Sequence[Case],
    *,
    out: str | Path | None = None,
    scheme: LabelScheme = BRATS_METS,
    cases: Sequence[str] | None = None,
    both_empty: BothEmpty = "exclude",
    num_workers: int | None = None,
) -> Evaluation:
    """Evaluate label files against reference label files.

    Args:
      predictions: folder of CASE.nii.gz files.
      reference: raw folder of cases or CSV manifest as `bmjax check` reads it, a
        folder of CASE.nii.gz label files, or cases already found.
      out: folder for cases.csv, lesions.csv, summary.json and conventions.json.
      scheme: labels and regions; both are evaluated.
      cases: case ids that must be there. By default those that predict.json in the
        predictions folder lists, else every reference case.
      both_empty: what Dice, IoU, sensitivity and precision are where prediction and
        reference are both empty: undefined and left out of the mean, or one.
      num_workers: cases compared at the same time; None takes up to four.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: there is no case to evaluate.
    """
    predictions = Path(predictions)
    if isinstance(reference, str):
        reference = Path(reference)
    if not predictions.is_dir():
        raise FileNotFoundError(
            f"{predictions}: no such folder of predictions; run `bmjax predict` first"
        )
    wanted = list(cases) if cases is not None else _asked_for(predictions)
    expected, failures = _expected_cases(reference, wanted)
    if not expected and not failures:
        raise ValueError(f"{reference}: no reference label file found there")
    regions = _regions(scheme)

    def compare(item: _Expected) -> _Compared | dict[str, str]:
        try:
            return _compare(item, predictions, scheme=scheme, both_empty=both_empty)
        except (OSError, ValueError) as error:
            path = predictions / f"{item.case}.nii.gz"
            return {"case": item.case, "file": str(path), "message": str(error)}

    num_workers = num_workers or min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(max_workers=num_workers) as pool:
        outcomes = list(pool.map(compare, expected))
    compared = [o for o in outcomes if isinstance(o, _Compared)]
    failures += [o for o in outcomes if not isinstance(o, _Compared)]
    known = {item.case for item in expected} | {f["case"] for f in failures}
    rows = tuple(c.row for c in compared)
    lesion_rows = tuple(row for c in compared for row in c.lesions)
    evaluation = Evaluation(
        regions=tuple(regions),
        rows=rows,
        lesions=lesion_rows,
        failures=tuple(sorted(failures, key=lambda f: f["case"])),
        summary={
            "num_expected": len(rows) + len(failures),
            "num_evaluated": len(rows),
            "failed": sorted(failures, key=lambda f: f["case"]),
            "empty_predictions": [r["case"] for r in rows if r["is_prediction_empty"]],
            "not_evaluated": sorted(_case_names(predictions) - known),
            "regions": {
                name: statistics.summarise(rows, lesion_rows, region=name)
                for name in regions
            },
        },
        conventions={
            **case.CONVENTIONS,
            "both_empty": {
                "exclude": "Dice, IoU, sensitivity, precision are undefined (blank, "
                "left out of n) where prediction and reference are both empty",
                "one": "Dice, IoU, sensitivity, precision are 1 where prediction and "
                "reference are both empty",
            }[both_empty],
            "regions": {name: list(values) for name, values in regions.items()},
        },
        files={c.row["case"]: c.files for c in compared},
    )
    if out is not None:
        _write(evaluation, Path(out))
    return evaluation


def _write(evaluation: Evaluation, out: Path) -> None:
    """Write all tables; each file appears complete."""
    _write_csv(out / "cases.csv", evaluation.rows)
    _write_csv(out / "lesions.csv", evaluation.lesions)
    for name in ("summary", "conventions", "files"):
        text = json.dumps(_json_safe(getattr(evaluation, name)), indent=1)
        streams.write_pieces(out / f"{name}.json", [text.encode() + b"\n"])


def _compare(
    item: _Expected, predictions: Path, *, scheme: LabelScheme, both_empty: BothEmpty
) -> _Compared:
    path = _file_of(predictions, item.case)
    if not path.is_file():
        raise FileNotFoundError(
            f"{item.case}: no prediction {path.name} in {path.parent}; "
            "predict this case, or name the cases to evaluate"
        )
    prediction = nifti.read_labels(path)
    reference = _as_taken(nifti.read_labels(item.labels), item.reading, prediction)
    _require_same_grid(item.case, prediction, reference)
    regions = _regions(scheme)
    for scan in (prediction, reference):
        _require_known(item.case, scan, known={v for r in regions.values() for v in r})
    comparison = case.compare(
        prediction.array,
        reference.array,
        regions=regions,
        lesion_regions=tuple(dict(scheme.regions)),
        spacing_mm=reference.spacing_mm,
        both_empty=1.0 if both_empty == "one" else math.nan,
    )
    row: dict[str, Any] = {
        "case": item.case,
        **item.columns,
        "is_prediction_empty": not prediction.array.any(),
    }
    for metric in case.METRICS:
        for name, measured in comparison.measures.items():
            if metric in measured:
                row[f"{metric}_{name}"] = measured[metric]
    lesion_rows = []
    for lesion in comparison.lesions:
        z, y, x = lesion.pop("centre_vox")
        centre_mm = reference.affine @ [x, y, z, 1.0]
        place = {f"centre_{a}_mm": float(centre_mm[i]) for i, a in enumerate("xyz")}
        lesion_rows.append({"case": item.case, **lesion, **place})
    files = {
        "prediction": str(path.resolve()),
        "reference": str(item.labels.resolve()),
        "images": {c: str(image.resolve()) for c, image in item.images.items()},
    }
    return _Compared(row=row, lesions=lesion_rows, files=files)


def _as_taken(
    reference: nifti.Scan, reading: Reading, prediction: nifti.Scan
) -> nifti.Scan:
    """Reference labels as the case's reading takes them."""
    reference = replace(reference, array=reading.map_labels(reference.array))
    if reading.resample_to is None:
        return reference
    grid = (prediction.array.shape, prediction.affine)
    return onto_grid(reference, grid, is_labels=True)[0]


def _require_same_grid(
    case_id: str, prediction: nifti.Scan, reference: nifti.Scan
) -> None:
    size, expected = prediction.array.shape, reference.array.shape
    if size != expected:
        raise ValueError(
            f"{case_id}: prediction has {size} voxels (z, y, x), reference {expected}; "
            "predict on the grid of the reference"
        )
    z, y, x = expected
    shift_vox = grids.max_shift_vox(reference.affine, prediction.affine, (z, y, x))
    if shift_vox > grids.MAX_SHIFT_VOX:
        raise ValueError(
            f"{case_id}: the affines of prediction and reference move a corner of the "
            f"volume {shift_vox:.2f} voxels apart (at most {grids.MAX_SHIFT_VOX}); "
            "predict on the grid of the reference"
        )


def _require_known(case_id: str, scan: nifti.Scan, *, known: set[int]) -> None:
    fault = label_fault(count_labels(scan.array), sorted(known))
    if fault:
        raise ValueError(f"{case_id}: {scan.path.name}: {fault}")


def _regions(scheme: LabelScheme) -> dict[str, tuple[int, ...]]:
    """Regions of the scheme, then its labels; a label that is a region comes once."""
    regions = dict(scheme.regions)
    return regions | {n: (v,) for n, v in scheme.labels if n not in regions}


def _expected_cases(
    reference: Path | Sequence[Case], wanted: Sequence[str] | None
) -> tuple[list[_Expected], list[dict[str, str]]]:
    """The cases to compare, and those that have no usable reference."""
    reasons: dict[str, str] = {}
    if isinstance(reference, Path):
        if not reference.exists():
            raise FileNotFoundError(
                f"{reference}: no such folder or manifest of references"
            )
        known, problems, _ = sort_cases(reference, channels=(), ids=wanted)
        names = _case_names(reference) if reference.is_dir() else set()
        if names and not any(item.labels for item in known):
            found = {n: _Expected(n, _file_of(reference, n)) for n in names}
        else:
            reasons = {p.case: str(p) for p in problems if p.case}
            images = survey(reference).found
            found = {
                item.id: _expected(
                    replace(
                        item,
                        images={
                            channel: images[item.id].files[channel][0]
                            for channel in CHANNELS
                            if channel in images[item.id].files
                        },
                    )
                )
                for item in known
                if item.labels is not None
            }
    else:
        found = {item.id: _expected(item) for item in reference if item.labels}
        wanted = [item.id for item in reference] if wanted is None else wanted
    ids = sorted({*found, *reasons} if wanted is None else set(wanted))
    failures = [
        {
            "case": name,
            "file": str(reference) if isinstance(reference, Path) else "",
            "message": reasons.get(
                name, f"{name}: no reference labels; add them or leave the case out"
            ),
        }
        for name in ids
        if name not in found
    ]
    return [found[name] for name in ids if name in found], failures


def _expected(item: Case) -> _Expected:
    assert item.labels is not None
    columns = {"patient": item.patient, "visit": item.visit, **item.columns}
    return _Expected(item.id, item.labels, columns, dict(item.images), item.reading)


def _asked_for(predictions: Path) -> list[str] | None:
    """Case ids that a prediction run was asked for, None if it left no record."""
    path = predictions / "predict.json"
    if not path.is_file():
        return None
    try:
        return [str(entry["case"]) for entry in json.loads(path.read_text())["cases"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not the record of a prediction run ({error!r}); predict again, "
            "or name the cases to evaluate"
        ) from error


def _case_names(folder: Path) -> set[str]:
    return {
        path.name.removesuffix(".gz").removesuffix(".nii")
        for path in folder.iterdir()
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    }


def _file_of(folder: Path, case_id: str) -> Path:
    """The label file of a case; the usual name where there is none."""
    present = [p for s in SUFFIXES if (p := folder / f"{case_id}{s}").is_file()]
    if len(present) > 1:
        raise ValueError(f"{case_id}: both {present[0]} and {present[1]}; remove one")
    return present[0] if present else folder / f"{case_id}.nii.gz"


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: _cell(value) for name, value in row.items()})
    streams.write_pieces(path, [text.getvalue().encode()])


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return value


def _json_safe(value: Any) -> Any:
    """The value with tuples as lists and undefined numbers as None."""
    if isinstance(value, dict):
        return {str(name): _json_safe(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
