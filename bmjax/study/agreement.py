"""Merges the forms that expert readers filled in, and says how far they agree."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from bmjax.data.tables import write_csv
from bmjax.metrics.statistics import describe
from bmjax.study.review import read_key
from bmjax.study.review_form import GRADED, GRADES, QUESTIONS

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The filled forms of all readers.

    Attributes:
      rows: one for each reader, case and prediction, with its method.
      agreement: weighted kappa of each pair of readers and question.
      grades: description of each method and question.
    """

    rows: tuple[Row, ...]
    agreement: tuple[Row, ...]
    grades: tuple[Row, ...]


def collect_forms(review: Path, forms: Sequence[Path]) -> Collected:
    """Merge filled forms, and write REVIEW.collected.csv, .kappa.csv, .grades.csv.

    Args:
      review: folder that the readers were given.
      forms: filled CSV files.

    Raises:
      ValueError: a form does not fit; names the line and what is expected.
    """
    key = read_key(review)
    rows = [row for form in forms for row in _read_form(form, key)]
    twice = _repeated([(r["reader"], r["case"], r["prediction"]) for r in rows])
    if twice:
        raise ValueError(
            f"reader {twice[0]} graded prediction {twice[2]} of {twice[1]} twice; "
            "give each form once"
        )
    if not rows:
        raise ValueError("no row of these forms is filled in")
    found = Collected(
        rows=tuple(rows), agreement=tuple(_agreement(rows)), grades=tuple(_grades(rows))
    )
    for name, table in (
        ("collected", found.rows),
        ("kappa", found.agreement),
        ("grades", found.grades),
    ):
        write_csv(review.with_name(f"{review.name}.{name}.csv"), table)
    return found


def weighted_kappa(
    first: Sequence[int], second: Sequence[int], *, grades: Sequence[int] = GRADES
) -> float:
    """Cohen's kappa with quadratic weights (1968); NaN where both use one grade only.

    Args:
      first: grades of one reader.
      second: of another, of the same things in the same order.
      grades: those that there are, in order.
    """
    if not len(first):
        return math.nan
    place = {grade: i for i, grade in enumerate(grades)}
    a, b = (np.array([place[grade] for grade in each]) for each in (first, second))
    observed = ((a - b) ** 2).mean()
    by_chance = ((a[:, None] - b[None, :]) ** 2).mean()
    return float(1 - observed / by_chance) if by_chance else math.nan


def _read_form(path: Path, key: Mapping[tuple[str, str], str]) -> list[Row]:
    """The filled rows of one form."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        raw = list(csv.DictReader(file, restval=""))
    wanted = ("case", "prediction", "reader", *QUESTIONS)
    missing = [name for name in wanted if raw and name not in raw[0]]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}")
    rows = []
    for number, row in enumerate(raw, start=2):
        if not any(row[name].strip() for name in QUESTIONS):
            continue
        where = f"{path}, line {number}"
        method = key.get((row["case"], row["prediction"]))
        if method is None:
            raise ValueError(
                f"{where}: prediction {row['prediction']} of {row['case']} is not in "
                "the key; is it the form of another review?"
            )
        reader = row["reader"].strip()
        if not reader:
            raise ValueError(f"{where}: says no reader; fill in that column")
        rows.append(
            {"reader": reader, "case": row["case"], "prediction": row["prediction"]}
            | {"method": method}
            | {name: _answer(name, row[name].strip(), where) for name in QUESTIONS}
        )
    return rows


def _answer(name: str, text: str, where: str) -> int | str:
    """A grade, a count or a comment; empty where it was left out."""
    if name == "comment" or not text:
        return text
    is_fit = text.isdigit() and (name not in GRADED or int(text) in GRADES)
    if not is_fit:
        kind = f"{GRADES[0]} to {GRADES[-1]}" if name in GRADED else "a count"
        raise ValueError(f"{where}: {name} is {text!r}; expected {kind}, or nothing")
    return int(text)


def _agreement(rows: Sequence[Row]) -> list[Row]:
    by_reader: dict[str, dict[tuple[str, str], Row]] = {}
    for row in rows:
        what = (row["case"], row["prediction"])
        by_reader.setdefault(row["reader"], {})[what] = row
    found = []
    for first, second in combinations(sorted(by_reader), 2):
        shared = sorted(by_reader[first].keys() & by_reader[second].keys())
        for question in GRADED:
            pairs = [
                (by_reader[first][what][question], by_reader[second][what][question])
                for what in shared
            ]
            pairs = [(a, b) for a, b in pairs if a != "" and b != ""]
            ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
            same = sum(a == b for a, b in pairs)
            found.append(
                {
                    "first": first,
                    "second": second,
                    "question": question,
                    "n": len(pairs),
                    "weighted_kappa": weighted_kappa(ours, theirs),
                    "share_equal": same / len(pairs) if pairs else math.nan,
                }
            )
    return found


def _grades(rows: Sequence[Row]) -> list[Row]:
    return [
        {"method": method, "question": question}
        | describe(
            float(row[question])
            for row in rows
            if row["method"] == method and row[question] != ""
        )
        for method in sorted({row["method"] for row in rows})
        for question in QUESTIONS
        if question != "comment"
    ]


def _repeated(items: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    seen: set[tuple[str, ...]] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
