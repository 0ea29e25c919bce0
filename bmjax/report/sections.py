"""The parts that pages have in common: results, lesions, curves, cases."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bmjax.report import curves, overlays, tables
from bmjax.report.overlays import CaseSources
from bmjax.report.page import (
    Block,
    Details,
    Facts,
    Grid,
    Headline,
    Number,
    Section,
    Text,
)
from bmjax.report.sources import EvaluationFiles, flat
from bmjax.report.style import REGION_NAMES

MAX_CASES = 12


def headline(evaluation: EvaluationFiles) -> Headline:
    """Mean Dice of the main regions, and the share of lesions found."""
    numbers = []
    for region in evaluation.regions:
        measured = evaluation.summary["regions"][region]
        if not measured:
            continue
        dice = measured["dice"]
        interval = tables.interval(dice)
        numbers.append(
            Number(
                value=tables.number(dice["mean"]),
                name=f"Dice {region}",
                detail=f"95 % CI {interval}, n = {dice['n']}"
                if interval
                else f"n = {dice['n']}",
            )
        )
    for region in evaluation.regions[-1:]:
        detection = evaluation.summary["regions"][region].get("detection")
        if detection:
            found = detection["all"]
            false = tables.number(detection["false_positives_per_case"], digits=1)
            numbers.append(
                Number(
                    value=f"{found['num_found']} / {found['num_lesions']}",
                    name=f"{region} lesions found",
                    detail=f"{false} false positives per case",
                )
            )
    return Headline(numbers=tuple(numbers))


def curves_section(
    records_by_run: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Section:
    """Training curves of one or several runs."""
    charts = curves.training_charts(records_by_run)
    absent = [name for name, records in records_by_run.items() if not records]
    blocks: list[Block] = [Grid(blocks=charts)] if charts else []
    blocks += [
        Text(text=f"{name}: no training log found.", kind="missing") for name in absent
    ]
    return Section(title="Training", blocks=tuple(blocks))


def results_section(evaluation: EvaluationFiles, *, title: str) -> Section:
    """Tables and charts of one evaluation."""
    regions, rows = evaluation.regions, evaluation.rows
    summary = evaluation.summary
    blocks: list[Block] = []
    failed = summary.get("failed", [])
    if failed:
        text = (
            f"{len(failed)} of {summary['num_expected']} cases could not be evaluated"
        )
        blocks += [
            Text(text=f"{text}; they are in no mean.", kind="warning"),
            tables.failures_table(failed),
        ]
    empty = summary.get("empty_predictions", [])
    if empty:
        names = ", ".join(empty)
        blocks.append(Text(text=f"Nothing was predicted in: {names}.", kind="warning"))
    if not rows:
        return Section(title=title, blocks=tuple(blocks))
    blocks += [
        tables.summary_table(summary),
        Grid(
            blocks=(
                curves.dice_strip({"": rows}, regions=regions),
                curves.volume_scatter({"": rows}, region=regions[0]),
            )
        ),
        tables.cases_table(rows, regions=regions),
    ]
    more = (tables.surface_table(summary), tables.agreement_table(summary))
    blocks += [table for table in more if table is not None]
    return Section(title=title, blocks=tuple(blocks))


def lesions_section(evaluation: EvaluationFiles) -> Section:
    """Detection by size, and the lesions that went wrong."""
    detection = tables.detection_table(evaluation.summary)
    if detection is None or not evaluation.rows:
        return Section(title="Lesions", blocks=())
    region = evaluation.regions[-1]
    blocks: list[Block] = [detection]
    froc = tables.froc_table(evaluation.summary)
    if froc is not None:
        blocks.append(froc)
    if any(row["region"] == region for row in evaluation.lesions):
        blocks.append(
            Grid(
                blocks=(
                    curves.detection_bars({"": evaluation.summary}, region=region),
                    curves.lesion_scatter({"": evaluation.lesions}, region=region),
                )
            )
        )
    wrong = [r for r in evaluation.lesions if not r["is_found"]]
    if any(row["region"] == region for row in wrong):
        blocks.append(
            Details(
                title=f"Missed and invented {region} lesions",
                blocks=(tables.missed_table(evaluation.lesions, region=region),),
            )
        )
    return Section(title="Lesions", blocks=tuple(blocks))


def cases_section(cases: Sequence[CaseSources], *, limit: int = MAX_CASES) -> Section:
    """Three planes of each case; the first ones if there are many."""
    if not cases:
        return Section(title="Cases", blocks=())
    blocks: list[Block] = [Text(text=overlays.CONVENTION), overlays.Key()]
    if len(cases) > limit:
        blocks.append(
            Text(text=f"The first {limit} of {len(cases)} cases.", kind="missing")
        )
    blocks += [overlays.case_view(case) for case in cases[:limit]]
    return Section(title="Cases", blocks=tuple(blocks))


def conventions_details(evaluation: EvaluationFiles) -> Details:
    """The definition of every number."""
    items = tuple(flat(evaluation.conventions).items())
    return Details(title="What the numbers mean", blocks=(Facts(items=items),))


def hardest_first(
    evaluation: EvaluationFiles, *, name: str, facts: Sequence[str] = ()
) -> list[CaseSources]:
    """The files of each evaluated case, lowest mean Dice first.

    Args:
      evaluation: knows the files of each case.
      name: what the prediction is called.
      facts: free columns to show.
    """
    ranked = []
    for row in evaluation.rows:
        files = evaluation.files.get(row["case"])
        if files is None:
            continue
        scores = {r: row[f"dice_{r}"] for r in evaluation.regions}
        defined = [value for value in scores.values() if value == value]
        source = CaseSources(
            case=row["case"],
            images=files.images,
            reference=files.reference,
            predictions={name: files.prediction},
            scores={name: scores},
            facts=case_facts(row, evaluation.regions, names=facts),
        )
        ranked.append((sum(defined) / len(defined) if defined else 2.0, source))
    ranked.sort(key=lambda pair: (pair[0], pair[1].case))
    return [source for _, source in ranked]


def case_facts(
    row: Mapping[str, Any], regions: Sequence[str], *, names: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """What is known of a case besides its scores."""
    facts = [(name, str(row[name])) for name in names if row.get(name)]
    for region in regions[:1]:
        volume = tables.number(row.get(f"reference_ml_{region}"), digits=1)
        facts.append((f"{region} volume", f"{volume} ml"))
    for region in regions[-1:]:
        count = row.get(f"reference_lesions_{region}")
        if count is not None:
            facts.append((f"{region} lesions", f"{count:.0f}"))
    return tuple(facts)


def with_scores(
    case: CaseSources, rows_by_name: Mapping[str, Sequence[Mapping[str, Any]]]
) -> CaseSources:
    """The case with the Dice of each method, unless it has scores already."""
    if case.scores:
        return case
    scores = {}
    for name, rows in rows_by_name.items():
        for row in rows:
            if row["case"] == case.case and name in case.predictions:
                scores[name] = {
                    column.removeprefix("dice_"): value
                    for column, value in row.items()
                    if column.removeprefix("dice_") in REGION_NAMES
                }
    return replace(case, scores=scores)
