"""The page of a transfer study: design, cohorts, curves, results, cases."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from bmjax import __version__
from bmjax.report import sections
from bmjax.report.page import (
    Block,
    Cell,
    Facts,
    Page,
    Section,
    Table,
    Text,
)
from bmjax.report.sources import read_evaluation, read_records
from bmjax.report.volumes import CaseSources, Spot
from bmjax.study import statistics_page
from bmjax.study.challenging import mark_cases
from bmjax.study.lesions import missed_by_all
from bmjax.study.ranking import rank_methods
from bmjax.study.scores import REGIONS, Method, Scores, read_scores
from bmjax.study.statistics import make_statistics
from bmjax.study.tables import show
from bmjax.study.transfer import Study

_NUM_CASES = 5  # as many panels as the paper has
_NUM_METHODS = 2


def write_transfer_report(study: Study) -> Path:
    """Write WORKDIR/report.html from what the stages before it left."""
    folder = study.workdir / "scores"
    scores = read_scores(folder)
    found = make_statistics(scores, by=study.by, seed=study.what.seed)
    best = rank_methods(scores)[:_NUM_METHODS]
    chosen = [scores.methods[ranked.index] for ranked in best]
    page = Page(
        title="Transfer study",
        subtitle=statistics_page.subtitle(scores),
        sections=(
            statistics_page.summary(found),
            Section(title="Design", blocks=(_design(study), *_notes(study))),
            Section(title="Pre-training, cross-validated", blocks=_crossval(study)),
            sections.curves_section(_records(study)),
            Section(
                title="Figures",
                blocks=statistics_page.figures(
                    scores, folder, study.workdir / "statistics"
                ),
            ),
            *statistics_page.sections(found),
            Section(
                title="Lesions that every method missed", blocks=_lost(study, scores)
            ),
            sections.cases_section(_cases(study, scores, chosen)),
            Section(
                title="Definitions",
                blocks=(
                    sections.conventions_details(
                        read_evaluation(_evaluated(study, chosen[0]))
                    ),
                ),
            ),
        ),
        footer="Research use only; not a medical device. Made by bmjax.",
    )
    return page.write(study.workdir / "report.html")


def _design(study: Study) -> Facts:
    what, held = study.what, study.held
    rule = {
        "matched": "fold k begins with the source's fold k",
        "first": "every fold begins with the source's fold 0",
        "all": "every fold begins with a run on all of the source but one patient",
    }
    steps = sum(stage.num_steps for stage in study.stages)
    return Facts(
        items=(
            ("source", f"{what.source}, {len(study.source_cases)} cases"),
            ("target", f"{what.target}, {len(held.train)} training cases"),
            ("test", f"{len(held.test)} cases"),
            ("models", ", ".join(study.recipes)),
            ("folds", str(what.folds)),
            ("fine-tuning", rule[what.seeds]),
            ("plan", what.plan),
            ("heads", what.surgery.heads),
            ("epochs", f"{what.pretrain_epochs}, then {what.finetune_epochs}"),
            ("training steps in all", f"{steps}"),
            ("checkpoint", what.checkpoint),
            ("ensemble", "mean of the folds' logits"),
            ("seed", str(what.seed)),
            ("version", f"bmjax {__version__}"),
        )
    )


def _notes(study: Study) -> list[Block]:
    made: list[Block] = []
    if study.what.plan == "target" and not study.what.keep_source_normalization:
        text = (
            "The target's plan is used for the source with its normalisation, as in "
            "the paper: where one data set is cropped to brains and the other is not, "
            "zeros around the brain enter mean and spread. "
            "--keep-source-normalization keeps the source's own."
        )
        made.append(Text(text=text))
    return made


def _crossval(study: Study) -> tuple[Block, ...]:
    with (study.workdir / "crossvalidation" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {"model": "model", "region": "region", "metric": "metric", "n": "n"}
    columns |= {"mean": "mean", "sd": "sd"}
    columns |= {"ci95_low": "CI low", "ci95_high": "CI high"}
    texts = ("model", "region", "metric")
    table = Table(
        columns=tuple(columns.values()),
        rows=tuple(
            tuple(
                Cell(
                    text=row[key]
                    if key in (*texts, "n")
                    else show(float(row[key] or "nan")),
                    is_number=key not in texts,
                )
                for key in columns
            )
            for row in rows
        ),
        caption="Source cases, each predicted whole by the best checkpoint of the fold "
        "that held it out; those folds also chose that checkpoint.",
    )
    return (table,)


def _records(study: Study) -> dict[str, list[dict]]:
    return {
        f"{model} {part}": read_records(study.run(part, model, 0) / "metrics.jsonl")
        for model in study.recipes
        for part in ("finetune", "scratch")
    }


def _lost(study: Study, scores: Scores) -> tuple[Block, ...]:
    rows = missed_by_all(study.workdir / "scores", scores)
    names = ("case", "region", "volume_mm3", "diameter_mm")
    if not rows:
        return (Text(text="None: each lesion was found by one method at least."),)
    rows.sort(key=lambda row: (row["case"], row["region"], float(row["volume_mm3"])))
    table = Table(
        columns=("case", "region", "volume [mm3]", "diameter [mm]", "x, y, z [mm]"),
        rows=tuple(
            (
                *(Cell(text=row[name], is_number=False) for name in names[:2]),
                *(Cell(text=f"{float(row[name]):.1f}") for name in names[2:]),
                Cell(text=_place(row)),
            )
            for row in rows
        ),
        caption="Places in RAS+ world coordinates.",
    )
    return (table,)


def _cases(study: Study, scores: Scores, chosen: Sequence[Method]) -> list[CaseSources]:
    """The most challenging test cases, with the predictions of the best methods."""
    by_id = {case.id: case for case in study.held.test}
    lost = missed_by_all(study.workdir / "scores", scores)
    shown = []
    for case_id, marks in list(mark_cases(scores).items())[:_NUM_CASES]:
        case = by_id[case_id]
        dice = {
            method.title: {
                column.region: float(method.at(column.name, [case_id])[0])
                for column in scores.columns
                if column.metric == "dice"
            }
            for method in chosen
        }
        shown.append(
            CaseSources(
                case=case_id,
                images=case.images,
                reference=case.labels,
                predictions={
                    method.title: _predicted(study, method) / f"{case_id}.nii.gz"
                    for method in chosen
                },
                scores=dice,
                facts=(
                    ("marks as challenging", str(marks)),
                    *_lost_facts([row for row in lost if row["case"] == case_id]),
                    *case.columns.items(),
                ),
                spots=tuple(_spot(row) for row in lost if row["case"] == case_id),
            )
        )
    return shown


def _lost_facts(lost: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    """How many lesions of each region no method found, and where."""
    return tuple(
        (
            f"{region} lesions that all missed",
            f"{len(own)}, at {'; '.join(map(_place, own))} mm",
        )
        for region in REGIONS
        if (own := [row for row in lost if row["region"] == region])
    )


def _spot(row: Mapping[str, str]) -> Spot:
    """A lesion that all methods missed, to be ringed in every panel."""
    x, y, z = (float(row[f"centre_{axis}_mm"]) for axis in "xyz")
    return Spot(
        kind="missed",
        region=row["region"],
        centre_mm=(x, y, z),
        volume_mm3=float(row["volume_mm3"]),
        dice=0.0,
    )


def _place(row: Mapping[str, str]) -> str:
    """The centre of a lesion, RAS+ [mm]."""
    return ", ".join(f"{float(row[f'centre_{axis}_mm']):.0f}" for axis in "xyz")


def _predicted(study: Study, method: Method) -> Path:
    return study.workdir / "predict" / method.model / method.start / "ensemble"


def _evaluated(study: Study, method: Method) -> Path:
    return study.workdir / "evaluate" / method.model / method.start / "ensemble"
