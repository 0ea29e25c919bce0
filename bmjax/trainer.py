"""From resolved experiments to the last checkpoints of one run, or of several folds."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from bmjax import processes, report, sharding
from bmjax.beginning import Assignment, Begun, begin, num_devices_for
from bmjax.data.splits import Split
from bmjax.data.store import Store
from bmjax.experiment import Experiment
from bmjax.feeding import patch_stream, placing
from bmjax.fold_mesh import SideBySide, fold_mesh, rows
from bmjax.planning import Plan
from bmjax.sharding import Parallel
from bmjax.surgery import GraftReport
from bmjax.training import (
    Learner,
    Progress,
    RunLog,
    Stop,
    TrainingBars,
    TrainState,
    fit,
    make_train_step,
    make_validation_step,
    to_items,
    validation,
)
from bmjax.training.loop import Alone, Seating
from bmjax.training.profile import profiled
from bmjax.transplant import Origin
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
    assignment: Assignment,
    *,
    plan: Plan,
    origin: Origin | None,
    means: Means,
    console: Console,
) -> Outcome:
    """Begin or go on with a run.

    Args:
      assignment: what to train.
      plan: of its store.
      origin: where the first parameters come from; drawn if None.
      means: devices and the like.
      console: where progress is shown.

    Raises:
      ValueError: the run was begun from another origin; the origin does not fit.
      NonFiniteLossError: the loss became NaN or infinite.
      PeerLostError: another process is gone.
    """
    run, experiment = assignment.run, assignment.experiment
    wanted = num_devices_for(run, means.num_devices)
    mesh = sharding.data_mesh(sharding.devices_for(_batch_part(experiment), wanted))
    begun = begin(assignment, plan=plan, origin=origin, mesh=mesh, console=console)
    train_step = _train_step(run, experiment, plan, mesh, means)
    (outcome,) = _train(
        [begun],
        state=begun.state,
        train_step=train_step,
        seating=Alone(),
        plan=plan,
        means=means,
        console=console,
    )
    return outcome


def train_folds(
    assignments: Sequence[Assignment],
    *,
    plan: Plan,
    origin: Origin | None,
    means: Means,
    console: Console,
) -> list[Outcome]:
    """Begin or go on with the runs of several folds, side by side on their devices.

    Args:
      assignments: what to train; the experiments differ in their fold alone.
      plan: of their store.
      origin: where the first parameters of each come from; drawn if None.
      means: devices of all together, and the like.
      console: where progress is shown.

    Raises:
      ValueError: there are too few devices; a run cannot be gone on with.
      NonFiniteLossError: the loss of a fold became NaN or infinite; the others went on.
    """
    experiment, count = assignments[0].experiment, len(assignments)
    wanted = means.num_devices
    if wanted is None:
        before = num_devices_for(assignments[0].run, None) or 0
        is_here = 0 < before * count <= len(jax.devices())
        wanted = before * count if is_here else None
    mesh = fold_mesh(count, _batch_part(experiment), wanted)
    begun = [
        begin(each, plan=plan, origin=origin, mesh=row, console=console)
        for each, row in zip(assignments, rows(mesh), strict=True)
    ]
    folds = SideBySide(mesh, begun[0].state)
    step = _step(experiment, plan, mesh, experiment.augment)
    train_step = folds.parallelise(step, is_deterministic=means.is_deterministic)
    return _train(
        begun,
        state=folds.stack([each.state for each in begun]),
        train_step=train_step,
        seating=folds,
        plan=plan,
        means=means,
        console=console,
    )


def _train(
    begun: Sequence[Begun],
    *,
    state: Any,
    train_step: Callable[..., Any],
    seating: Seating,
    plan: Plan,
    means: Means,
    console: Console,
) -> list[Outcome]:
    """The loop over runs that are ready, within their logs and bars."""
    with ExitStack() as stack:
        bars = stack.enter_context(TrainingBars(console))
        stop = stack.enter_context(Stop().watch())
        stack.enter_context(processes.loss_explained())
        learners = [_learner(each, plan, means, bars, stack) for each in begun]
        final = fit(
            state,
            learners,
            train_step=train_step,
            stop=stop,
            seating=seating,
            agree=_agreement(begun[0].assignment.experiment.fit.log_every),
        )
    return [
        _ended(each, int(one.step), console)
        for each, one in zip(begun, final, strict=True)
    ]


def _learner(
    begun: Begun, plan: Plan, means: Means, bars: TrainingBars, stack: ExitStack
) -> Learner:
    """A run as the loop sees it; what it opens is closed with the stack."""
    run, experiment = begun.assignment.run, begun.assignment.experiment
    split, spec = begun.assignment.split, experiment.optimizer
    is_silent = not processes.is_first()
    log = stack.enter_context(RunLog(run, start=begun.start, is_silent=is_silent))
    show = bars.add(run.name, total=spec.total_steps, start=begun.start)

    def save(state: TrainState, progress: Progress) -> None:
        if processes.is_first():
            saved, rest = to_items(state)
            begun.checkpoints.save(
                int(state.step),
                variables=saved,
                optimizer=rest,
                meta=asdict(progress),
                score=progress.score,
            )

    def emit(record: dict[str, Any]) -> None:
        log.write(record)
        show(record)
        if record["kind"] == "val" and processes.is_first():
            _draw(run)

    return Learner(
        start=begun.start,
        batches=begun.stream,
        batch_size=experiment.data.batch_size or 1,
        put=placing(experiment, begun.mesh, parallel=means.parallel),
        settings=experiment.fit,
        optimizer=spec,
        validate=_validation(experiment, plan, split, begun.mesh, means, log),
        save=save,
        emit=emit,
        report_failure=lambda step, batch: _keep_failure(run, step, batch, split),
        progress=begun.progress,
    )


def _ended(begun: Begun, step: int, console: Console) -> Outcome:
    """Close what a run had open, and say how far it came."""
    begun.stream.close()
    begun.checkpoints.close()
    run, experiment = begun.assignment.run, begun.assignment.experiment
    total, patience = experiment.optimizer.total_steps, experiment.fit.stop_patience
    is_over = begun.progress.stopping.is_out(patience)
    if is_over and step < total:
        console.print(
            f"{run.name}: ended early at step {step}: fit.monitor, the validation "
            f"{experiment.fit.monitor}, was no better for {patience} looks"
        )
    return Outcome(step, step >= total or is_over, begun.grafted)


def _batch_part(experiment: Experiment) -> int:
    """Samples that pass through the network together, over all devices of a run."""
    batch_size = experiment.data.batch_size or 1
    num_parts = experiment.optimizer.accumulate
    if batch_size % num_parts:
        raise ValueError(
            f"data.batch_size {batch_size} does not divide into optimizer.accumulate "
            f"{num_parts} parts; choose a multiple of it"
        )
    return batch_size // num_parts


def _step(
    experiment: Experiment, plan: Plan, mesh: Mesh, augment: Callable[..., Any]
) -> Callable[..., Any]:
    """The update of a run, before it is compiled for its devices."""
    return make_train_step(
        model=experiment.model,
        loss=experiment.loss,
        augment=augment,
        optimizer=experiment.optimizer.transformation(),
        regions=plan.regions,
        seed=experiment.seed,
        accumulate=experiment.optimizer.accumulate,
        ema_decay=experiment.optimizer.ema_decay,
        recompute_norms=sharding.is_cpu(mesh),
        convolutions=experiment.convolutions,
    )


def _train_step(
    run: Path, experiment: Experiment, plan: Plan, mesh: Mesh, means: Means
) -> Callable[..., Any]:
    augment = sharding.samplewise(experiment.augment, mesh, parallel=means.parallel)
    compiled = sharding.parallelise(
        _step(experiment, plan, mesh, augment),
        mesh,
        parallel=means.parallel,
        is_deterministic=means.is_deterministic,
    )
    if not means.profile_steps or not processes.is_first():
        return compiled
    return profiled(compiled, folder=run / "profile", num_steps=means.profile_steps)


def _validation(
    experiment: Experiment,
    plan: Plan,
    split: Split,
    mesh: Mesh,
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
    devices = list(mesh.local_mesh.devices.flat)
    return validation(
        sharding.compile_for(look, mesh, is_deterministic=means.is_deterministic),
        lambda: patch_stream(threads, split.val, "val", experiment.fit.num_val_batches),
        put=lambda batch: sharding.put_batch(batch, mesh),
        regions=tuple(name for name, _ in plan.regions),
        batch_size=experiment.data.batch_size or 1,
        show=lambda image, step: log.show("val/image_labels_prediction", image, step),
        volume_dice=volume_dice(experiment, store, whole, devices) if whole else None,
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
