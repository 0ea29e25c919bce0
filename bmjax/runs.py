"""The run folder: opened once for an experiment, gone on with, read, or written whole.

RUN/experiment.json   what is run, every open field resolved
RUN/plan.json         how its images are prepared
RUN/split.json        ids of the cases trained on and held out
RUN/data.json         a hash of what each case was prepared from
RUN/devices.json      how many devices and processes it began with
RUN/origin.json       where its first parameters come from
RUN/graft.txt         what became of each of them
RUN/metrics.jsonl     the log; tensorboard/ holds the same, progress.png draws it
RUN/nonfinite-0.npz   the batch whose loss was not finite, if one was
RUN/profile/          trace of some steps, if one was asked for
RUN/checkpoints/      the newest and the best
RUN/validation/       whole-volume predictions of the held-out cases
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bmjax import processes
from bmjax.changes import require_same
from bmjax.checkpoint import Checkpoints
from bmjax.data.plan_files import load_plan
from bmjax.data.splits import Split
from bmjax.data.store import Store
from bmjax.experiment import Experiment, load
from bmjax.locks import held
from bmjax.planning import Plan
from bmjax.training import initial_state, to_items
from bmjax.variables import require_fit


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
    plan = load_plan(run / "plan.json")
    checkpoints = Checkpoints(run / "checkpoints", is_read_only=True)
    try:
        step = checkpoints.best() if checkpoint == "best" else checkpoints.latest()
        if step is None:
            raise FileNotFoundError(
                f"{run}: has no checkpoint yet; the first one comes after "
                f"{experiment.fit.checkpoint_every} steps of `bmjax train`"
            )
        variables = checkpoints.restore_variables(step).variables
    finally:
        checkpoints.close()
    require_fit(run, experiment, plan, variables)
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
    with held(
        folder.parent,
        doing=f"making {folder.name}",
        otherwise="choose another folder",
        name=f".{folder.name}.lock",
    ):
        _write_run(folder, run, account, split)


def _write_run(folder: Path, run: Run, account: str | None, split: Path | None) -> None:
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
    spec = run.experiment.optimizer
    state = initial_state(
        run.variables, spec.transformation(), ema_decay=spec.ema_decay
    )
    variables, rest = to_items(state)
    checkpoints = Checkpoints(fresh / "checkpoints")
    checkpoints.save(
        0, variables=variables, optimizer=rest, meta={"window": [], "score": None}
    )
    checkpoints.close()
    os.replace(fresh, folder)


@contextmanager
def opened(
    run: Path,
    experiment: Experiment,
    *,
    store: Store,
    split: Split,
    override: bool = False,
) -> Iterator[tuple[str, ...]]:
    """Hold a run folder for one training, and write down what it is.

    Of several processes the first holds it; the others only look.

    Args:
      run: made if it is not there.
      experiment: resolved.
      store: where its cases are.
      split: of its store's cases.
      override: go on although the experiment or the data changed.

    Yields:
      What is different from before, line by line.

    Raises:
      ValueError: the folder holds another experiment, or is held by another process.
    """
    facts = {
        "plan": store.plan.digest(),
        "train": {case: store.digest(case) for case in split.train},
        "val": {case: store.digest(case) for case in split.val},
    }
    if not processes.is_first():
        yield require_same(run, experiment, facts, override=override)
        return
    with held(run, doing="training", otherwise="choose another --workdir"):
        changes = require_same(run, experiment, facts, override=override)
        parts = {"train": list(split.train), "val": list(split.val)}
        write_whole(run / "plan.json", json.dumps(store.plan.to_dict(), indent=1))
        write_whole(run / "split.json", json.dumps(parts, indent=1))
        write_whole(run / "data.json", json.dumps(facts, indent=1))
        write_whole(run / "experiment.json", experiment.to_json())
        yield changes


def begun_with(run: Path) -> dict[str, int] | None:
    """How many `devices` and `processes` a run began with; None if it has not begun."""
    path = run / "devices.json"
    return json.loads(path.read_text()) if path.is_file() else None


def read_split(run: Path) -> dict[str, list[str]] | None:
    """Ids of the cases that a run trained on and held out; None if it does not say."""
    path = run / "split.json"
    return json.loads(path.read_text()) if path.is_file() else None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text)
    os.replace(fresh, path)
