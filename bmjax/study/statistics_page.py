"""The page of a study's statistics: figures, tables, and what they show in words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax.metrics.statistics import describe
from bmjax.report import study_figures
from bmjax.report.page import Block, Cell, Details, Grid, Page, Section, Table, Text
from bmjax.study.lesions import read_missed
from bmjax.study.scores import MODEL_NAMES, START_NAMES, TITLES, Scores
from bmjax.study.statistics import CAPTIONS, Statistics, columns_shown
from bmjax.study.tables import show

TITLE = "Fine-tuned against trained from scratch"
_HEADINGS = {
    "descriptives": "Means",
    "groups": "By group",
    "starts": "One start against the other",
    "models": "Models against each other",
    "mixed": "All models together",
    "challenging": "Challenging cases",
    "published_descriptives": "Means, as published",
    "published_starts": "One start against the other, as published",
    "published_models": "Models against each other, as published",
    "published_challenging": "Challenging cases, as published",
}
_FOOTER = "Research use only; not a medical device. Made by bmjax."


def write_page(found: Statistics, folder: Path, out: Path) -> Path:
    """Write OUT/statistics.html, and the figures beside it.

    Args:
      found: the statistics.
      folder: where their scores are.
      out: folder to write to.
    """
    page = Page(
        title="Statistics of a study",
        subtitle=subtitle(found.scores),
        sections=(
            summary(found),
            Section(title="Figures", blocks=figures(found.scores, folder, out)),
            *sections(found),
        ),
        footer=_FOOTER,
    )
    return page.write(out / "statistics.html")


def subtitle(scores: Scores) -> str:
    """How much was compared."""
    return (
        f"{len(scores.methods)} methods on {len(scores.cases)} test cases: "
        f"{', '.join(method.title for method in scores.methods)}"
    )


def summary(found: Statistics) -> Section:
    """What the Dice of each model says about the two starts, first of all."""
    dice = {c.name for c in found.scores.columns if c.metric == "dice"}
    rows = [row for row in found.tables.get("starts", []) if row["column"] in dice]
    texts = tuple(Text(text=row["sentence"]) for row in rows)
    return Section(title="In short", blocks=texts)


def sections(found: Statistics) -> tuple[Section, ...]:
    """A section for each table, with its sentences."""
    made = []
    for name, rows in found.tables.items():
        if not rows:
            continue
        blocks: list[Block] = [_table(name, rows)]
        sentences = [Text(text=row["sentence"]) for row in rows if "sentence" in row]
        if sentences:
            title = f"What each of these {len(sentences)} comparisons shows"
            blocks.append(Details(title=title, blocks=tuple(sentences)))
        if len(rows) > 24:
            details = Details(title=f"{len(rows)} rows", blocks=tuple(blocks))
            blocks = [details]
        made.append(Section(title=_HEADINGS[name], blocks=tuple(blocks)))
    return tuple(made)


def figures(scores: Scores, folder: Path, out: Path) -> tuple[Block, ...]:
    """Means by region of Dice and HD95; missed lesions where their tables are there.

    Written as PNG and PDF too.
    """
    made: list[Block] = []
    for metric in dict.fromkeys(column.metric for column in scores.columns):
        is_distance = TITLES.get(metric) == "HD95"
        if metric != "dice" and not is_distance:
            continue
        stem = out / ("hausdorff_by_region" if is_distance else "dice_by_region")
        made.append(
            study_figures.means_figure(
                _panels(scores, metric),
                title=TITLES[metric],
                unit="mm" if is_distance else "",
                stem=stem,
            )
        )
    missed = tuple(
        study_figures.missed_figure(
            lost, region=region, stem=out / f"missed_by_size_{region.lower()}"
        )
        for region, lost in read_missed(folder, scores).items()
    )
    if len(scores.methods) > 3:  # their bars need the whole width
        return (*made, *missed)
    return (*made, Grid(blocks=missed)) if missed else tuple(made)


def _panels(scores: Scores, metric: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Region -> start -> model -> description."""
    panels: dict[str, dict[str, dict[str, Any]]] = {}
    for column in scores.columns:
        if column.metric != metric:
            continue
        for method in scores.methods:
            start = START_NAMES.get(method.start, method.start)
            series = panels.setdefault(column.region, {}).setdefault(start, {})
            model = MODEL_NAMES.get(method.model, method.model)
            series[model] = describe(method.at(column.name, scores.cases))
    return panels


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = columns_shown(name)
    return Table(
        columns=tuple(columns.values()),
        rows=tuple(
            tuple(
                Cell(
                    text=show(row.get(key)),
                    kind="best" if key == "p_holm" and row[key] < 0.05 else "plain",
                    is_number=not isinstance(row.get(key), str),
                )
                for key in columns
            )
            for row in rows
        ),
        caption=CAPTIONS[name],
    )
