"""The doors train and preview: the rooms are wired together here."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from bmjax import processes, report, sharding
from bmjax.data.pipeline import batches
from bmjax.data.soundness import require_regions
from bmjax.data.splits import Split, split_cases
from bmjax.data.store import Store
from bmjax.evaluation import Evaluation, evaluate
from bmjax.experiment import Experiment
from bmjax.feeding import variation
from bmjax.prediction import predict
from bmjax.runs import opened
from bmjax.sharding import Parallel
from bmjax.surgery.graft import GraftReport
from bmjax.trainer import Means, Origin, train_run
from bmjax.tuning import with_convolutions


@dataclass(frozen=True)
class Trained:
    """What a call of `train` did.

    Attributes:
      run: the run folder.
      step: number of updates done.
      is_finished: false where the run was asked to stop early.
      validation: whole-volume scores of the held-out cases, once finished.
      grafted: what became of each parameter, where the run had an origin.
    """

    run: Path
    step: int
    is_finished: bool
    validation: Evaluation | None = None
    grafted: GraftReport | None = None


def train(
    experiment: Experiment,
    *,
    workdir: str | Path,
    origin: Origin | None = None,
    parallel: Parallel = "jit",
    num_devices: int | None = None,
    deterministic: bool = False,
    profile_steps: int = 0,
    time_convolutions: bool = False,
    override: bool = False,
    console: Console | None = None,
) -> Trained:
    """Train, or go on with, one run; the folder holds all that is known of it.

    Args:
      experiment: what to run; fields left None are taken from the store's plan.
      workdir: run folder. A run that was interrupted goes on where it was saved.
      origin: another run whose parameters to begin with.
      parallel: `jit` or `pmap`, the same result.
      num_devices: how many devices share each batch; None takes as many as the run
        began with, or all, of the parts of a CPU as many as divide the batch.
      deterministic: only algorithms that give the same bytes each time, on GPUs too.
      profile_steps: steps to trace into RUN/profile.
      time_convolutions: before a run begins, find the fastest algorithm of each
        convolution on this CPU, and keep it with the experiment.
      override: go on although the experiment or the data changed.
      console: where progress is shown; nothing is shown if None.

    Raises:
      ValueError: the folder holds a run of another experiment.
      NonFiniteLossError: the loss became NaN or infinite.
      PeerLostError: another process of the run is gone.
    """
    sharding.require_platform()
    run = Path(workdir)
    console = console or Console(quiet=True)
    if experiment.data.store is None:
        raise ValueError("data.store is not set; give --data.store STORE")
    store = Store(Path(experiment.data.store))
    experiment = experiment.resolve(store.plan)
    parts = _split(experiment, store)
    experiment = with_convolutions(
        run,
        experiment,
        num_channels=len(store.plan.channels),
        num_devices=num_devices,
        is_timed=time_convolutions,
        console=console,
    )
    means = Means(
        parallel=parallel,
        num_devices=num_devices,
        is_deterministic=deterministic,
        profile_steps=profile_steps,
    )
    if not processes.is_first():
        console = Console(quiet=True)
    with opened(
        run, experiment, store=store, split=parts, override=override
    ) as changes:
        for line in changes:
            console.print(f"{run.name}: {line}", markup=False, soft_wrap=True)
        done = train_run(
            run,
            experiment,
            plan=store.plan,
            split=parts,
            origin=origin,
            means=means,
            console=console,
        )
        result = Trained(run, done.step, done.is_finished, grafted=done.grafted)
        if not done.is_finished or not processes.is_first():
            return result
        allow = experiment.packages()
        validation = _validate_whole(run, parts, store, console, allow)
    return replace(result, validation=validation)


def preview(experiment: Experiment, *, out: str | Path, num_samples: int = 12) -> Path:
    """Draw the first training patches, as the network will see them.

    Args:
      experiment: fields left None are taken from the store's plan.
      out: picture to write.
      num_samples: patches, one row each.
    """
    if experiment.data.store is None:
        raise ValueError("data.store is not set; give --data.store STORE")
    store = Store(Path(experiment.data.store))
    experiment = experiment.resolve(store.plan)
    size, ids = experiment.data.patch_size or (), _split(experiment, store).train
    batch_size = experiment.data.batch_size or 1
    place = jax.jit(partial(experiment.augment.place, size=size))
    vary = jax.jit(experiment.augment)
    stream = batches(
        experiment.data,
        ids,
        seed=experiment.seed,
        stream="train",
        num_steps=-(-num_samples // batch_size),
        variation=variation(experiment),
    )
    tiles: list[report.Tile] = []
    for step, batch in enumerate(stream):
        # the numbers of the training step itself
        key, _ = jax.random.split(
            jax.random.fold_in(jax.random.key(experiment.seed), step)
        )
        cases, affine = batch.pop("case"), batch.get("affine")
        placed = place(batch)
        keys = sharding.sample_keys(key, batch_size)
        image, labels = vary(placed["image"], placed["labels"], keys=keys)
        for slot, case in enumerate(cases):
            is_moved = affine is not None and bool(
                (affine[slot, :, :-1] != np.eye(len(size))).any()
            )
            tiles.append(
                report.Tile(
                    title=f"{ids[case]}\n{'moved' if is_moved else 'not moved'}",
                    image=np.asarray(image[slot]),
                    labels=np.asarray(labels[slot]),
                )
            )
    return report.write_sheet(
        Path(out),
        tiles[:num_samples],
        channels=store.plan.channels,
        label_values=dict(store.plan.labels),
        title=f"Training patches {' x '.join(map(str, size))}, seed {experiment.seed}",
    )


def _split(experiment: Experiment, store: Store) -> Split:
    parts = split_cases(
        store.patients,
        num_folds=experiment.data.num_folds,
        fold=experiment.data.fold,
        held_out=experiment.data.held_out,
    )
    require_regions(
        {
            case: {region: len(v) for region, v in store.case(case).voxels.items()}
            for case in parts.train
        },
        {region: (region,) for region, _ in store.plan.regions},
    )
    return parts


def _validate_whole(
    run: Path,
    parts: Split,
    store: Store,
    console: Console,
    allow: tuple[str, ...],
) -> Evaluation | None:
    """Predict the held-out cases whole, and compare them with their labels."""
    cases = [store.case(case_id).source for case_id in parts.val]
    out = run / "validation"
    console.print(f"{run.name}: predicting {len(cases)} held-out cases whole")
    predict(run, images=cases, out=out, overwrite=True, allow=allow)
    return evaluate(out, cases, out=out)
