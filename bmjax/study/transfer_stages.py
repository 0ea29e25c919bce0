"""What each stage of the transfer study does."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bmjax.console import ticking
from bmjax.data.plan_files import load_plan
from bmjax.data.tables import write_csv
from bmjax.evaluation import evaluate
from bmjax.metrics.statistics import describe
from bmjax.prediction import predict
from bmjax.preparation import prepare
from bmjax.study.cohorts import write_manifest
from bmjax.study.scores import REGIONS, STARTS
from bmjax.study.stages import Stopped
from bmjax.study.statistics import write_statistics
from bmjax.study.tables import write_latex
from bmjax.transplant import Origin
from bmjax.workflow import train

if TYPE_CHECKING:
    from bmjax.study.transfer import Study

# the published columns, and what they hold by our names
COLUMNS = {
    "DICE": "dice",
    "Hausdorff": "hd95_surfel",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "True_volume": "reference_ml",
    "Predicted_volume": "predicted_ml",
}

_ALIGNED = (
    *("channels", "orientation", "spacing_mm", "patch_size"),
    *("features", "strides", "kernel_sizes"),
)


def prepare_store(study: "Study", name: str, follows: bool, console: Console) -> None:
    """Prepare the source or the target's training cases.

    Args:
      study: whose.
      name: `source` or `target`.
      follows: by the plan of the other one.
      console: where progress is shown.
    """
    what = study.what
    data = getattr(what, f"{name}_data")
    raw: Path = getattr(what, name)
    if name == "target":
        folder = study.workdir / "data"
        held = study.held
        write_manifest(folder, "test", held.test, what.test or raw)
        raw = write_manifest(folder, "train", held.train, raw)
        data = replace(data, allow_outside=True)
    own: dict[str, Any] = {}
    if follows:
        leads = study.store("source" if name == "target" else "target")
        own = {"plan": load_plan(leads)}
        if name == "source":
            own["keep_source_normalization"] = what.keep_source_normalization
    else:
        own = {
            "spacing_mm": what.spacing_mm,
            "patch_size": what.patch_size,
            "batch_size": what.batch_size,
        }
    with ticking(console, f"preparing the {name}") as tick:
        prepare(
            raw,
            study.store(name),
            data=data,
            progress=tick,
            say=lambda text: console.print(text, markup=False, soft_wrap=True),
            **own,
        )


def train_run(
    study: "Study", part: str, model: str, fold: int | str, console: Console
) -> None:
    """Pre-train, fine-tune, or train from scratch.

    Raises:
      ValueError: a store that was given is not aligned with the other data set.
      Stopped: asked to stop, with everything saved.
    """
    if part == "pretrain" and study.what.plan != "native":
        require_aligned(*(study.store(name) for name in ("source", "target")))
    origin = None
    if part == "finetune" and isinstance(fold, int):
        origin = Origin(
            run=study.run("pretrain", model, study.seed_of(fold)),
            checkpoint=study.what.checkpoint,
            surgery=study.what.surgery,
        )
    done = train(
        study.experiment(part, model, fold),
        workdir=study.run(part, model, fold),
        origin=origin,
        console=console,
    )
    if not done.is_finished:
        raise Stopped(f"{part}/{model}: stopped at step {done.step}, all is saved")


def require_aligned(source: Path, target: Path) -> None:
    """Refuse stores whose plans give other networks or grids.

    Raises:
      ValueError: names what differs.
    """
    ours, theirs = load_plan(source), load_plan(target)
    differ = [
        f"{name} {getattr(ours, name)} and {getattr(theirs, name)}"
        for name in _ALIGNED
        if getattr(ours, name) != getattr(theirs, name)
    ]
    if differ:
        raise ValueError(
            f"{source} and {target}: their plans differ in {'; '.join(differ)}; give "
            "raw data, which is then prepared by the same plan, or --plan native"
        )


def write_cross_validation(study: "Study", console: Console) -> None:
    """The table of the pre-training: each case by the fold that held it out."""
    out = study.workdir / "crossvalidation"
    table = []
    for model in study.recipes:
        rows = []
        for fold in range(study.what.folds):
            validation = study.run("pretrain", model, fold) / "validation"
            rows += [{"fold": fold, **row} for row in _read(validation / "cases.csv")]
        write_csv(out / f"cases_{model}.csv", rows)
        for region in REGIONS:
            for metric in ("dice", "hd95_surfel", "sensitivity"):
                values = [row.get(f"{metric}_{region}") for row in rows]
                numbers = [float(value or "nan") for value in values]
                row = {"model": model, "region": region, "metric": metric}
                table.append(row | describe(numbers))
    write_csv(out / "table.csv", table)
    shown = {"model": "Model", "region": "Region", "metric": "Metric", "n": "n"}
    shown |= {"mean": "Mean", "sd": "SD", "ci95_low": "CI low", "ci95_high": "CI high"}
    write_latex(
        out / "table.tex",
        table,
        columns=shown,
        caption=f"{study.what.folds}-fold cross-validation of the pre-training; each "
        "case is predicted whole by the best checkpoint of the fold that held it out.",
    )


def predict_test(
    study: "Study", runs: Sequence[Path], out: Path, console: Console
) -> None:
    """Predict the test cases by these runs together.

    Raises:
      RuntimeError: a case could not be predicted.
    """
    with ticking(console, "predicting the test cases") as tick:
        results = predict(
            runs[0].parent,
            images=study.held.test,
            out=out,
            folds=[int(run.name.removeprefix("fold_")) for run in runs],
            checkpoint=study.what.checkpoint,
            allow=study.experiment("scratch", runs[0].parent.name, 0).packages(),
            progress=tick,
        )
    failed = [f"{result.case}: {result.error}" for result in results if result.error]
    if failed:
        raise RuntimeError("\n".join(failed))


def evaluate_test(study: "Study", predicted: Path, out: Path, console: Console) -> None:
    """Compare the predicted test cases with their labels.

    Raises:
      RuntimeError: a case could not be compared.
    """
    with ticking(console, "evaluating the test cases") as tick:
        found = evaluate(
            predicted,
            study.held.test,
            out=out,
            by=(study.by,) if study.by else (),
            progress=tick,
        )
    if not found.ok:
        raise RuntimeError("\n".join(failure["message"] for failure in found.failures))


def write_scores(study: "Study", console: Console) -> None:
    """Tables in BrainMetaSeg's form, and the lesions beside them."""
    out = study.workdir / "scores"
    facts = {case.id: dict(case.columns) for case in study.held.test}
    for model in study.recipes:
        for start in STARTS:
            scored = study.workdir / "evaluate" / model / start / "ensemble"
            rows = [
                {
                    "sample": f"{row['case']}.nii.gz",
                    **{
                        f"{theirs}_{region.lower()}": row.get(f"{ours}_{region}", "")
                        for theirs, ours in COLUMNS.items()
                        for region in REGIONS
                    },
                    **facts[row["case"]],
                }
                for row in _read(scored / "cases.csv")
            ]
            write_csv(out / f"scores_{model}_{start}.csv", rows)
            lesions = _read(scored / "lesions.csv")
            write_csv(out / f"lesions_{model}_{start}.csv", lesions)


def write_both_statistics(study: "Study", console: Console) -> None:
    """The right statistics, and those of the paper."""
    scores = study.workdir / "scores"
    write_statistics(
        scores, study.workdir / "statistics", by=study.by, seed=study.what.seed
    )
    write_statistics(scores, study.workdir / "published", as_published=True)


def write_report(study: "Study", console: Console) -> None:
    """The page of the study."""
    from bmjax.study.transfer_report import write_transfer_report

    write_transfer_report(study)


def _read(path: Path) -> list[Mapping[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
