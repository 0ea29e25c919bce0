"""The run folder: opened once for an experiment, gone on with, read, or written whole.

RUN/experiment.json   what is run, every open field resolved
RUN/plan.json         how its images are prepared
RUN/split.json        ids of the cases trained on and held out
RUN/origin.json       where its first parameters come from
RUN/graft.txt         what became of each of them
RUN/metrics.jsonl     the log; tensorboard/ holds the same
RUN/checkpoints/      the newest and the best
RUN/validation/       whole-volume predictions of the held-out cases
"""

import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bmjax.checkpoint import Checkpoints
from bmjax.data.splits import Split
from bmjax.experiment import Experiment, load
from bmjax.planning import Plan
from bmjax.training import initial_state


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds, for those who use its network.

    Attributes:
      experiment: what was run.
      plan: how images are prepared.
      step: the checkpoint that the variables are from.
      variables: parameters and model statistics, numpy.
    """

    experiment: Experiment
    plan: Plan
    step: int
    variables: dict[str, Any]


def read_run(
    run: Path, *, checkpoint: str = "best", allow: tuple[str, ...] = ()
) -> Run:
    """Read a run's plan, experiment and one of its checkpoints.

    Args:
      run: run folder.
      checkpoint: `best` or `last`.
      allow: packages outside bmjax whose classes the experiment may name.

    Raises:
      FileNotFoundError: it is no run folder, or has no checkpoint yet.
      ValueError: the experiment names a class of another package.
    """
    experiment = load(run, allow=allow)
    plan = Plan.from_dict(json.loads((run / "plan.json").read_text()))
    checkpoints = Checkpoints(run / "checkpoints", is_read_only=True)
    step = checkpoints.best() if checkpoint == "best" else checkpoints.latest()
    if step is None:
        raise FileNotFoundError(
            f"{run}: has no checkpoint yet; the first one comes after "
            f"{experiment.fit.checkpoint_every} steps of `bmjax train`"
        )
    variables = checkpoints.restore_variables(step).variables
    checkpoints.close()
    return Run(experiment, plan, step, variables)


def write_run(
    folder: Path, run: Run, *, account: str | None = None, split: Path | None = None
) -> None:
    """Make a run that has not trained yet, to predict with or to train on from.

    Args:
      folder: made whole or not at all.
      run: what it holds.
      account: what became of each parameter, for graft.txt.
      split: file of the cases to train on and to hold out, copied if it is there.

    Raises:
      ValueError: the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there already; choose another folder")
    fresh = folder.with_name(f".{folder.name}.tmp")
    if fresh.exists():
        shutil.rmtree(fresh)  # left by a call that was killed
    fresh.mkdir(parents=True)
    write_whole(fresh / "experiment.json", run.experiment.to_json())
    write_whole(fresh / "plan.json", json.dumps(run.plan.to_dict(), indent=1))
    if account is not None:
        write_whole(fresh / "graft.txt", f"{account}\n")
    if split is not None and split.is_file():
        shutil.copyfile(split, fresh / "split.json")
    state = initial_state(run.variables, run.experiment.optimizer.transformation())
    checkpoints = Checkpoints(fresh / "checkpoints")
    checkpoints.save(
        0,
        variables=state.variables,
        optimizer={"step": state.step, "opt_state": state.opt_state},
        meta={"window": [], "score": None},
    )
    checkpoints.close()
    os.replace(fresh, folder)


@contextmanager
def opened(
    run: Path, experiment: Experiment, *, plan: Plan, split: Split
) -> Iterator[None]:
    """Hold a run folder for one training, and write down what it is.

    Args:
      run: made if it is not there.
      experiment: resolved.
      plan: of its store.
      split: of its store's cases.

    Raises:
      ValueError: the folder holds another experiment, or is held by another process.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ValueError(
                f"{run}: process {lock.read().strip()} is training in this folder; "
                "wait for it, stop it, or choose another --workdir"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _require_same(run, experiment)
        parts = {"train": list(split.train), "val": list(split.val)}
        write_whole(run / "plan.json", json.dumps(plan.to_dict(), indent=1))
        write_whole(run / "split.json", json.dumps(parts, indent=1))
        write_whole(run / "experiment.json", experiment.to_json())
        yield


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text)
    os.replace(fresh, path)


def _require_same(run: Path, experiment: Experiment) -> None:
    if not (run / "experiment.json").is_file():
        return
    # read and written again, a field that bmjax did not have yet has its default
    before, now = (
        _flat(json.loads(spec.to_json()))
        for spec in (load(run, allow=experiment.packages()), experiment)
    )
    changes = [
        f"  {path}: was {before.get(path)!r}, is now {now.get(path)!r}"
        for path in sorted({*before, *now})
        if before.get(path) != now.get(path)
    ]
    if changes:
        raise ValueError(
            f"{run}: holds a run of another experiment:\n"
            + "\n".join(changes)
            + "\nGo on with the old values, or choose another --workdir"
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found.update(_flat(item, f"{path}.{name}" if path else name))
    return found
