"""One training: from a resolved experiment to the last checkpoint of its run."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from bmjax import processes, report, sharding
from bmjax.checkpoint import Checkpoints
from bmjax.data.splits import Split
from bmjax.data.store import Store
from bmjax.experiment import Experiment
from bmjax.feeding import patch_stream, placing
from bmjax.planning import Plan
from bmjax.run_cost import run_cost
from bmjax.runs import begun_with, write_whole
from bmjax.sharding import Parallel
from bmjax.surgery import GraftReport
from bmjax.training import (
    Progress,
    RunLog,
    Stop,
    TrainingBar,
    TrainState,
    fit,
    from_items,
    initial_state,
    make_train_step,
    make_validation_step,
    to_items,
    validation,
)
from bmjax.training.profile import profiled
from bmjax.transplant import Origin, transplant
from bmjax.volumes import volume_dice


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a run may use; none of it changes the result beyond rounding.

    Attributes:
      parallel: how the devices share a batch.
      num_devices: how many, over all processes; None takes as many as the run began
        with, or all, of the parts of a CPU as many as divide the batch.
      is_deterministic: only algorithms that give the same bytes each time, on GPUs too.
      profile_steps: steps to trace into RUN/profile; 0 for none.
    """

    parallel: Parallel = "jit"
    num_devices: int | None = None
    is_deterministic: bool = False
    profile_steps: int = 0


@dataclass(frozen=True)
class Outcome:
    """How far a run came.

    Attributes:
      step: number of updates done.
      is_finished: false where it was asked to stop.
      grafted: what became of each parameter of the origin, where this call began it.
    """

    step: int
    is_finished: bool
    grafted: GraftReport | None


def train_run(
    run: Path,
    experiment: Experiment,
    *,
    plan: Plan,
    split: Split,
    origin: Origin | None,
    means: Means,
    console: Console,
) -> Outcome:
    """Begin or go on with a run, in a folder that is opened for it.

    Args:
      run: run folder.
      experiment: resolved.
      plan: of its store.
      split: cases to train and to validate on.
      origin: where the first parameters come from; drawn if None.
      means: devices and the like.
      console: where progress is shown.

    Raises:
      ValueError: the run was begun from another origin; the origin does not fit.
      NonFiniteLossError: the loss became NaN or infinite.
      PeerLostError: another process is gone.
    """
    spec = experiment.optimizer
    mesh = sharding.data_mesh(_devices(run, experiment, means, console))
    optimizer = spec.transformation()
    checkpoints = Checkpoints(run / "checkpoints", keep_last=experiment.fit.keep_last)
    variables, grafted = _begin(run, experiment, plan, origin, checkpoints, console)
    state = initial_state(variables, optimizer, ema_decay=spec.ema_decay)
    state, progress = _resumed(checkpoints, state)
    start, total = int(state.step), spec.total_steps
    if len(set(processes.all_values(start))) > 1:
        raise ValueError(
            f"{run}: its processes do not see the same checkpoints; put the run folder "
            "on a disk that all of them share"
        )
    state = sharding.replicate(state, mesh)
    stream = patch_stream(
        experiment, split.train, "train", total, start=progress.next_batch
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

    def save(state: TrainState, progress: Progress) -> None:
        if processes.is_first():
            saved, rest = to_items(state)
            checkpoints.save(
                int(state.step),
                variables=saved,
                optimizer=rest,
                meta=dataclasses.asdict(progress),
                score=progress.score,
            )

    bar = TrainingBar(console, total=total, start=start, title=run.name)
    with (
        RunLog(run, start=start, is_silent=not processes.is_first()) as log,
        bar,
        Stop().watch() as stop,
        processes.loss_explained(),
    ):

        def emit(record: dict[str, Any]) -> None:
            log.write(record)
            bar.update(record)
            if record["kind"] == "val" and processes.is_first():
                _draw(run)

        state = fit(
            state,
            stream,
            settings=experiment.fit,
            optimizer=spec,
            train_step=_train_step(run, experiment, plan, optimizer, mesh, means),
            validate=_validation(experiment, plan, split, mesh, means, log),
            put=placing(experiment, mesh, parallel=means.parallel),
            save=save,
            emit=emit,
            report_failure=lambda step, batch: _keep_failure(run, step, batch, split),
            stop=stop,
            progress=progress,
            batch_size=experiment.data.batch_size or 1,
            agree=_agreement(experiment.fit.log_every),
        )
    stream.close()
    checkpoints.close()
    step = int(state.step)
    is_over = progress.stopping.is_out(experiment.fit.stop_patience)
    if is_over and step < total:
        console.print(
            f"{run.name}: ended early at step {step}: fit.monitor, the validation "
            f"{experiment.fit.monitor}, was no better for "
            f"{experiment.fit.stop_patience} looks"
        )
    return Outcome(step, step >= total or is_over, grafted)


def _devices(
    run: Path, experiment: Experiment, means: Means, console: Console
) -> list[Any]:
    """Those asked for, or as many as the run began with, if there are so many."""
    spec, begun = experiment.optimizer, begun_with(run)
    wanted, batch_size = means.num_devices, experiment.data.batch_size or 1
    if batch_size % spec.accumulate:
        raise ValueError(
            f"data.batch_size {batch_size} does not divide into optimizer.accumulate "
            f"{spec.accumulate} parts; choose a multiple of it"
        )
    num_processes = jax.process_count()
    if wanted is None and begun is not None:
        before = begun["devices"]
        if before <= len(jax.devices()) and before % num_processes == 0:
            wanted = before
    devices = sharding.devices_for(batch_size // spec.accumulate, wanted)
    now = {"devices": len(devices), "processes": num_processes}
    if begun is None:
        if processes.is_first():
            write_whole(run / "devices.json", json.dumps(now))
    elif begun != now:
        console.print(
            f"{run.name}: began with {_counted(begun)} and goes on with "
            f"{_counted(now)}: the same result to rounding, not to the byte"
        )
    return devices


def _counted(counts: Mapping[str, int]) -> str:
    return f"{counts['devices']} devices in {counts['processes']} processes"


def _begin(
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


def _train_step(
    run: Path,
    experiment: Experiment,
    plan: Plan,
    optimizer: Any,
    mesh: Any,
    means: Means,
) -> Callable[..., Any]:
    step = make_train_step(
        model=experiment.model,
        loss=experiment.loss,
        augment=sharding.samplewise(experiment.augment, mesh, parallel=means.parallel),
        optimizer=optimizer,
        regions=plan.regions,
        seed=experiment.seed,
        accumulate=experiment.optimizer.accumulate,
        ema_decay=experiment.optimizer.ema_decay,
        recompute_norms=sharding.is_cpu(mesh),
        convolutions=experiment.convolutions,
    )
    compiled = sharding.parallelise(
        step, mesh, parallel=means.parallel, is_deterministic=means.is_deterministic
    )
    if not means.profile_steps or not processes.is_first():
        return compiled
    return profiled(compiled, folder=run / "profile", num_steps=means.profile_steps)


def _validation(
    experiment: Experiment,
    plan: Plan,
    split: Split,
    mesh: Any,
    means: Means,
    log: RunLog,
) -> Callable[[TrainState], dict[str, Any]]:
    """The look at held-out patches, read in threads, which start at once, and cases."""
    look = make_validation_step(
        model=experiment.model, loss=experiment.loss, regions=plan.regions
    )
    threads = experiment.replace({"data.num_workers": 0})
    store = Store(Path(experiment.data.store or ""))
    whole = split.val[: experiment.fit.num_val_volumes]
    return validation(
        sharding.compile_for(look, mesh, is_deterministic=means.is_deterministic),
        lambda: patch_stream(threads, split.val, "val", experiment.fit.num_val_batches),
        put=lambda batch: sharding.put_batch(batch, mesh),
        regions=tuple(name for name, _ in plan.regions),
        batch_size=experiment.data.batch_size or 1,
        show=lambda image, step: log.show("val/image_labels_prediction", image, step),
        volume_dice=volume_dice(experiment, store, whole) if whole else None,
    )


def _keep_failure(
    run: Path, step: int, batch: Mapping[str, np.ndarray], split: Split
) -> str:
    """Keep a batch whose loss was not finite, and say which cases were in it."""
    names = sorted({split.train[i] for i in batch["case"]})
    path = run / f"nonfinite-{jax.process_index()}.npz"
    kept: dict[str, Any] = {name: x for name, x in batch.items() if name != "case"}
    np.savez_compressed(
        path, allow_pickle=False, step=step, cases=np.array(names), **kept
    )
    return f"the batch held {', '.join(names)} and is kept in {path}"


def _draw(run: Path) -> None:
    """Bring progress.png up to date, where matplotlib is installed."""
    if report.can_draw():
        report.write_progress(run)


def _agreement(every: int) -> Callable[[bool], bool]:
    """Whether any process was asked to stop: all find out at the same step."""
    if jax.process_count() == 1:
        return bool
    calls = 0

    def agree(own: bool) -> bool:
        nonlocal calls
        calls += 1
        return calls % every == 0 and processes.is_any(own)

    return agree
