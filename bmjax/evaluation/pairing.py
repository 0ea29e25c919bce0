"""Finds the reference of each case, and the prediction that belongs to it.

Predictions are a folder of `CASE.nii.gz` label files; of probabilities, see
`probabilities`; or, like references, a raw folder or manifest whose cases have labels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bmjax.data.cases import CHANNELS, Case, sort_cases, survey
from bmjax.data.reading import Reading

SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Expected:
    """A case that has a reference.

    Attributes:
      case: its id.
      labels: its reference labels.
      columns: patient, visit and free columns of the manifest.
      images: image of each channel, as far as known.
      reading: how the files are to be taken.
    """

    case: str
    labels: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    reading: Reading = Reading()


def expected_cases(
    reference: Path | Sequence[Case], wanted: Sequence[str] | None
) -> tuple[list[Expected], list[dict[str, str]]]:
    """The cases to compare, and those that have no usable reference.

    Args:
      reference: folder, manifest or cases, see `evaluate`.
      wanted: ids of the cases that must be there, None for all.

    Raises:
      FileNotFoundError: there is no such folder or manifest.
    """
    reasons: dict[str, str] = {}
    if isinstance(reference, Path):
        if not reference.exists():
            raise FileNotFoundError(
                f"{reference}: no such folder or manifest of references"
            )
        known, problems, _ = sort_cases(reference, channels=(), ids=wanted)
        names = case_names(reference) if reference.is_dir() else set()
        if names and not any(item.labels for item in known):
            found = {n: Expected(n, file_of(reference, n)) for n in names}
        else:
            reasons = {p.case: str(p) for p in problems if p.case}
            found = _with_images(reference, known)
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


def predicted_files(predictions: Path, cases: Sequence[str]) -> dict[str, Path]:
    """Where the predicted labels of each case are, or would be.

    Args:
      predictions: folder of CASE.nii.gz, raw folder of cases, or manifest.
      cases: ids of the cases.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    if not predictions.exists():
        raise FileNotFoundError(
            f"{predictions}: no such folder of predictions; run `bmjax predict` first"
        )
    plain = case_names(predictions) if predictions.is_dir() else set()
    others: dict[str, Path] = {}
    if not plain & set(cases):
        # a second reader's cases come as the first one's do
        known, _, _ = sort_cases(predictions, channels=())
        others = {item.id: item.labels for item in known if item.labels}
    return {case: others.get(case, predictions / f"{case}.nii.gz") for case in cases}


def asked_for(predictions: Path) -> list[str] | None:
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


def case_names(folder: Path) -> set[str]:
    """Names of the volumes in a folder, without suffix."""
    return {
        path.name.removesuffix(".gz").removesuffix(".nii")
        for path in folder.iterdir()
        if path.name.endswith(SUFFIXES) and not path.name.startswith(".")
    }


def file_of(folder: Path, case_id: str) -> Path:
    """The label file of a case; the usual name where there is none."""
    present = [p for s in SUFFIXES if (p := folder / f"{case_id}{s}").is_file()]
    if len(present) > 1:
        raise ValueError(f"{case_id}: both {present[0]} and {present[1]}; remove one")
    return present[0] if present else folder / f"{case_id}.nii.gz"


def _with_images(reference: Path, known: Sequence[Case]) -> dict[str, Expected]:
    """The labelled cases of a raw folder or manifest, with those images that exist."""
    images = survey(reference).found
    return {
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


def _expected(item: Case) -> Expected:
    assert item.labels is not None
    columns = {"patient": item.patient, "visit": item.visit, **item.columns}
    return Expected(item.id, item.labels, columns, dict(item.images), item.reading)
