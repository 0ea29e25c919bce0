"""The door `study statistics`: from a folder of score tables to tables, figures, words.

OUT/descriptives.csv   mean, SD, 95 % CI of each method and column
OUT/starts.csv         each model: one start against the other, paired
OUT/models.csv         models against each other, within a start, paired
OUT/mixed.csv          all models together, by case
OUT/challenging.csv    how often each case is the worst
OUT/published_*.csv    with `as_published`: the paper's own, faults and all
OUT/sentences.txt      what each comparison shows and what it does not
OUT/*.tex              the same tables for LaTeX
OUT/*.png, *.pdf       figures
OUT/statistics.html    one self-contained page
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bmjax import report
from bmjax.data import streams
from bmjax.data.tables import write_csv
from bmjax.metrics.statistics import describe
from bmjax.study import published
from bmjax.study.challenging import mark_cases
from bmjax.study.mixed import mix
from bmjax.study.paired import (
    NUM_RESAMPLES,
    Paired,
    compare,
    conclude,
    corrected,
    holm,
)
from bmjax.study.scores import METRICS, STARTS, Column, Method, Scores, read_scores
from bmjax.study.tables import write_latex

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """All that the scores of a study say.

    Attributes:
      scores: what was read.
      tables: rows by the name of the table.
      sentences: one for each comparison: what it shows and what it does not.
      is_as_published: whether these are the paper's own.
    """

    scores: Scores
    tables: dict[str, list[Row]]
    sentences: tuple[str, ...]
    is_as_published: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For JSON; undefined numbers are None."""
        tables = {
            name: [{k: None if v != v else v for k, v in row.items()} for row in rows]
            for name, rows in self.tables.items()
        }
        return {"tables": tables, "sentences": list(self.sentences)}


_PAIRED = {
    "first": "First",
    "second": "Second",
    "column": "Score",
    "n": "n",
    "gain": "Gain",
    "ci95_low": "CI low",
    "ci95_high": "CI high",
    "rank_biserial": "r",
    "p": "p",
    "p_holm": "p (Holm)",
}
_SHOWN = {
    "descriptives": {
        **{"method": "Method", "column": "Score", "n": "n", "mean": "Mean"},
        **{"sd": "SD", "ci95_low": "CI low", "ci95_high": "CI high"},
    },
    "groups": {
        **{"group": "Group", "method": "Method", "column": "Score", "n": "n"},
        **{"mean": "Mean", "sd": "SD", "ci95_low": "CI low", "ci95_high": "CI high"},
    },
    "starts": _PAIRED,
    "models": _PAIRED,
    "mixed": {
        **{"column": "Score", "n": "n", "num_models": "Models", "gain": "Gain"},
        **{"ci95_low": "CI low", "ci95_high": "CI high", "p": "p"},
        **{"p_holm": "p (Holm)", "case_share": "Case's share"},
    },
    "challenging": {"case": "Case", "marks": "Marks", "share": "Share"},
    "published_descriptives": {
        **{"method": "Method", "column": "Score", "n": "n", "mean": "Mean"},
        **{"sd": "SD (n)", "ci95_low": "CI low", "ci95_high": "CI high"},
        **{"shapiro_p": "Shapiro p", "is_normal": "Normal"},
    },
    "published_starts": {
        **{"first": "First", "second": "Second", "column": "Score"},
        **{"n_first": "n", "u": "U", "p_greater": "p (greater)"},
        **{"p_direction": "p (better)"},
    },
    "published_challenging": {"case": "Case", "marks": "Marks", "share": "Share"},
}
_SHOWN["published_models"] = _SHOWN["published_starts"]
CAPTIONS = {
    "descriptives": "Mean over the test cases, SD (n - 1), 95 % CI by Student's t.",
    "groups": "The same by group of cases.",
    "starts": "Paired by case. Gain: positive where the first is better, whatever the "
    "direction of the score; 95 % CI by BCa bootstrap; r: rank-biserial correlation; "
    "p: Wilcoxon's signed ranks, two-sided; Holm's correction over this table.",
    "models": "Models against each other, paired by case; columns as for the starts; "
    "Holm's correction over all comparisons within one start.",
    "mixed": "All models together: fixed means, random level and random gain of each "
    "case. Case's share: part of the variance that is the case's, not the method's.",
    "challenging": "How often a case has the worst score of a method and column, "
    "joined on the case's id.",
    "published_descriptives": "As published: SD with n below, Shapiro-Wilk.",
    "published_starts": "As published: one-sided Mann-Whitney U, 'greater' for every "
    "score, unpaired, models pooled. For distances, where less is better, that is the "
    "wrong direction; p (better) asks the right one.",
    "published_models": "As published: one-sided Mann-Whitney U, 'greater', starts "
    "pooled.",
    "published_challenging": "As published: ids by the row of the first table, which "
    "is wrong where the tables have other orders.",
}


def make_statistics(
    scores: Scores,
    *,
    by: str = "",
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Statistics:
    """Compare all that can be compared, on the same cases.

    Args:
      scores: of the study.
      by: column of text to describe the cases by as well, such as `primary`.
      seed: of the bootstrap.
      num_resamples: of the bootstrap.

    Raises:
      ValueError: there is no such column.
    """
    how = {"seed": seed, "num_resamples": num_resamples}
    starts = _family(scores, _start_pairs(scores), **how)
    models = [
        row
        for start in dict.fromkeys(method.start for method in scores.methods)
        for row in _family(scores, _model_pairs(scores, start), **how)
    ]
    tables = {
        "descriptives": _descriptives(scores),
        "starts": starts,
        "models": models,
        "mixed": _mixed(scores),
        "challenging": _marks(mark_cases(scores), scores),
    }
    if by:
        tables["groups"] = _groups(scores, by)
    sentences = tuple(row["sentence"] for row in (*starts, *models))
    return Statistics(scores=scores, tables=tables, sentences=sentences)


def make_published(scores: Scores) -> Statistics:
    """What the paper's notebooks would print of these scores."""
    tables = {
        "published_descriptives": published.describe(scores),
        "published_starts": published.compare_starts(scores),
        "published_models": published.compare_models(scores),
        "published_challenging": _marks(published.challenging_cases(scores), scores),
    }
    sentences = tuple(
        f"{row['first']} > {row['second']}, {row['column']}: U {row['u']:g}, "
        f"p {row['p_greater']:.4f}"
        for name in ("published_starts", "published_models")
        for row in tables[name]
    )
    return Statistics(
        scores=scores, tables=tables, sentences=sentences, is_as_published=True
    )


def write_statistics(
    folder: str | Path,
    out: str | Path,
    *,
    as_published: bool = False,
    metrics: Sequence[str] = METRICS,
    starts: tuple[str, str] = STARTS,
    by: str = "",
    allow_missing: bool = False,
    seed: int = 0,
) -> Statistics:
    """Read a folder of score tables, and write everything that they say.

    Args:
      folder: of `scores_MODEL_START.csv`; see `scores.read_scores`.
      out: folder to write to.
      as_published: the paper's own statistics instead of the right ones.
      metrics: quantities to compare: the fewer, the milder the correction.
      starts: endings of the files' names that are compared with each other.
      by: column of text to describe the cases by as well.
      allow_missing: compare on the cases that all tables have.
      seed: of the bootstrap.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: the tables do not fit.
    """
    scores = read_scores(
        Path(folder), metrics=metrics, starts=starts, allow_missing=allow_missing
    )
    if as_published:
        found = make_published(scores)
    else:
        found = make_statistics(scores, by=by, seed=seed)
    out = Path(out)
    for name, rows in found.tables.items():
        write_csv(out / f"{name}.csv", rows)
        if rows:
            write_latex(
                out / f"{name}.tex",
                rows,
                columns=_SHOWN[name],
                caption=CAPTIONS[name],
            )
    text = "\n".join(found.sentences)
    streams.write_pieces(out / "sentences.txt", [text.encode() + b"\n"])
    if report.can_draw():
        from bmjax.study.statistics_page import write_page  # needs matplotlib

        write_page(found, Path(folder), out)
    return found


def columns_shown(table: str) -> dict[str, str]:
    """Keys and headings of the columns of a table that readers see."""
    return _SHOWN[table]


Pair = tuple[Method, Method]


def _start_pairs(scores: Scores) -> list[Pair]:
    return [
        (first, second)
        for model in scores.models
        if (first := scores.find(model, scores.starts[0])) is not None
        and (second := scores.find(model, scores.starts[1])) is not None
    ]


def _model_pairs(scores: Scores, start: str) -> list[Pair]:
    return list(combinations([m for m in scores.methods if m.start == start], 2))


def _family(
    scores: Scores, pairs: Sequence[Pair], *, seed: int, num_resamples: int
) -> list[Row]:
    """Comparisons that are corrected together."""
    asked = [(pair, column) for pair in pairs for column in scores.columns]
    found = corrected(
        [
            compare(
                first.at(column.name, scores.cases),
                second.at(column.name, scores.cases),
                is_higher_better=column.is_higher_better,
                seed=seed,
                num_resamples=num_resamples,
            )
            for (first, second), column in asked
        ]
    )
    return [
        _paired_row(pair, column, result)
        for (pair, column), result in zip(asked, found, strict=True)
    ]


def _paired_row(pair: Pair, column: Column, found: Paired) -> Row:
    first, second = pair
    digits = 5 if column.metric == "specificity" else 3 if column.unit == "" else 2
    sentence = conclude(found, digits=digits, unit=column.unit)
    return {
        "first": first.name,
        "second": second.name,
        "column": column.name,
        **asdict(found),
        "sentence": f"{first.title} against {second.title}, {column.title}: {sentence}",
    }


def _descriptives(scores: Scores) -> list[Row]:
    return [
        {"method": method.name, "column": column.name}
        | describe(method.at(column.name, scores.cases))
        for method in scores.methods
        for column in scores.columns
    ]


def _groups(scores: Scores, by: str) -> list[Row]:
    """Descriptives by the value of a column of text."""
    known = next((m for m in scores.methods if by in m.facts), None)
    if known is None:
        there = sorted({name for method in scores.methods for name in method.facts})
        raise ValueError(
            f"no column {by!r} of text to group by; the tables have "
            f"{', '.join(there) or 'none'}"
        )
    value = dict(zip(known.cases, known.facts[by], strict=True))
    groups = sorted({value[case] for case in scores.cases})
    return [
        {"group": group or "(blank)", "method": method.name, "column": column.name}
        | describe(
            method.at(column.name, [c for c in scores.cases if value[c] == group])
        )
        for group in groups
        for method in scores.methods
        for column in scores.columns
    ]


def _mixed(scores: Scores) -> list[Row]:
    found = {column.name: mix(scores, column) for column in scores.columns}
    rows: list[Row] = [
        {"column": name} | asdict(mixed)
        for name, mixed in found.items()
        if mixed is not None
    ]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _marks(marks: dict[str, int], scores: Scores) -> list[Row]:
    total = len(scores.methods) * len(scores.columns)
    return [
        {"case": case, "marks": count, "share": count / total}
        for case, count in marks.items()
    ]
