"""One training: from a resolved experiment to the last checkpoint of its run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from bmjax import sharding
from bmjax.checkpoint import Checkpoints
from bmjax.data.pipeline import batches
from bmjax.data.splits import Split
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.runs import read_run, write_whole
from bmjax.sharding import Parallel
from bmjax.surgery.graft import GraftReport, graft
from bmjax.training import (
    RunLog,
    Stop,
    TrainingBar,
    TrainState,
    fit,
    initial_state,
    make_train_step,
    make_validation_step,
)
from bmjax.training.loop import Progress


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run's first parameters come from.

    Attributes:
      run: run folder to take parameters from.
      heads: draw the output layers anew, or keep those of the run.
      skip: regular expressions of parameter paths to draw anew.
    """

    run: Path
    heads: Literal["init", "keep"] = "init"
    skip: tuple[str, ...] = ()


def train_run(
    run: Path,
    experiment: Experiment,
    *,
    plan: Plan,
    split: Split,
    origin: Origin | None,
    parallel: Parallel,
    num_devices: int | None,
    console: Console,
) -> tuple[int, GraftReport | None]:
    """Begin or go on with a run, in a folder that is opened for it.

    Args:
      run: run folder.
      experiment: resolved.
      plan: of its store.
      split: cases to train and to validate on.
      origin: where the first parameters come from; drawn if None.
      parallel: how the devices share a batch.
      num_devices: how many; None takes all.
      console: where progress is shown.

    Returns:
      Number of updates done, and what became of each parameter of the origin.
    """
    mesh = sharding.data_mesh(jax.devices()[:num_devices])
    optimizer = experiment.optimizer.transformation()
    variables, grafted = _first_variables(experiment, plan, origin)
    if grafted is not None:
        write_whole(run / "graft.txt", f"{grafted}\n")
        console.print(f"{run.name}: {grafted.summary()}")
    checkpoints = Checkpoints(run / "checkpoints", keep_last=experiment.fit.keep_last)
    state = sharding.replicate(initial_state(variables, optimizer), mesh)
    state, progress = _resumed(checkpoints, state)
    start, total = int(state.step), experiment.optimizer.num_steps

    def save(state: TrainState, progress: Progress) -> None:
        checkpoints.save(
            int(state.step),
            variables=state.variables,
            optimizer={"step": state.step, "opt_state": state.opt_state},
            meta={"window": progress.window, "score": progress.score},
            score=progress.score,
        )

    step = make_train_step(
        model=experiment.model,
        loss=experiment.loss,
        augment=experiment.augment,
        optimizer=optimizer,
        regions=plan.regions,
        seed=experiment.seed,
    )
    bar = TrainingBar(console, total=total, start=start, title=run.name)
    with RunLog(run, start=start) as log, bar, Stop().watch() as stop:

        def emit(record: dict[str, Any]) -> None:
            log.write(record)
            bar.update(record)

        state = fit(
            state,
            batches(
                experiment.data,
                split.train,
                seed=experiment.seed,
                stream="train",
                num_steps=total,
                start=start,
            ),
            settings=experiment.fit,
            num_steps=total,
            train_step=sharding.parallelise(step, mesh, parallel=parallel),
            validate=_validation(experiment, plan, split.val),
            learning_rate=experiment.optimizer.learning_rate(),
            put=lambda batch: sharding.put_batch(batch, mesh, parallel=parallel),
            save=save,
            emit=emit,
            name_cases=lambda found: ", ".join(sorted({split.train[i] for i in found})),
            stop=stop,
            progress=progress,
        )
    checkpoints.close()
    return int(state.step), grafted


def _first_variables(
    experiment: Experiment, plan: Plan, origin: Origin | None
) -> tuple[Any, GraftReport | None]:
    """Fresh variables, or those of another run grafted into them."""
    size = experiment.data.patch_size or plan.patch_size
    image = jnp.zeros((1, *size, len(plan.channels)))
    variables = jax.jit(experiment.model.init)(jax.random.key(experiment.seed), image)
    if origin is None:
        return variables, None
    source = read_run(origin.run).variables
    return graft(variables, source, heads=origin.heads, skip=origin.skip)


def _resumed(
    checkpoints: Checkpoints, state: TrainState
) -> tuple[TrainState, Progress]:
    """The newest saved state, or the one given where nothing was saved yet."""
    step = checkpoints.latest()
    if step is None:
        return state, Progress()
    found = checkpoints.restore(
        step,
        variables=state.variables,
        optimizer={"step": state.step, "opt_state": state.opt_state},
    )
    state = TrainState(
        found.optimizer["step"], found.variables, found.optimizer["opt_state"]
    )
    return state, Progress(found.meta["score"], found.meta["window"])


def _validation(
    experiment: Experiment, plan: Plan, ids: tuple[str, ...]
) -> Callable[[TrainState], dict[str, Any]]:
    """Loss and pseudo-Dice (nnU-Net) on the same held-out patches each time."""
    look = make_validation_step(
        model=experiment.model, loss=experiment.loss, regions=plan.regions
    )
    names = [name for name, _ in plan.regions]

    def validate(state: TrainState) -> dict[str, Any]:
        found = [
            jax.device_get(look(state.variables, _arrays(batch)))
            for batch in batches(
                experiment.data,
                ids,
                seed=experiment.seed,
                stream="val",
                num_steps=experiment.fit.num_val_batches,
            )
        ]
        tp, fp, fn = (sum(x[kind] for x in found) for kind in ("tp", "fp", "fn"))
        # a region that is nowhere, neither in truth nor in prediction, agrees
        dice = np.where(tp + fp + fn > 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1), 1.0)
        return {
            "loss": float(np.mean([x["loss"] for x in found])),
            "pseudo_dice": dict(zip(names, dice.tolist(), strict=True)),
        }

    return validate


def _arrays(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(batch[name]) for name in ("image", "labels")}
