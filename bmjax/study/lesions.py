"""Which lesions a study's methods miss, by size: `lesions_MODEL_START.csv` tables."""

import csv
from pathlib import Path

from bmjax.metrics.lesions import SIZE_BIN_NAMES
from bmjax.study.scores import REGIONS, Method, Scores

Missed = dict[str, dict[str, tuple[int, int]]]  # method -> size -> missed, there


def lesion_table(folder: Path, method: Method) -> Path:
    """Where the lesions of a method are, beside its scores."""
    return folder / f"lesions_{method.name}.csv"


def read_missed(folder: Path, scores: Scores) -> dict[str, Missed]:
    """Missed and present reference lesions, by region, method and size.

    Empty unless every method of the study has a table of lesions, in the form of
    `bmjax evaluate`.
    """
    tables = [(m.title, lesion_table(folder, m)) for m in scores.methods]
    if not all(path.is_file() for _, path in tables):
        return {}
    found: dict[str, Missed] = {}
    for title, path in tables:
        for row in _reference_lesions(path):
            sizes = found.setdefault(row["region"], {}).setdefault(title, {})
            lost, there = sizes.get(row["size_bin"], (0, 0))
            lost += row["is_found"] not in ("1", "True")
            sizes[row["size_bin"]] = (lost, there + 1)
    return {
        region: {
            title: {size: sizes[size] for size in SIZE_BIN_NAMES if size in sizes}
            for title, sizes in found[region].items()
        }
        for region in REGIONS
        if region in found
    }


def missed_by_all(folder: Path, scores: Scores) -> list[dict[str, str]]:
    """Reference lesions that no method found: the rows of one of the tables."""
    tables = [lesion_table(folder, method) for method in scores.methods]
    if not all(path.is_file() for path in tables):
        return []
    lost: dict[tuple[str, ...], int] = {}
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for path in tables:
        for row in _reference_lesions(path):
            key = (row["case"], row["region"], *(row[f"centre_{a}_mm"] for a in "xyz"))
            rows[key] = row
            lost[key] = lost.get(key, 0) + (row["is_found"] not in ("1", "True"))
    return [rows[key] for key, count in lost.items() if count == len(tables)]


def _reference_lesions(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["kind"] == "reference"]
