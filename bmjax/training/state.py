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
      lr_factor: factor of all learning rates, lowered at a plateau; float32 scalar.
      ema: running mean of `params`; None where none is kept.
    """

    step: Any
    variables: Any
    opt_state: Any
    lr_factor: Any = 1.0
    ema: Any = None

    @property
    def averaged(self) -> Any:
        """The variables to predict with: of the running mean, where one is kept."""
        if self.ema is None:
            return self.variables
        return {**self.variables, "params": self.ema}


def initial_state(
    variables: Any,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float | None = None,
) -> TrainState:
    """State before the first update.

    Args:
      variables: from `model.init` or from `surgery.graft`.
      optimizer: from `Optimizer.transformation`.
      ema_decay: whether a running mean of the parameters is kept.
    """
    # own copies: a state is donated to its first step
    variables = jax.tree.map(jnp.array, variables)
    opt_state = optimizer.init(variables["params"])
    ema = None
    if ema_decay is not None:
        ema = jax.tree.map(jnp.array, variables["params"])
    step, lr_factor = jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32)
    return TrainState(step, variables, opt_state, lr_factor, ema)


def to_items(state: TrainState) -> tuple[Any, dict[str, Any]]:
    """What a checkpoint holds: the variables to predict with, and the rest.

    `lr_factor` is not among them: `Progress` has it.
    """
    rest = {"step": state.step, "opt_state": state.opt_state}
    if state.ema is not None:
        rest["params"] = state.variables["params"]
    return state.averaged, rest


def from_items(variables: Any, rest: dict[str, Any], *, lr_factor: float) -> TrainState:
    """The state whose items a checkpoint held."""
    factor = jnp.asarray(lr_factor, jnp.float32)
    if "params" not in rest:
        return TrainState(rest["step"], variables, rest["opt_state"], factor)
    raw = {**variables, "params": rest["params"]}
    return TrainState(rest["step"], raw, rest["opt_state"], factor, variables["params"])
