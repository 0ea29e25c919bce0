"""What changes from one training step to the next."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Arrays only; random keys are derived from the seed and `step`.

    Attributes:
      step: number of updates done; int32 scalar.
      variables: `params` and, for batch norm, `batch_stats`.
      opt_state: state of the optimiser.
    """

    step: Any
    variables: Any
    opt_state: Any


def initial_state(
    variables: Any, optimizer: optax.GradientTransformation
) -> TrainState:
    """State before the first update.

    Args:
      variables: from `model.init` or from `surgery.graft`.
      optimizer: from `Optimizer.transformation`.
    """
    # own copies: a state is donated to its first step
    variables = jax.tree.map(jnp.array, variables)
    opt_state = optimizer.init(variables["params"])
    return TrainState(jnp.zeros((), jnp.int32), variables, opt_state)
