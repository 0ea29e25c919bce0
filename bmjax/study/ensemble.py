"""Predicts with one run, or with the mean of several.

The logits of the networks are averaged before they are resampled and thresholded, as
`nnUNetv2_predict -f 0 1 2 3 4` does.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bmjax import models
from bmjax.data.cases import Case
from bmjax.inference import CaseResult, predict_cases
from bmjax.runs import read_run

Tick = Callable[[int, int, str], None]


def predict_together(
    runs: Sequence[Path],
    cases: Sequence[Case],
    out: Path,
    *,
    checkpoint: str = "last",
    allow: tuple[str, ...] = (),
    progress: Tick | None = None,
) -> list[CaseResult]:
    """Write OUT/CASE.nii.gz for each case, by all these runs together.

    Args:
      runs: run folders of one recipe, such as the folds of a cross-validation.
      cases: what to predict.
      out: folder of the label files; goes on with what it holds of the same networks.
      checkpoint: `best` or `last`, of each run.
      allow: packages outside bmjax that the network comes from.
      progress: called with cases done, cases in all, and the case at hand.

    Raises:
      ValueError: the runs differ in network or plan.
    """
    found = [read_run(run, checkpoint=checkpoint, allow=allow) for run in runs]
    first = found[0]
    for run, other in zip(runs, found, strict=True):
        for name, ours, theirs in (
            ("network", first.experiment.model, other.experiment.model),
            ("plan", first.plan.digest(), other.plan.digest()),
        ):
            if ours != theirs:
                raise ValueError(
                    f"{run}: has another {name} than {runs[0]}; only runs of one "
                    "recipe on one store predict together"
                )
    stacked = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(run.variables for run in found)
    )
    return predict_cases(
        Partial(_mean_output(first.experiment.model), stacked),
        cases,
        first.plan,
        out,
        settings=first.experiment.inference,
        devices=jax.local_devices(),
        progress=progress,
    )


@cache
def _mean_output(model: models.Network) -> Callable[[Any, jax.Array], jax.Array]:
    def apply(stacked: Any, image: jax.Array) -> jax.Array:
        def one(variables: Any) -> jax.Array:
            outputs: Any = model.apply(variables, image, is_training=False)
            return outputs[0]

        return jax.lax.map(one, stacked).mean(0)

    return apply
