"""From the command line to the doors: the only file that knows flags and exit codes.

Exit codes: 0 done, 1 a case or the run failed, 2 the command was not understood,
75 stopped on request with everything saved: the same command goes on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

import bmjax
from bmjax.compilation import use_cache
from bmjax.console import ticking
from bmjax.sharding import split_cpu
from bmjax.surgery import Surgery

OK, FAILED, USAGE, STOPPED = 0, 1, 2, 75

Positional = tyro.conf.Positional
AsFlags = tyro.conf.arg(name="")
_PLAIN = Surgery()


def check(raw: Positional[Path], /, *, json: bool = False) -> int:
    """Read every file of a data set and list all problems of all cases at once.

    Args:
      raw: folder of cases, or a CSV manifest.
      json: print the report as JSON.
    """
    with ticking(Console(stderr=True), "checking") as tick:
        report = bmjax.check(raw, progress=tick)
    _print_result(report.to_dict() if json else str(report))
    return OK if report.ok else FAILED


def prepare(
    raw: Positional[Path],
    store: Positional[Path],
    /,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    patch_size: tuple[int, int, int] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
) -> int:
    """Turn raw cases into a store: fingerprint, plan, preprocessed arrays.

    Args:
      raw: folder of cases, or a CSV manifest.
      store: folder to make; one that was interrupted is completed.
      spacing_mm: target spacing instead of the plan's own, z y x.
      patch_size: patch instead of the plan's own, z y x.
      batch_size: batch size instead of the plan's own.
      num_workers: cases prepared at the same time; all cores if not given.
    """
    with ticking(Console(stderr=True), "preparing") as tick:
        plan = bmjax.prepare(
            raw,
            store,
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            batch_size=batch_size,
            num_workers=num_workers,
            progress=tick,
        )
    _print_result(plan.to_dict())
    return OK


def train_from(config: Any) -> Callable[..., int]:
    """The verb `train` for one config, whose fields become its flags."""

    def train(
        config_file: Positional[Path],
        /,
        *,
        workdir: Path,
        origin: Path | None = None,
        from_torch: Path | None = None,
        surgery: Annotated[Surgery, AsFlags] = _PLAIN,
        parallel: Literal["jit", "pmap"] = "jit",
        num_devices: int | None = None,
        experiment: Annotated[Any, AsFlags] = config,
    ) -> int:
        """Train a network, or go on with an interrupted run.

        Args:
          config_file: a Python file with `experiment()`, or a run folder to repeat.
          workdir: run folder.
          origin: run folder whose parameters to begin with.
          from_torch: weight file to begin with: nnU-Net's checkpoint, a state dict,
            safetensors or npz.
          surgery: how they are made to fit.
          parallel: how several devices share a batch; the same result.
          num_devices: how many devices; all if not given, or as many parts of the
            CPU as divide the batch.
          experiment: any field of the config.
        """
        console = Console(stderr=True)
        begin = _origin(origin, from_torch, surgery)
        done = bmjax.train(
            experiment,
            workdir=workdir,
            origin=begin,
            parallel=parallel,
            num_devices=num_devices,
            console=console,
        )
        if not done.is_finished:
            console.print(
                f"stopped at step {done.step}, all is saved; the same command goes on"
            )
            return STOPPED
        if done.validation is None:
            return OK
        _print_evaluation(done.validation)
        return OK if done.validation.ok else FAILED

    return train


def predict(
    run: Positional[Path],
    /,
    *,
    images: Path,
    out: Path,
    cases: tuple[str, ...] = (),
    checkpoint: Literal["best", "last"] = "best",
    overwrite: bool = False,
    allow: tuple[str, ...] = (),
) -> int:
    """Write a label file, in the input's own geometry, for each case.

    Args:
      run: run folder.
      images: folder of cases, or a CSV manifest; labels are not needed.
      out: folder for CASE.nii.gz.
      cases: ids of the cases wanted, or `held-out` for those of the run; all if none.
      checkpoint: which one of the run.
      overwrite: replace what another network or setting left in the folder.
      allow: packages outside bmjax that a network of your own comes from.
    """
    if cases == ("held-out",):
        cases = tuple(_read_json(run / "split.json")["val"])
    with ticking(Console(stderr=True), "predicting") as tick:
        results = bmjax.predict(
            run,
            images=images,
            out=out,
            cases=cases or None,
            checkpoint=checkpoint,
            overwrite=overwrite,
            allow=allow,
            progress=tick,
        )
    for result in results:
        if result.error is not None:
            _complain(f"{result.case}: {result.error}")
    failed = sum(result.error is not None for result in results)
    _print_result(f"{len(results) - failed} cases predicted, {failed} failed: {out}")
    return FAILED if failed else OK


def evaluate(
    predictions: Positional[Path],
    reference: Positional[Path],
    /,
    *,
    out: Path | None = None,
    cases: tuple[str, ...] = (),
    json: bool = False,
) -> int:
    """Compare predictions with reference labels.

    Args:
      predictions: folder of CASE.nii.gz.
      reference: folder of cases, CSV manifest, or folder of label files.
      out: folder for cases.csv, lesions.csv, summary.json and conventions.json.
      cases: ids that must be there; those the prediction was asked for if none.
      json: print the result as JSON.
    """
    evaluation = bmjax.evaluate(predictions, reference, out=out, cases=cases or None)
    if json:
        _print_result(evaluation.to_dict())
    else:
        _print_evaluation(evaluation)
    return OK if evaluation.ok else FAILED


def graft(
    target: Annotated[
        Positional[Path | None], tyro.conf.arg(metavar="[TARGET]")
    ] = None,
    source: Annotated[
        Positional[Path | None], tyro.conf.arg(metavar="[SOURCE]")
    ] = None,
    /,
    *,
    from_torch: Path | None = None,
    out: Path | None = None,
    to_torch: Path | None = None,
    checkpoint: Literal["best", "last"] = "best",
    dry_run: bool = False,
    allow: tuple[str, ...] = (),
    surgery: Annotated[Surgery, AsFlags] = _PLAIN,
) -> int:
    """Carry parameters from one network over to another, and in and out of torch.

    Prints what becomes of each tensor; writes what --out and --to-torch ask for.

    Args:
      target: run folder that receives them; none makes a run of nnU-Net's checkpoint.
      source: run folder that has them; none leaves those of the target.
      from_torch: weight file that has them, instead of a source: nnU-Net's
        checkpoint, a state dict (.pth, .pt), .safetensors or .npz.
      out: run folder to make, ready to predict or to train on; or a .safetensors or
        .npz file, by our names.
      to_torch: .pth for nnU-Net's checkpoint; .pt, .safetensors or .npz for a state
        dict by torch's names; a folder for a trained model of nnU-Net.
      checkpoint: which one of the runs.
      dry_run: write nothing.
      allow: packages outside bmjax that a network of your own comes from.
      surgery: how they are made to fit.
    """
    from bmjax import transplant

    if source is None and from_torch is None and to_torch is None and out is None:
        _complain("nothing to do: give a source, --from-torch, --to-torch or --out")
        return USAGE
    origin = _origin(source, from_torch, surgery, checkpoint)
    if target is None:
        if from_torch is None:
            _complain("give the run folder that receives the parameters")
            return USAGE
        run, account = transplant.read_nnunet(from_torch, surgery=surgery)
    else:
        run, account = transplant.graft_run(
            target, origin, checkpoint=checkpoint, allow=allow
        )
    if account is not None:
        _print_result(str(account))
    if dry_run:
        return OK
    if out is not None:
        split = target and target / "split.json"
        _print_result(transplant.write_result(out, run, account, split=split))
    if to_torch is not None:
        _print_result(transplant.write_torch(to_torch, run))
    return OK


def report(folder: Positional[Path], /, *, out: Path | None = None) -> int:
    """Make one self-contained page of a run or of an evaluation.

    Args:
      folder: run folder, or folder made by `bmjax evaluate --out`.
      out: the page; `report.html` in the folder if not given.
    """
    from bmjax import report as room

    out = out or folder / "report.html"
    if (folder / "experiment.json").is_file():
        room.write_run_report(folder, out)
    else:
        room.write_evaluation_report(folder, out)
    _print_result(str(out))
    return OK


def demo(*, workdir: Path = Path("demo"), seed: int = 0, quick: bool = False) -> int:
    """Run the whole job on synthetic patients: from raw NIfTI to a report.

    Args:
      workdir: folder for everything; an interrupted demo goes on.
      seed: of the cohorts and the networks.
      quick: a few steps on a few cases, to see that all works.
    """
    from bmjax.study.demo import run_demo

    page = run_demo(
        workdir,
        size="quick" if quick else "full",
        seed=seed,
        console=Console(stderr=True),
    )
    _print_result(str(page))
    return OK


def bench(argv: Sequence[str] = ()) -> int:
    """Time our code beside its peers, in a checkout; see `bmjax bench --help`.

    Args:
      argv: what `python -m benchmarks` takes.
    """
    root = Path(bmjax.__file__).parents[1]
    if not (root / "benchmarks" / "__main__.py").is_file():
        _complain(
            "bench: the benchmarks are not part of an installed bmjax; use one that "
            "was installed from a checkout with `pip install --editable .`"
        )
        return USAGE
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "benchmarks", *argv]
    return subprocess.run(command, env=environment, check=False).returncode


VERBS: dict[str, Callable[..., int]] = {
    **{"demo": demo, "check": check, "prepare": prepare, "train": train_from(None)},
    **{"predict": predict, "evaluate": evaluate, "graft": graft, "report": report},
    "bench": bench,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one verb and exit with its code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in (["--version"], ["-V"]):
        print(f"bmjax {bmjax.__version__}")
        sys.exit(OK)
    try:
        sys.exit(_run(argv))
    except (FileNotFoundError, ValueError, RuntimeError, OSError) as error:
        _complain(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        _complain("interrupted")
        sys.exit(130)


def _run(argv: list[str]) -> int:
    if argv[:1] == ["bench"]:
        return bench(argv[1:])  # its flags are those of the suite
    if argv[:1] in (["train"], ["predict"], ["demo"]):
        use_cache()
        split_cpu()
    if argv[:1] == ["train"]:
        # the flags of `train` are the fields of its config, so that is read first
        has_config = len(argv) > 1 and not argv[1].startswith("-")
        experiment = bmjax.load(argv[1]) if has_config else None
        return tyro.cli(train_from(experiment), prog="bmjax train", args=argv[1:])
    return tyro.extras.subcommand_cli_from_dict(
        VERBS, prog="bmjax", description=bmjax.__doc__, args=argv
    )


def _origin(
    run: Path | None,
    from_torch: Path | None,
    surgery: Surgery,
    checkpoint: Literal["best", "last"] = "best",
) -> Any:
    """Where parameters come from; None if nowhere."""
    from bmjax.transplant import Origin

    if run is None and from_torch is None:
        if surgery != _PLAIN:
            raise ValueError(
                f"{surgery} has nothing to work on: no other network was given"
            )
        return None
    return Origin(
        run=run, from_torch=from_torch, checkpoint=checkpoint, surgery=surgery
    )


def _print_evaluation(evaluation: Any) -> None:
    from bmjax.report.tables import evaluation_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has room for whole numbers
    console.print(evaluation_table(evaluation.to_dict()))
    for failure in evaluation.failures:
        _complain(f"{failure['case']}: {failure['message']}")


def _print_result(result: Any) -> None:
    print(result if isinstance(result, str) else json.dumps(result, indent=1))


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[red]error:[/red] {escape(text)}"
    )


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
