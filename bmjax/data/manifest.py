"""Reads a table of cases: one row for each, its files and any facts about it."""

import csv
from collections.abc import Sequence
from pathlib import Path

from bmjax.data.layout import (
    Found,
    Problem,
    Survey,
    is_there,
    leaves,
    names_a_file,
    patient_and_visit,
    roles,
    word_of,
)

_KEYS = ("case", "patient", "visit")


def survey_manifest(
    path: Path, *, channels: Sequence[str], allow_outside: bool = False
) -> Survey:
    """The cases of a CSV (or, by its suffix, TSV) table.

    Columns are `case`, optionally `patient` and `visit`, one for each channel with the
    path of its file, `labels`, and free ones, which travel with the case. Channels may
    go by their usual aliases. An empty cell means that there is no such file.

    Args:
      path: the table; the paths in it are relative to its folder.
      channels: names of the wanted channels.
      allow_outside: accept files outside of the table's folder.

    Raises:
      ValueError: the table has no column `case`, or two columns for one channel.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter, restval="")
            rows = list(reader)
            names = list(reader.fieldnames or ())
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not a table of text in UTF-8 ({error}); export it again as CSV"
        ) from error
    by_column = _columns(path, names, channels)
    survey = Survey()
    for number, row in enumerate(rows, start=2):
        case = row[by_column["case"]].strip()
        if not names_a_file(case):
            message = f"line {number}: {case!r} cannot name a case"
            survey.faults.append(Problem(case, path, message))
            continue
        if case in survey.found:
            message = f"line {number}: case {case} occurs twice; name each case once"
            survey.faults.append(Problem(case, path, message))
            continue
        survey.found[case] = _found(case, row, by_column, names)
        for role, column in by_column.items():
            cell = row[column].strip()
            if role in _KEYS or not cell:
                continue
            file = path.parent / cell
            if not allow_outside and leaves(file, path.parent):
                message = (
                    f"line {number}: {cell} lies outside of the manifest's folder; "
                    "move the manifest above it, or allow paths to lead outside"
                )
                survey.faults.append(Problem(case, file, message))
            elif not is_there(file):
                message = f"line {number}: no such file, named in column {column}"
                survey.faults.append(Problem(case, file, message))
            else:
                survey.found[case].files[role] = [file]
    return survey


def _columns(
    path: Path, names: Sequence[str], channels: Sequence[str]
) -> dict[str, str]:
    """From key or channel to the column that holds it."""
    by_word = roles(channels) | {key: key for key in _KEYS}
    by_column: dict[str, str] = {}
    for name in names:
        role = by_word.get(word_of(name.strip()))
        if role is None:
            continue
        if role in by_column:
            raise ValueError(
                f"{path}: columns {by_column[role]!r} and {name!r} both mean {role}; "
                "keep one"
            )
        by_column[role] = name
    if "case" not in by_column:
        raise ValueError(
            f"{path}: no column 'case' among {', '.join(names) or 'no columns'}; "
            "the first line of a manifest names its columns"
        )
    return by_column


def _found(
    case: str, row: dict[str, str], by_column: dict[str, str], names: Sequence[str]
) -> Found:
    patient, visit = patient_and_visit(case)
    if "patient" in by_column:
        patient = row[by_column["patient"]].strip() or patient
    if "visit" in by_column:
        visit = row[by_column["visit"]].strip()
    taken = set(by_column.values())
    columns = {name.strip(): row[name].strip() for name in names if name not in taken}
    return Found(case, patient, visit, columns=columns)
