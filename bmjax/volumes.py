"""Held-out cases predicted whole while a network trains: the Dice that counts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from bmjax.data.store import Store
from bmjax.experiment import Experiment
from bmjax.inference import paint, sliding_logits
from bmjax.metrics.overlap import count, dice
from bmjax.models import first_output
from bmjax.training import TrainState


def volume_dice(
    experiment: Experiment, store: Store, cases: Sequence[str], devices: Sequence[Any]
) -> Callable[[TrainState], dict[str, float]]:
    """Build `look(state)`: Dice of each region, the mean over whole cases.

    Cases are predicted on the store's grid, without mirrors. A region that is in
    neither truth nor prediction counts 1, as in the pseudo-Dice. Every process of a run
    computes the same numbers, with its own devices.

    Args:
      experiment: resolved.
      store: where the cases are.
      cases: ids, with labels.
      devices: of this process, to predict with.

    Raises:
      ValueError: a case has no labels.
    """
    plan = store.plan
    settings = replace(experiment.inference, flips="none")
    apply = first_output(experiment.model)

    def look(state: TrainState) -> dict[str, float]:
        network = Partial(apply, jax.device_get(state.averaged))
        found: dict[str, list[float]] = {name: [] for name, _ in plan.regions}
        for case_id in cases:
            case = store.case(case_id)
            if case.labels is None:
                raise ValueError(f"{case_id}: is held out, but has no labels")
            logits = sliding_logits(
                network,
                np.asarray(case.image, np.float32),
                window=experiment.data.patch_size or plan.patch_size,
                num_classes=plan.num_classes,
                settings=settings,
                devices=devices,
            )
            labels = paint(logits, plan, threshold=0)
            for name, values in plan.regions:
                counts = count(np.isin(labels, values), np.isin(case.labels, values))
                found[name].append(float(dice(counts, both_empty=1.0)))
        return {name: float(np.mean(values)) for name, values in found.items()}

    return look
