"""The page of a study: cohorts, several runs, and their predictions side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bmjax.metrics import statistics
from bmjax.report import overlays, score_charts, sections, tables
from bmjax.report.page import (
    Block,
    Facts,
    Grid,
    Headline,
    Number,
    Page,
    Section,
    Text,
)
from bmjax.report.sources import EvaluationFiles, read_evaluation, read_records
from bmjax.report.volumes import CaseSources

Rows = Sequence[Mapping[str, Any]]
ScoresByCase = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """A data set, as the page introduces it.

    Attributes:
      name: what it is called.
      facts: names and values, such as number of cases, lesions, spacing.
      examples: cases of which one axial slice each is shown, with the reference.
      text: a sentence about it.
    """

    name: str
    facts: tuple[tuple[str, str], ...] = ()
    examples: tuple[CaseSources, ...] = ()
    text: str = ""


def write_comparison_report(
    out: str | Path,
    *,
    title: str,
    subtitle: str = "",
    texts: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
    cohorts: Sequence[Cohort] = (),
    runs: Mapping[str, Path] | None = None,
    evaluations: Mapping[str, Path] | None = None,
    baselines: Mapping[str, ScoresByCase] | None = None,
    cases: Sequence[CaseSources] = (),
    footer: str = "Research use only; not a medical device. Made by bmjax.",
    figures: Path | None = None,
) -> Path:
    """Write one self-contained page that compares methods on the same cases.

    Args:
      out: the page.
      title: its heading.
      subtitle: one line below it.
      texts: paragraphs at the top.
      facts: names and values at the top, such as seed and wall time.
      cohorts: data sets to introduce.
      runs: run folder of each training, by its name; only the log is read.
      evaluations: evaluation folder of each method, by its name; the first one is
        compared with each of the others.
      baselines: Dice by case and region of further methods, by their name.
      cases: cases to show; predictions under the names of the methods get their Dice
        from `evaluations` and `baselines`.
      footer: last line.
      figures: folder for every chart as PNG and PDF, if wanted.
    """
    read = {n: read_evaluation(Path(p)) for n, p in (evaluations or {}).items()}
    rows: dict[str, Rows] = {name: found.rows for name, found in read.items()}
    for name, by_case in (baselines or {}).items():
        rows[name] = [
            {"case": case, **{f"dice_{r}": value for r, value in scores.items()}}
            for case, scores in by_case.items()
        ]
    regions = next(iter(read.values())).regions if read else ("WT", "TC", "ET")
    top: list[Block] = [Text(text=text) for text in texts]
    if any(rows.values()):
        top.insert(0, _headline(rows, region=regions[0]))
    if facts:
        top.append(Facts(items=tuple(facts)))
    records = {
        n: read_records(Path(p) / "metrics.jsonl") for n, p in (runs or {}).items()
    }
    shown = [_with_spots(sections.with_scores(case, rows), read) for case in cases]
    page = Page(
        title=title,
        subtitle=subtitle,
        sections=(
            Section(title="Summary", blocks=tuple(top)),
            Section(title="Cohorts", blocks=tuple(_cohorts(cohorts))),
            sections.curves_section(records),
            Section(title="Results", blocks=tuple(_results(read, rows, regions))),
            sections.cases_section(shown),
            Section(
                title="Definitions",
                blocks=tuple(
                    sections.conventions_details(found)
                    for found in list(read.values())[:1]
                ),
            ),
        ),
        footer=footer,
    )
    return page.write(out, figures=figures)


def _with_spots(case: CaseSources, read: Mapping[str, EvaluationFiles]) -> CaseSources:
    """The case with the lesions that the first method with its scores got wrong."""
    for name, found in read.items():
        if name in case.predictions and not case.spots:
            own = tuple(sections.spots(found, case.case, prediction=name))
            case = replace(case, spots=own)
    return case


def _headline(rows: Mapping[str, Rows], *, region: str) -> Headline:
    """Mean Dice of each method, and the paired difference to the first."""
    values = {
        name: {row["case"]: row.get(f"dice_{region}", math.nan) for row in own}
        for name, own in rows.items()
    }
    first, *_ = values
    numbers = []
    for name, by_case in values.items():
        described = statistics.describe(by_case.values())
        detail = f"n = {described['n']}"
        gain = statistics.describe(
            value - by_case.get(case, math.nan) for case, value in values[first].items()
        )
        if name != first and gain["n"]:
            sign = "+" if gain["mean"] >= 0 else ""
            detail = f"{first} {sign}{tables.number(gain['mean'])} against it"
            interval = tables.interval(gain)
            detail += f" (95 % CI {interval})" if interval else ""
        numbers.append(
            Number(
                value=tables.number(described["mean"]),
                name=f"Dice {region}, {name}",
                detail=detail,
            )
        )
    return Headline(numbers=tuple(numbers))


def _cohorts(cohorts: Sequence[Cohort]) -> list[Block]:
    blocks: list[Block] = []
    for cohort in cohorts:
        blocks.append(Facts(items=cohort.facts, title=cohort.name))
        if cohort.text:
            blocks.append(Text(text=cohort.text))
        if cohort.examples:
            views = tuple(
                overlays.case_view(
                    replace(example, predictions={}), planes=("axial",), detail="brief"
                )
                for example in cohort.examples
            )
            blocks.append(Grid(blocks=views, min_width_px=300))
    return blocks


def _results(
    read: Mapping[str, EvaluationFiles],
    rows: Mapping[str, Rows],
    regions: Sequence[str],
) -> list[Block]:
    blocks: list[Block] = []
    for name, found in read.items():
        failed = found.summary.get("failed", [])
        if failed:
            num = found.summary["num_expected"]
            text = f"{name}: {len(failed)} of {num} cases could not be evaluated."
            blocks += [
                Text(text=text, kind="warning"),
                tables.failures_table(failed),
            ]
    if not any(rows.values()):
        return blocks
    blocks.append(tables.comparison_table(rows, regions=regions))
    charts = [score_charts.strip(rows, regions=regions)]
    with_cases = {name: found for name, found in read.items() if found.rows}
    core = regions[-1]
    if with_cases:
        volumes = {name: found.rows for name, found in with_cases.items()}
        charts.append(score_charts.volume_scatter(volumes, region=regions[0]))
    lesions = {name: found.lesions for name, found in with_cases.items()}
    if any(row["region"] == core for own in lesions.values() for row in own):
        summaries = {name: found.summary for name, found in with_cases.items()}
        charts += [
            score_charts.detection_bars(summaries, region=core),
            score_charts.lesion_scatter(lesions, region=core),
        ]
    return [*blocks, Grid(blocks=tuple(charts))]
