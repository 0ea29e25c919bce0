"""The parts that pages have in common: results, lesions, curves, cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bmjax.report import (
    case_view,
    curves,
    distance_tables,
    overlays,
    score_charts,
    tables,
    viewer,
)
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
from bmjax.report.sources import EvaluationFiles, flat, maps_beside
from bmjax.report.style import REGION_NAMES
from bmjax.report.volumes import CaseSources, Spot

MAX_CASES = 12
MAX_SLICES_MIB = 16
BOUND = (
    f"Its pictures are compressed, at most {MAX_CASES} cases are shown, and the slices "
    f"of all of them together may weigh {MAX_SLICES_MIB} MiB."
)
MAX_FOUND_SPOTS = 4


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
            share = tables.found_interval(found)
            numbers.append(
                Number(
                    value=f"{found['num_found']} / {found['num_lesions']}",
                    name=f"{region} lesions found",
                    detail=f"{share}; {false} false positives per case",
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
                *(
                    score_charts.strip({"": rows}, regions=regions, metric=metric)
                    for metric in score_charts.STRIPS
                    if f"{metric}_{regions[0]}" in rows[0]
                ),
                score_charts.volume_scatter({"": rows}, region=regions[0]),
            )
        ),
        tables.cases_table(rows, regions=regions, shown=shown_cases(evaluation)),
    ]
    more = (
        distance_tables.surface_table(summary),
        distance_tables.agreement_table(summary),
    )
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
    charts = []
    if any(row["region"] == region for row in evaluation.lesions):
        charts += [
            score_charts.detection_bars({"": evaluation.summary}, region=region),
            score_charts.lesion_scatter({"": evaluation.lesions}, region=region),
        ]
    charts += [
        score_charts.froc_chart(evaluation.froc, region=name)
        for name in evaluation.regions
        if any(row["region"] == name for row in evaluation.froc)
    ]
    if charts:
        blocks.append(Grid(blocks=tuple(charts)))
    wrong = [r for r in evaluation.lesions if not r["is_found"]]
    if any(row["region"] == region for row in wrong):
        shown = shown_cases(evaluation)
        table = tables.missed_table(evaluation.lesions, region=region, shown=shown)
        blocks.append(
            Details(
                title=f"Missed {region} lesions and false positives", blocks=(table,)
            )
        )
    return Section(title="Lesions", blocks=tuple(blocks))


def cases_section(
    cases: Sequence[CaseSources],
    *,
    limit: int = MAX_CASES,
    order: str = "",
) -> Section:
    """Three planes and all slices of each case; the first ones if there are many.

    Args:
      cases: what to show, in order.
      limit: cases shown at most.
      order: what the order is, for the title.
    """
    if not cases:
        return Section(title="Cases", blocks=())
    has_worst = any(case.reference is not None and case.spots for case in cases)
    convention = overlays.CONVENTION
    if has_worst:
        convention += f" {overlays.CONVENTION_WORST}"
    has_reference = any(case.reference is not None for case in cases)
    blocks: list[Block] = [
        Text(text=convention),
        case_view.Key(has_reference=has_reference),
    ]
    if len(cases) > limit:
        blocks.append(
            Text(text=f"The first {limit} of {len(cases)} cases.", kind="missing")
        )
    left_bytes = MAX_SLICES_MIB * 2**20
    is_first = True
    for case in cases[:limit]:
        view = overlays.case_view(case, with_slices=True)
        if view.slices is not None and view.slices.num_bytes > left_bytes:
            note = f"slices left out: those of all cases may weigh {MAX_SLICES_MIB} MiB"
            view = replace(view, slices=None, notes=(*view.notes, note))
        if view.slices is not None:
            left_bytes -= view.slices.num_bytes
            view = replace(view, is_open=is_first)
            is_first = False
        blocks.append(view)
    return Section(title=f"Cases{order}", blocks=tuple(blocks))


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
    rows = {row["case"]: row for row in evaluation.rows}
    cases = []
    for _, case in _ranked(evaluation):
        row, files = rows[case], evaluation.files[case]
        cases.append(
            CaseSources(
                case=case,
                images=files.images,
                reference=files.reference,
                predictions={name: files.prediction},
                maps=maps_beside(files.prediction, case),
                scores={name: {r: row[f"dice_{r}"] for r in evaluation.regions}},
                facts=case_facts(row, evaluation.regions, names=facts),
                spots=tuple(spots(evaluation, case)),
            )
        )
    return cases


def _ranked(evaluation: EvaluationFiles) -> list[tuple[float, str]]:
    """Mean Dice and id of each case whose files are known, the lowest first."""
    ranked = []
    for row in evaluation.rows:
        if row["case"] in evaluation.files:
            dice = [row[f"dice_{region}"] for region in evaluation.regions]
            defined = [value for value in dice if not math.isnan(value)]
            mean = sum(defined) / len(defined) if defined else math.inf
            ranked.append((mean, row["case"]))
    return sorted(ranked)


def shown_cases(evaluation: EvaluationFiles) -> frozenset[str]:
    """The cases that a page of this evaluation shows, for links to them."""
    return frozenset(case for _, case in _ranked(evaluation)[:MAX_CASES])


def spots(
    evaluation: EvaluationFiles, case: str, *, prediction: str = ""
) -> list[Spot]:
    """Lesions to go to: what is missed or invented by size, then the worst found.

    Args:
      evaluation: knows the lesions.
      case: whose.
      prediction: name of the prediction, where several are shown.
    """
    region = evaluation.regions[-1]
    found_there = [
        Spot(
            kind="invented"
            if row["kind"] != "reference"
            else ("found" if row["is_found"] else "missed"),
            region=region,
            centre_mm=(row["centre_x_mm"], row["centre_y_mm"], row["centre_z_mm"]),
            volume_mm3=row["volume_mm3"],
            dice=row["dice"],
            prediction=prediction,
        )
        for row in evaluation.lesions
        if row["case"] == case and row["region"] == region
    ]
    wrong = [spot for spot in found_there if spot.kind != "found"]
    wrong.sort(key=lambda spot: (spot.kind != "missed", -spot.volume_mm3))
    found = sorted((s for s in found_there if s.kind == "found"), key=lambda s: s.dice)
    num_wrong = viewer.MAX_SPOTS - min(len(found), MAX_FOUND_SPOTS)
    return [*wrong[:num_wrong], *found[:MAX_FOUND_SPOTS]]


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
