"""How a training begins or goes on: from a run folder to a state on its devices."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from rich.console import Console

from bmjax import processes, report, sharding
from bmjax.checkpoint import Checkpoints
from bmjax.data.pipeline import Batches
from bmjax.data.splits import Split
from bmjax.experiment import Experiment
from bmjax.feeding import patch_stream
from bmjax.planning import Plan
from bmjax.run_cost import run_cost
from bmjax.runs import begun_with, write_whole
from bmjax.surgery import GraftReport
from bmjax.training import Progress, TrainState, from_items, initial_state, to_items
from bmjax.transplant import Origin, transplant


@dataclass(frozen=True)
class Assignment:
    """What is to be trained, and where.

    Attributes:
      run: run folder, opened.
      experiment: resolved.
      split: cases to train and to validate on.
    """

    run: Path
    experiment: Experiment
    split: Split


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A run that is ready for its next update.

    Attributes:
      assignment: what is trained.
      mesh: its devices.
      state: whole on each of them.
      start: number of updates done.
      progress: what else was saved with them.
      stream: the rest of its training patches.
      checkpoints: where it is saved.
      grafted: what became of each parameter of the origin, where this call began it.
    """

    assignment: Assignment
    mesh: Mesh
    state: TrainState
    start: int
    progress: Progress
    stream: Batches
    checkpoints: Checkpoints
    grafted: GraftReport | None


def begin(
    assignment: Assignment,
    *,
    plan: Plan,
    origin: Origin | None,
    mesh: Mesh,
    console: Console,
) -> Begun:
    """Make or restore what a run needs, and say what it will take.

    Args:
      assignment: what to train.
      plan: of its store.
      origin: where the first parameters come from; drawn if None.
      mesh: from `sharding.data_mesh`.
      console: where it is said.

    Raises:
      ValueError: the run was begun from another origin; the origin does not fit.
      OSError: the disk is too small for its checkpoints.
    """
    run, experiment = assignment.run, assignment.experiment
    spec = experiment.optimizer
    _note_devices(run, mesh, console)
    checkpoints = Checkpoints(run / "checkpoints", keep_last=experiment.fit.keep_last)
    variables, grafted = _variables(run, experiment, plan, origin, checkpoints, console)
    state = initial_state(variables, spec.transformation(), ema_decay=spec.ema_decay)
    state, progress = _resumed(checkpoints, state)
    start, total = int(state.step), spec.total_steps
    if len(set(processes.all_values(start))) > 1:
        raise ValueError(
            f"{run}: its processes do not see the same checkpoints; put the run folder "
            "on a disk that all of them share"
        )
    state = sharding.replicate(state, mesh)
    stream = patch_stream(
        experiment, assignment.split.train, "train", total, start=progress.next_batch
    )
    if start < total:
        devices = list(mesh.devices.flat)
        cost = run_cost(
            run,
            experiment,
            plan,
            state,
            num_saved=checkpoints.count(),
            devices=devices,
        )
        console.print(f"{run.name}: {cost}", soft_wrap=True)
        console.print(
            f"{run.name}: {len(devices)} devices in {jax.process_count()} "
            f"processes, {devices[0].platform}; at most "
            f"{stream.prepared_bytes / 2**20:.0f} MiB of batches are prepared ahead in "
            "each"
        )
        if not report.can_draw():
            console.print("progress.png needs matplotlib: pip install 'bmjax[report]'")
    return Begun(
        assignment=assignment,
        mesh=mesh,
        state=state,
        start=start,
        progress=progress,
        stream=stream,
        checkpoints=checkpoints,
        grafted=grafted,
    )


def num_devices_for(run: Path, wanted: int | None) -> int | None:
    """As many devices as are asked for, or as the run began with, if there are so many.

    Args:
      run: run folder.
      wanted: over all processes; None where nobody asked.
    """
    begun, count = begun_with(run), jax.process_count()
    if wanted is not None or begun is None:
        return wanted
    before = begun["devices"]
    is_here = before <= len(jax.devices()) and before % count == 0
    return before if is_here else None


def _note_devices(run: Path, mesh: Mesh, console: Console) -> None:
    """Write down how many devices a new run has, or say that another number goes on."""
    now = {"devices": mesh.devices.size, "processes": jax.process_count()}
    begun = begun_with(run)
    if begun is None:
        if processes.is_first():
            write_whole(run / "devices.json", json.dumps(now))
    elif begun != now:
        console.print(
            f"{run.name}: began with {_counted(begun)} and goes on with "
            f"{_counted(now)}: the same result to rounding, not to the byte"
        )


def _counted(counts: Mapping[str, int]) -> str:
    return f"{counts['devices']} devices in {counts['processes']} processes"


def _variables(
    run: Path,
    experiment: Experiment,
    plan: Plan,
    origin: Origin | None,
    checkpoints: Checkpoints,
    console: Console,
) -> tuple[Any, GraftReport | None]:
    """Variables before the first step, of this network or with those of the origin."""
    size = experiment.data.patch_size or plan.patch_size
    image = jnp.zeros((1, *size, len(plan.channels)))
    variables = jax.jit(experiment.model.init)(jax.random.key(experiment.seed), image)
    grafted = None
    if checkpoints.latest() is not None:
        _require_same_origin(run, origin)
    elif origin is None:
        if processes.is_first():
            for name in ("origin.json", "graft.txt"):
                (run / name).unlink(missing_ok=True)  # of a try that saved nothing
    else:
        variables, grafted = transplant(
            variables, model=experiment.model, plan=plan, origin=origin
        )
        if processes.is_first():
            write_whole(run / "origin.json", json.dumps(origin.to_dict(), indent=1))
            write_whole(run / "graft.txt", f"{grafted}\n")
        for line in (*grafted.remarks, grafted.summary()):
            console.print(f"{run.name}: {line}", markup=False, soft_wrap=True)
    factors = jax.tree.leaves(experiment.optimizer.lr_factors(variables["params"]))
    if 0 in factors:
        console.print(
            f"{run.name}: {factors.count(0)} of {len(factors)} tensors are frozen"
        )
    return variables, grafted


def _require_same_origin(run: Path, origin: Origin | None) -> None:
    """Refuse to go on with a run as if it had begun from something else."""
    if origin is None:
        return
    file = run / "origin.json"
    before = json.loads(file.read_text()) if file.is_file() else None
    now = origin.to_dict()
    if before is None:
        raise ValueError(
            f"{run}: was not begun with the parameters of {now['path']}; go on without "
            "an origin, or choose another --workdir"
        )
    changes = [
        f"  {name}: was {before.get(name)}, is now {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if changes:
        raise ValueError(
            f"{run}: was begun from another origin:\n"
            + "\n".join(changes)
            + "\nGo on with the old one, or choose another --workdir"
        )


def _resumed(
    checkpoints: Checkpoints, state: TrainState
) -> tuple[TrainState, Progress]:
    """The newest saved state, or the one given where nothing was saved yet."""
    step = checkpoints.latest()
    if step is None:
        return state, Progress()
    variables, rest = to_items(state)
    found = checkpoints.restore(step, variables=variables, optimizer=rest)
    progress = Progress.from_dict({"next_batch": step, **found.meta})
    state = from_items(found.variables, found.optimizer, lr_factor=progress.lr_factor)
    return state, progress
