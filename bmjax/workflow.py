"""The doors train, train_folds and preview: the rooms are wired together here."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from bmjax import processes, report, sharding, trainer
from bmjax.beginning import Assignment
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
from bmjax.trainer import Means, train_run
from bmjax.transplant import Origin
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
    means = Means(
        parallel=parallel,
        num_devices=num_devices,
        is_deterministic=deterministic,
        profile_steps=profile_steps,
    )
    console = console or Console(quiet=True)
    store, experiment = _resolved(experiment)
    run, split = Path(workdir), _split(experiment, store)
    experiment = with_convolutions(
        run,
        experiment,
        num_channels=len(store.plan.channels),
        num_devices=num_devices,
        is_timed=time_convolutions,
        console=console,
    )
    assignments = [Assignment(run, experiment, split)]
    return _train(assignments, store, origin, means, console, override)[0]


def train_folds(
    experiment: Experiment,
    *,
    workdir: str | Path,
    folds: Sequence[int],
    origin: Origin | None = None,
    num_devices: int | None = None,
    deterministic: bool = False,
    time_convolutions: bool = False,
    override: bool = False,
    console: Console | None = None,
) -> list[Trained]:
    """Train several folds side by side, or go on with them, in one program.

    Each fold has a share of the devices and a run folder of its own, WORKDIR/fold_0 and
    so on, as if it had been trained alone: with one device each, to the byte.

    Args:
      experiment: what to run; its `data.num_folds` counts, `data.fold` does not.
      workdir: folder of the run folders.
      folds: which ones, from 0.
      origin: another run whose parameters each begins with.
      num_devices: of all together, a multiple of the number of folds; None takes as
        many as the runs began with, or all.
      deterministic: as for `train`.
      time_convolutions: as for `train`; all take the choice of the first.
      override: as for `train`.
      console: where progress is shown; nothing is shown if None.

    Raises:
      ValueError: there are fewer devices than folds, the cases held out are named and
        not those of a fold, or a folder holds a run of another experiment.
      NonFiniteLossError: the loss of a fold became NaN or infinite; the others have
        gone on to their ends.
    """
    sharding.require_platform()
    if not folds or len(set(folds)) < len(folds):
        raise ValueError(f"folds {list(folds)}: name each fold once, such as 0 1 2 3 4")
    if experiment.data.held_out:
        raise ValueError(
            "data.held_out names the cases to hold out, and not the folds; "
            "leave it empty, or train one run without folds"
        )
    if jax.process_count() > 1:
        raise ValueError(
            "folds side by side are for one process; of several processes, each can "
            "train its own (launch/folds.sh)"
        )
    console = console or Console(quiet=True)
    store, experiment = _resolved(experiment)
    paths = {fold: Path(workdir) / f"fold_{fold}" for fold in folds}
    experiment = with_convolutions(
        paths[folds[0]],
        experiment,
        num_channels=len(store.plan.channels),
        num_devices=1,
        is_timed=time_convolutions,
        console=console,
    )
    each = {fold: experiment.replace({"data.fold": fold}) for fold in folds}
    assignments = [
        Assignment(paths[fold], one, _split(one, store)) for fold, one in each.items()
    ]
    means = Means(num_devices=num_devices, is_deterministic=deterministic)
    return _train(assignments, store, origin, means, console, override)


def _resolved(experiment: Experiment) -> tuple[Store, Experiment]:
    """The store of an experiment, whose plan fills the fields left open."""
    if experiment.data.store is None:
        raise ValueError("data.store is not set; give --data.store STORE")
    store = Store(Path(experiment.data.store))
    return store, experiment.resolve(store.plan)


def _train(
    assignments: Sequence[Assignment],
    store: Store,
    origin: Origin | None,
    means: Means,
    console: Console,
    override: bool,
) -> list[Trained]:
    """Train in opened folders, then predict the held-out cases whole."""
    if not processes.is_first():
        console = Console(quiet=True)
    shared = {"plan": store.plan, "origin": origin, "means": means, "console": console}
    with ExitStack() as stack:
        for one in assignments:
            changes = stack.enter_context(
                opened(
                    one.run,
                    one.experiment,
                    store=store,
                    split=one.split,
                    override=override,
                )
            )
            for line in changes:
                console.print(f"{one.run.name}: {line}", markup=False, soft_wrap=True)
        if len(assignments) == 1:
            outcomes = [train_run(assignments[0], **shared)]
        else:
            outcomes = trainer.train_folds(assignments, **shared)
        results = []
        for one, done in zip(assignments, outcomes, strict=True):
            validation = None
            if done.is_finished and processes.is_first():
                allow = one.experiment.packages()
                validation = _validate_whole(one.run, one.split, store, console, allow)
            results.append(
                Trained(one.run, done.step, done.is_finished, validation, done.grafted)
            )
    return results


def preview(experiment: Experiment, *, out: str | Path, num_samples: int = 12) -> Path:
    """Draw the first training patches, as the network will see them.

    Args:
      experiment: fields left None are taken from the store's plan.
      out: picture to write.
      num_samples: patches, one row each.
    """
    store, experiment = _resolved(experiment)
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
