"""One training: from a resolved experiment to the last checkpoint of its run."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from bmjax import sharding
from bmjax.checkpoint import Checkpoints
from bmjax.data.pipeline import Variation, batches
from bmjax.data.splits import Split
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.runs import write_whole
from bmjax.sharding import Parallel
from bmjax.surgery import GraftReport
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
from bmjax.transplant import Origin, transplant


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
      Number of updates done, and what became of each parameter of the origin, where
      this call began the run.

    Raises:
      ValueError: the run was begun from another origin; the origin does not fit.
    """
    batch_size = experiment.data.batch_size or 1
    mesh = sharding.data_mesh(sharding.devices_for(batch_size, num_devices))
    optimizer = experiment.optimizer.transformation()
    checkpoints = Checkpoints(run / "checkpoints", keep_last=experiment.fit.keep_last)
    variables, grafted = _drawn(experiment, plan), None
    if checkpoints.latest() is not None:
        _require_same_origin(run, origin)
    elif origin is None:
        for name in ("origin.json", "graft.txt"):
            (run / name).unlink(missing_ok=True)  # of a try that saved nothing
    else:
        variables, grafted = transplant(
            variables, model=experiment.model, plan=plan, origin=origin
        )
        write_whole(run / "origin.json", json.dumps(origin.to_dict(), indent=1))
        write_whole(run / "graft.txt", f"{grafted}\n")
        for line in (*grafted.remarks, grafted.summary()):
            console.print(f"{run.name}: {line}", markup=False, soft_wrap=True)
    factors = jax.tree.leaves(experiment.optimizer.lr_factors(variables["params"]))
    if 0 in factors:
        console.print(
            f"{run.name}: {factors.count(0)} of {len(factors)} tensors are frozen"
        )
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
        augment=(
            experiment.augment
            if parallel == "pmap"
            else sharding.samplewise(experiment.augment, mesh)
        ),
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
                variation=variation(experiment),
            ),
            settings=experiment.fit,
            num_steps=total,
            train_step=sharding.parallelise(step, mesh, parallel=parallel),
            validate=_validation(experiment, plan, split.val),
            learning_rate=experiment.optimizer.learning_rate(),
            put=_placing(experiment, mesh, parallel),
            save=save,
            emit=emit,
            name_cases=lambda found: ", ".join(sorted({split.train[i] for i in found})),
            stop=stop,
            progress=progress,
        )
    checkpoints.close()
    return int(state.step), grafted


def _drawn(experiment: Experiment, plan: Plan) -> Any:
    """Fresh variables of the experiment's network."""
    size = experiment.data.patch_size or plan.patch_size
    image = jnp.zeros((1, *size, len(plan.channels)))
    return jax.jit(experiment.model.init)(jax.random.key(experiment.seed), image)


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
    found = checkpoints.restore(
        step,
        variables=state.variables,
        optimizer={"step": state.step, "opt_state": state.opt_state},
    )
    state = TrainState(
        found.optimizer["step"], found.variables, found.optimizer["opt_state"]
    )
    return state, Progress(found.meta["score"], found.meta["window"])


def variation(experiment: Experiment) -> Variation:
    """What the pipeline has to send along for the experiment's augmentation."""
    augment = experiment.augment
    added = augment.new_lesions
    return Variation(
        spatial=augment.spatial,
        donor_size=added.paste_size if added.p_pasted > 0 else 0,
        donor_max_mm3=added.paste_max_mm3,
    )


def _placing(
    experiment: Experiment, mesh: Mesh, parallel: Parallel
) -> Callable[[Any], Any]:
    """From a host batch, of patches or of boxes around them, to patches on devices.

    A program of its own, so that the two sizes compile one training step.
    """
    size = experiment.data.patch_size or ()
    place = sharding.parallelise_samples(
        partial(experiment.augment.place, size=size), mesh, parallel=parallel
    )

    def put(batch: Any) -> Any:
        arrays = sharding.put_batch(batch, mesh, parallel=parallel)
        return arrays if set(arrays) == {"image", "labels"} else place(arrays)

    return put


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
