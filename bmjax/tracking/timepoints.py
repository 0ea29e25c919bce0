"""Finds the scans of each patient and puts them into the order of time."""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bmjax.data.cases import sort_cases
from bmjax.data.layout import patient_and_visit
from bmjax.data.reading import Reading

SUFFIXES = (".nii.gz", ".nii")
_DATE = re.compile(r"(?P<year>\d{4})[-_](?P<month>\d{2})(?:[-_](?P<day>\d{2}))?")
_DATE_AT_END = re.compile(rf"(?:(?P<patient>.*?)[-_.])?(?P<date>{_DATE.pattern})$")
_MAP = re.compile(r"_(entropy|disagreement|explain_\w+|prob_\w+)$")


@dataclass(frozen=True, kw_only=True)
class Timepoint:
    """One scan of a patient.

    Attributes:
      patient: whose it is.
      visit: its name among the patient's scans.
      path: its label file.
      day: when it was taken; the first of the month where only that is known.
      reading: how its labels are to be taken.
    """

    patient: str
    visit: str
    path: Path
    day: date | None = None
    reading: Reading = Reading()


def find_timepoints(root: str | Path) -> dict[str, list[Timepoint]]:
    """The scans of each patient in the order of time.

    Args:
      root: a CSV manifest with the columns case, labels and, optionally, patient, visit
        and date; a raw folder of cases with labels; or a folder, with or without one
        subfolder for each patient, of label files named PATIENT-VISIT.nii.gz or
        PATIENT_YYYY-MM.nii.gz (or YYYY-MM-DD; in a patient's folder the date alone).

    Returns:
      By patient; in the order of the dates where all scans of a patient have one, else
      of the visits.

    Raises:
      FileNotFoundError: there is no such file or folder, or no label file in it.
      ValueError: a file's name says no patient, or two scans the same one.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder or manifest of time points")
    found = _from_cases(root) or _from_names(root)
    if not found:
        raise FileNotFoundError(
            f"{root}: no label file found; expected PATIENT-VISIT.nii.gz or "
            "PATIENT_YYYY-MM.nii.gz, or a manifest with the columns case, patient, "
            "visit, date and labels"
        )
    by_patient: dict[str, list[Timepoint]] = {}
    for point in found:
        by_patient.setdefault(point.patient, []).append(point)
    for patient, points in by_patient.items():
        _require_distinct(patient, points)
        has_days = all(point.day for point in points)
        points.sort(
            key=lambda p: (str(p.day) if has_days else "", _number_first(p.visit))
        )
    return dict(sorted(by_patient.items()))


def parse_day(text: str) -> date | None:
    """The day of a date such as 2024-03 or 2024_03_17; None where it is none.

    Raises:
      ValueError: it looks like a date, but there is no such day.
    """
    matched = _DATE.fullmatch(text.strip())
    if matched is None:
        return None
    year, month, day = (int(matched[name] or 1) for name in ("year", "month", "day"))
    return date(year, month, day)


def _from_cases(root: Path) -> list[Timepoint]:
    """The labelled cases of a manifest or of a raw folder."""
    cases, problems, _ = sort_cases(root, channels=())
    is_manifest = root.is_file() or (root / "manifest.csv").is_file()
    if is_manifest and problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    points = []
    for case in cases:
        if case.labels is None:
            continue
        text = case.columns.get("date", "")
        try:
            day = parse_day(text)
        except ValueError as error:
            raise ValueError(f"{case.id}: date {text!r}: {error}") from error
        if text and day is None:
            raise ValueError(
                f"{case.id}: date {text!r} is none; expected YYYY-MM or YYYY-MM-DD"
            )
        points.append(
            Timepoint(
                patient=case.patient,
                visit=case.visit or text or case.id,
                path=case.labels,
                day=day,
                reading=case.reading,
            )
        )
    return points


def _from_names(root: Path) -> list[Timepoint]:
    """Label files named by patient and visit, or by date, in one folder or in many."""
    if not root.is_dir():
        return []
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())]
    points = []
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if not path.name.endswith(SUFFIXES) or path.name.startswith("."):
                continue
            stem = path.name.removesuffix(".gz").removesuffix(".nii")
            if _MAP.search(stem) is None:
                points.append(_named(path, stem, within=folder != root))
    return points


def _named(path: Path, stem: str, *, within: bool) -> Timepoint:
    dated = _DATE_AT_END.fullmatch(stem)
    if dated is not None:
        try:
            day = parse_day(dated["date"])
        except ValueError as error:
            raise ValueError(f"{path}: its date: {error}") from error
        patient = path.parent.name if within else dated["patient"]
        if not patient:
            raise ValueError(
                f"{path}: its name says no patient; put it into a folder of the "
                "patient's name, or call it PATIENT_YYYY-MM.nii.gz"
            )
        return Timepoint(patient=patient, visit=dated["date"], path=path, day=day)
    patient, visit = patient_and_visit(stem)
    if within:
        patient, visit = path.parent.name, visit or stem
    if not visit:
        raise ValueError(
            f"{path}: its name says no visit; expected PATIENT-VISIT.nii.gz such as "
            "BraTS-MET-00001-000.nii.gz, PATIENT_YYYY-MM.nii.gz, or name patient and "
            "visit in a manifest"
        )
    return Timepoint(patient=patient, visit=visit, path=path)


def _require_distinct(patient: str, points: list[Timepoint]) -> None:
    for what, values in (
        ("visit", [point.visit for point in points]),
        ("date", [str(point.day) for point in points if point.day]),
    ):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            paths = [str(p.path) for p in points if twice[0] in (p.visit, str(p.day))]
            raise ValueError(
                f"{patient}: {what} {twice[0]} is there more than once "
                f"({', '.join(paths)}); keep one, or give them different dates"
            )


def _number_first(visit: str) -> tuple[int, int, str]:
    """Visits that are numbers in their order, then the others by name."""
    return (0, int(visit), visit) if visit.isdecimal() else (1, 0, visit)
