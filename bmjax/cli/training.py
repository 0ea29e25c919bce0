"""The verbs that make parameters, or show from what: train, preview and graft."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

import bmjax
from bmjax import processes
from bmjax.cli.output import (
    FAILED,
    OK,
    STOPPED,
    USAGE,
    AsFlags,
    Positional,
    complain,
    print_evaluation,
    print_result,
)
from bmjax.surgery import Surgery

_PLAIN = Surgery()


def train_from(config: Any) -> Callable[..., int]:
    """The verb `train` for one config, whose fields become its flags."""

    def train(
        config_file: Positional[Path],
        /,
        *,
        workdir: Path,
        folds: tuple[int, ...] = (),
        origin: Path | None = None,
        from_torch: Path | None = None,
        surgery: Annotated[Surgery, AsFlags] = _PLAIN,
        parallel: Literal["jit", "pmap"] = "jit",
        num_devices: int | None = None,
        deterministic: bool = False,
        profile_steps: int = 0,
        time_convolutions: bool = False,
        override: bool = False,
        coordinator: str | None = None,
        num_processes: int | None = None,
        process_id: int | None = None,
        experiment: Annotated[Any, AsFlags] = config,
    ) -> int:
        """Train a network, or go on with an interrupted run.

        Args:
          config_file: a Python file with `experiment()`, or a run folder to repeat.
          workdir: run folder; with --folds the folder of several.
          folds: train these folds side by side, in one program that shares the devices
            out among them, into WORKDIR/fold_0 and so on.
          origin: run folder whose parameters to begin with.
          from_torch: weight file to begin with: nnU-Net's checkpoint, a state dict,
            safetensors or npz.
          surgery: how they are made to fit.
          parallel: how several devices share a batch; the same result.
          num_devices: how many devices; if not given as many as the run began with,
            or all, or as many parts of the CPU as divide the batch.
          deterministic: on GPUs, only algorithms that give the same bytes each time;
            slower. On a CPU they do so anyway.
          profile_steps: trace so many steps into RUN/profile.
          time_convolutions: before a run begins, time the algorithms of each
            convolution on this CPU for some minutes and keep the fastest in
            experiment.json; without it a static rule chooses.
          override: go on although the config or the data changed; the changes are
            listed without it.
          coordinator: HOST:PORT of the first of several processes, or `auto` under
            SLURM or MPI; each process runs this command.
          num_processes: how many processes train together.
          process_id: which of them this is, from 0.
          experiment: any field of the config.
        """
        if coordinator is not None:
            processes.join(
                coordinator, num_processes=num_processes, process_id=process_id
            )
        console = Console(stderr=True)
        means = {
            "origin": _origin(origin, from_torch, surgery),
            "num_devices": num_devices,
            "deterministic": deterministic,
            "time_convolutions": time_convolutions,
            "override": override,
            "console": console,
        }
        if folds and (parallel == "pmap" or profile_steps):
            complain("--folds goes without --parallel pmap and --profile-steps")
            return USAGE
        if folds:
            done = bmjax.train_folds(experiment, workdir=workdir, folds=folds, **means)
        else:
            alone = {"parallel": parallel, "profile_steps": profile_steps, **means}
            done = [bmjax.train(experiment, workdir=workdir, **alone)]
        processes.leave()
        return _ended(done, console)

    return train


def _ended(runs: Sequence[Any], console: Console) -> int:
    """Show the scores of runs that are finished; the exit code of all."""
    code = OK
    for run in runs:
        if run.validation is not None:
            if len(runs) > 1:
                print_result(f"\n{run.run.name}")
            print_evaluation(run.validation)
            code = code if run.validation.ok else FAILED
    for run in runs:
        if not run.is_finished:
            console.print(
                f"{run.run.name}: stopped at step {run.step}, all is saved; the same "
                "command goes on"
            )
            code = STOPPED
    return code


def preview_from(config: Any) -> Callable[..., int]:
    """The verb `preview` for one config, whose fields become its flags."""

    def preview(
        config_file: Positional[Path],
        /,
        *,
        out: Path,
        num_samples: int = 12,
        experiment: Annotated[Any, AsFlags] = config,
    ) -> int:
        """Draw augmented training patches, as the network will see them.

        Args:
          config_file: a Python file with `experiment()`, or a run folder.
          out: picture to write, such as sheet.png.
          num_samples: how many patches.
          experiment: any field of the config.
        """
        print_result(str(bmjax.preview(experiment, out=out, num_samples=num_samples)))
        return OK

    return preview


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
        complain("nothing to do: give a source, --from-torch, --to-torch or --out")
        return USAGE
    origin = _origin(source, from_torch, surgery, checkpoint)
    if target is None:
        if from_torch is None:
            complain("give the run folder that receives the parameters")
            return USAGE
        run, account = transplant.read_nnunet(from_torch, surgery=surgery)
    else:
        run, account = transplant.graft_run(
            target, origin, checkpoint=checkpoint, allow=allow
        )
    if account is not None:
        print_result(str(account))
    if dry_run:
        return OK
    if out is not None:
        split = target and target / "split.json"
        print_result(transplant.write_result(out, run, account, split=split))
    if to_torch is not None:
        print_result(transplant.write_torch(to_torch, run))
    return OK


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
