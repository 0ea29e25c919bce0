"""Whether saved variables are those of a network (fault 45)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.surgery.paths import flatten
from bmjax.surgery.report import mismatch_table, shape_text


def require_fit(
    where: Path, experiment: Experiment, plan: Plan, variables: Mapping[str, Any]
) -> None:
    """Refuse variables that are not those of a network; nothing is computed.

    Args:
      where: run folder or file that holds them, for the message.
      experiment: its model.
      plan: its input.
      variables: parameters and model statistics.

    Raises:
      ValueError: lists what is missing, what is too much and what has another shape.
    """
    size = experiment.data.patch_size or plan.patch_size
    image = jax.ShapeDtypeStruct((1, *size, len(plan.channels)), np.float32)
    init = experiment.model.init
    needed = _shapes(jax.eval_shape(init, jax.random.key(0), image))
    found = _shapes(variables)
    rows = [
        (name, needed.get(name, "none"), found.get(name, "none"))
        for name in sorted({*needed, *found})
        if needed.get(name) != found.get(name)
    ]
    if rows:
        table = mismatch_table(rows, head=("path", "network needs", "file has"))
        network = type(experiment.model).__name__
        raise ValueError(
            f"{where}: {len(rows)} tensors are not those of its {network}:\n{table}\n"
            "Use the experiment.json and plan.json that it was trained with; `bmjax "
            "graft` carries parameters over to another network"
        )


def _shapes(variables: Mapping[str, Any]) -> dict[str, str]:
    """Shape of each tensor in words, by its path."""
    leaves = flatten({**variables})
    return {name: shape_text(leaf.shape) for name, leaf in leaves.items()}
