"""The verbs of `bmjax study`: whole studies, and what their scores say."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from bmjax.cli.output import (
    OK,
    OTHER_WORKDIR,
    STOPPED,
    AsFlags,
    Positional,
    print_result,
)
from bmjax.cli.study2d import kaur2024
from bmjax.compilation import return_memory, use_cache
from bmjax.data.streams import remove_unfinished
from bmjax.locks import held
from bmjax.sharding import split_cpu
from bmjax.study.scores import METRICS, STARTS
from bmjax.study.transfer import Transfer


def statistics(
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DIR")],
    /,
    *,
    out: Path,
    as_published: bool = False,
    metrics: tuple[str, ...] = METRICS,
    starts: tuple[str, str] = STARTS,
    by: str = "",
    allow_missing: bool = False,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Compare trained models on the same test cases, from their score tables.

    Paired by case, in the direction of each score, corrected by Holm, with effect sizes
    and their intervals, and in words. Writes tables (CSV, LaTeX), figures (PNG, PDF)
    and a page.

    Args:
      folder: of scores_MODEL_START.csv, as BrainMetaSeg has them; or of tables of
        `bmjax evaluate`, named in the same way. With lesions_MODEL_START.csv beside
        them, missed lesions are counted by size.
      out: folder to write to.
      as_published: the statistics of Luu et al. (2024) instead, faults and all.
      metrics: quantities to compare; the fewer, the milder the correction.
      starts: endings of the files' names that are compared with each other.
      by: column of text to describe the cases by as well, such as primary.
      allow_missing: compare on the cases that all tables have, where they differ.
      seed: of the bootstrap.
      json: print everything as JSON.
    """
    from bmjax.study.statistics import write_statistics

    found = write_statistics(
        folder,
        out,
        as_published=as_published,
        metrics=metrics,
        starts=starts,
        by=by,
        allow_missing=allow_missing,
        seed=seed,
    )
    print_result(found.to_dict() if json else "\n".join(found.sentences))
    return OK


def transfer(
    *,
    workdir: Path,
    study: Annotated[Transfer, AsFlags],
    dry_run: bool = False,
    tflops: float | None = None,
    list_stages: str = "",
    only: tuple[str, ...] = (),
    devices: tuple[str, ...] = (),
) -> int:
    """Pre-train on a source, fine-tune on a target, and compare with scratch.

    The study of Luu et al. (2024) with your data: cross-validated pre-training,
    fine-tuning and training from scratch, prediction of held-out cases by each fold and
    by all together, statistics, figures, and a report. The same command goes on where
    it was stopped; what is done of the same inputs is not done again.

    Args:
      workdir: folder of everything.
      study: what is studied.
      dry_run: show each stage with its steps and hours, and do nothing.
      tflops: throughput to reckon with where no step was timed here.
      list_stages: print the names of the stages that begin so, for a job array.
      only: do these stages alone; what they need must be done.
      devices: do stages side by side, one on each of these CUDA devices at a time.
    """
    from bmjax.study.forecast import look_ahead
    from bmjax.study.running import perform_all, perform_on_devices
    from bmjax.study.stages import Ledger, Stopped
    from bmjax.study.transfer import Study

    whole = Study(study, workdir)
    ledger = Ledger(workdir / "stages", whole.stages)
    console = Console(stderr=True)
    if list_stages:
        print_result("\n".join(n for n in ledger.stages if n.startswith(list_stages)))
        return OK
    if dry_run:
        print_forecast(look_ahead(whole, ledger, tflops=tflops))
        return OK
    remove_unfinished(workdir, within="tree")  # what a killed stage left
    try:
        if devices:
            perform_on_devices(
                ledger,
                console,
                devices=devices,
                command=_this_command(),
                logs=workdir / "logs",
            )
        else:
            perform_all(ledger, console, only=only)
    except Stopped as stopped:
        console.print(f"{stopped}; the same command goes on", markup=False)
        return STOPPED
    print_result(str(workdir / "report.html"))
    return OK


def review(
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DIR")],
    /,
    *,
    out: Path | None = None,
    num_models: int = 2,
    blind: bool = False,
    seed: int = 0,
    collect: tuple[Path, ...] = (),
) -> int:
    """Lay out test cases for expert readers in 3D Slicer, and collect their forms.

    Args:
      folder: workdir of `bmjax study transfer`; with --collect, the folder that the
        readers were given.
      out: folder for the readers; DIR/review if not given.
      num_models: how many of the fine-tuned models to show, the best ones.
      blind: call the predictions A and B, in another order for each case; the key is
        kept beside the folder.
      seed: of that order.
      collect: filled forms, to merge; prints weighted kappa between the readers.
    """
    from bmjax.study.agreement import collect_forms
    from bmjax.study.review import write_review

    if collect:
        found = collect_forms(folder, collect)
        for row in found.agreement:
            print_result(
                f"{row['first']} and {row['second']}, {row['question']}: weighted "
                f"kappa {row['weighted_kappa']:.3f} of {row['n']}"
            )
        for row in found.grades:
            print_result(
                f"{row['method']}, {row['question']}: mean {row['mean']:.2f} "
                f"of {row['n']}"
            )
        return OK
    made = write_review(
        folder,
        out or folder / "review",
        num_models=num_models,
        is_blinded=blind,
        seed=seed,
    )
    print_result(
        f"{made.out}: {len(made.cases)} cases, {len(made.methods)} predictions each; "
        f"key: {made.key}"
    )
    return OK


def sampling(
    workdir: Annotated[Positional[Path], tyro.conf.arg(metavar="DIR")],
    /,
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    quick: bool = False,
) -> int:
    """Compare lesion-uniform sampling with nnU-Net's rule, on phantoms.

    Trains the demo's network by each rule with each seed and prints the sensitivity for
    small lesions at equal false positives. Runs that are there are kept.

    Args:
      workdir: folder for cohort, store and runs.
      seeds: of the networks and their patches.
      quick: a tiny cohort and a few steps: does it run?
    """
    from bmjax.study.demo import SCALES
    from bmjax.study.sampling import run_study, summary

    scale = SCALES["quick" if quick else "full"]
    console = Console(stderr=True)
    with held(workdir, doing="comparing samplings", otherwise=OTHER_WORKDIR):
        found = run_study(workdir, scale=scale, seeds=seeds, console=console)
    Console(width=120).print(summary(found))
    return OK


def print_forecast(stages: Sequence[Any]) -> None:
    """A line for each stage, and the sums."""
    table = Table(box=None)
    table.add_column("stage")
    table.add_column("state")
    for name in ("steps", "PFLOP", "hours"):
        table.add_column(name, justify="right")
    table.add_column("hours are")
    for stage in stages:
        table.add_row(
            stage.name,
            stage.state,
            f"{stage.num_steps}" if stage.num_steps else "",
            _text(stage.tflop and stage.tflop / 1000),
            _text(stage.hours),
            stage.how,
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=110, highlight=False)
    console.print(table)
    steps = sum(stage.num_steps for stage in stages)
    flop = [stage.tflop for stage in stages if stage.num_steps]
    hours = [
        stage.hours for stage in stages if stage.num_steps and stage.state != "done"
    ]
    text = f"{len(stages)} stages, {steps} training steps"
    if None not in flop:
        text += f", {sum(flop) / 1e6:.3g} EFLOP"
    if None not in hours:
        text += f", {sum(hours):.3g} hours of training to do on one device"
    else:
        text += "; hours are known once a step was timed here, or with --tflops"
    console.print(text)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _this_command() -> list[str]:
    """How this process was called, without the devices."""
    argv, kept = sys.argv[1:], []
    is_device = False
    for word in argv:
        is_device = word == "--devices" or (is_device and not word.startswith("--"))
        if not is_device:
            kept.append(word)
    return [sys.executable, "-m", "bmjax", *kept]


VERBS: dict[str, Callable[..., int]] = {
    "transfer": transfer,
    "statistics": statistics,
    "review": review,
    "kaur2024": kaur2024,
    "sampling": sampling,
}


def run(argv: Sequence[str]) -> int:
    """Run one verb of `bmjax study`."""
    if argv[:1] in (["transfer"], ["kaur2024"], ["sampling"]):
        use_cache()
        return_memory()
        split_cpu()
    return tyro.extras.subcommand_cli_from_dict(
        VERBS, prog="bmjax study", description=__doc__, args=argv
    )
