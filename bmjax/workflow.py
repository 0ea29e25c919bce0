"""The doors `train` and `predict`: where the rooms are wired together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from rich.console import Console

from bmjax import models
from bmjax.data.cases import Case, sort_cases
from bmjax.data.reading import Reading
from bmjax.data.soundness import require_regions
from bmjax.data.splits import Split, split_cases
from bmjax.data.store import Store
from bmjax.evaluation import Evaluation, evaluate
from bmjax.experiment import Experiment
from bmjax.inference import CaseResult, predict_cases
from bmjax.runs import opened, read_run
from bmjax.sharding import Parallel
from bmjax.surgery.graft import GraftReport
from bmjax.trainer import Origin, train_run

Tick = Callable[[int, int, str], None]


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
    console: Console | None = None,
) -> Trained:
    """Train, or go on with, one run; the folder holds all that is known of it.

    Args:
      experiment: what to run; fields left None are taken from the store's plan.
      workdir: run folder. A run that was interrupted goes on where it was saved.
      origin: another run whose parameters to begin with.
      parallel: `jit` or `pmap`, the same result.
      num_devices: how many devices share each batch; None takes all, of the parts of a
        CPU as many as divide the batch.
      console: where progress is shown; nothing is shown if None.

    Raises:
      ValueError: the folder holds a run of another experiment.
      NonFiniteLossError: the loss became NaN or infinite.
    """
    run = Path(workdir)
    console = console or Console(quiet=True)
    if experiment.data.store is None:
        raise ValueError("data.store is not set; give --data.store STORE")
    store = Store(Path(experiment.data.store))
    experiment = experiment.resolve(store.plan)
    parts = _split(experiment, store)
    with opened(run, experiment, plan=store.plan, split=parts):
        step, grafted = train_run(
            run,
            experiment,
            plan=store.plan,
            split=parts,
            origin=origin,
            parallel=parallel,
            num_devices=num_devices,
            console=console,
        )
        if step < experiment.optimizer.num_steps:
            return Trained(run, step, False, grafted=grafted)
        allow = experiment.packages()
        validation = _validate_whole(run, parts, store, console, allow)
    return Trained(run, step, True, validation, grafted)


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


def predict(
    run: str | Path,
    *,
    images: str | Path | Sequence[Case],
    out: str | Path,
    cases: Sequence[str] | None = None,
    checkpoint: str = "best",
    overwrite: bool = False,
    resample_to: str | None = None,
    zero_nonfinite: bool = False,
    allow_outside: bool = False,
    allow: tuple[str, ...] = (),
    progress: Tick | None = None,
) -> list[CaseResult]:
    """Write a label file, in the input's own geometry, for each case.

    Args:
      run: run folder.
      images: folder of cases, CSV manifest, or cases already found.
      out: folder for `CASE.nii.gz`.
      cases: ids of the cases wanted; None for all.
      checkpoint: `best` or `last`.
      overwrite: replace what another network or setting left in the folder.
      resample_to: channel on whose grid the others are resampled where they lie on
        another; the label file has that grid.
      zero_nonfinite: take NaN and infinite voxels for 0 instead of refusing them.
      allow_outside: follow links and paths that lead out of the folder of cases.
      allow: packages outside bmjax that a network of your own comes from.
      progress: called with cases done, cases in all, and the case at hand.

    Returns:
      One result per case; a failed case holds its error and the others are finished.
    """
    run = Path(run)
    found = read_run(run, checkpoint=checkpoint, allow=allow)
    unusable: dict[str, str] = {}
    if isinstance(images, str | Path):
        images, problems, _ = sort_cases(
            Path(images),
            channels=found.plan.channels,
            ids=cases,
            reading=Reading(resample_to=resample_to, zero_nonfinite=zero_nonfinite),
            allow_outside=allow_outside,
        )
        for problem in problems:
            before = unusable.get(problem.case)
            unusable[problem.case] = f"{before}\n{problem}" if before else str(problem)
    variables = jax.tree.map(jnp.asarray, found.variables)
    return predict_cases(
        Partial(_first_output(found.experiment.model), variables),
        images,
        found.plan,
        Path(out),
        settings=found.experiment.inference,
        unusable=unusable,
        overwrite=overwrite,
        devices=jax.devices(),
        progress=progress,
    )


@cache
def _first_output(model: models.Network) -> Callable[[Any, jax.Array], jax.Array]:
    def apply(variables: Any, image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, image, is_training=False)
        return outputs[0]

    return apply
