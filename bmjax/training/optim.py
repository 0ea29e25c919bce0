"""How parameter values change: optimiser, schedule, clipping, and what stays fixed."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from bmjax.surgery import label_paths
from bmjax.typing import Params


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimiser and schedule; the defaults are nnU-Net's.

    Weight decay is added to the gradient after clipping, before momentum (coupled L2),
    as in torch's SGD and Adam; `adamw` decouples it.

    Attributes:
      name: update rule.
      peak_lr: largest learning rate.
      num_steps: length of the schedule [steps].
      schedule: shape of the decay after the warm-up.
      power: exponent of the polynomial decay.
      warmup_steps: linear rise from 0 [steps].
      hold_steps: the rate changes once in so many steps (250 = nnU-Net's epochs).
      momentum: of SGD with Nesterov's correction.
      betas: decay rates of Adam's two moments.
      eps: Adam's denominator floor.
      weight_decay: coefficient of the L2 penalty.
      clip_norm: largest global norm of the gradient; None for no limit.
      freeze: patterns of parameter paths that stay as they are, such as `encoder/.*`;
        the optimiser keeps no state of them, and they do not count in the norm.
        Running statistics of batch norms are no parameters and go on.
      lr_scale: pairs of such a pattern and the factor of the learning rate there; of
        several that match the first counts. 1 everywhere else.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    peak_lr: float = 1e-2
    num_steps: int = 250_000
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = 0.9
    warmup_steps: int = 0
    hold_steps: int = 1
    momentum: float = 0.99
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 3e-5
    clip_norm: float | None = 12.0
    freeze: tuple[str, ...] = ()
    lr_scale: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.num_steps <= self.warmup_steps:
            raise ValueError(
                f"optimizer.num_steps is {self.num_steps}, which leaves nothing after "
                f"{self.warmup_steps} warm-up steps; lower optimizer.warmup_steps"
            )
        for pattern, factor in self.lr_scale:
            if not 0 < factor < math.inf:
                raise ValueError(
                    f"optimizer.lr_scale is {factor} for '{pattern}'; expected a "
                    "positive number. optimizer.freeze holds parameters fixed"
                )

    def learning_rate(self) -> optax.Schedule:
        """Learning rate as a function of the number of updates done."""
        decay_steps = self.num_steps - self.warmup_steps
        match self.schedule:
            case "poly":
                decay = optax.polynomial_schedule(
                    self.peak_lr, 0.0, self.power, decay_steps
                )
            case "cosine":
                decay = optax.cosine_decay_schedule(self.peak_lr, decay_steps)
            case "constant":
                decay = optax.constant_schedule(self.peak_lr)
        if self.warmup_steps:
            rise = optax.linear_schedule(0.0, self.peak_lr, self.warmup_steps)
            decay = optax.join_schedules([rise, decay], [self.warmup_steps])
        hold = self.hold_steps
        return lambda count: decay(jnp.asarray(count) // hold * hold)

    def lr_factors(self, params: Params) -> dict[str, Any]:
        """Factor of the learning rate of each parameter, 0 where it is frozen.

        Raises:
          ValueError: a pattern matches no parameter, or all of them are frozen.
        """
        frozen = tuple((pattern, 0.0) for pattern in self.freeze)
        factors = label_paths(params, (*frozen, *self.lr_scale), default=1.0)
        if not any(jax.tree.leaves(factors)):
            raise ValueError(
                f"optimizer.freeze {self.freeze} leaves no parameter to train"
            )
        return factors

    def transformation(self) -> optax.GradientTransformation:
        """The same as an optax chain."""
        if not (self.freeze or self.lr_scale):
            return self._of_all()

        def is_frozen(params: Params) -> Any:
            return jax.tree.map(lambda factor: factor == 0, self.lr_factors(params))

        def is_trained(params: Params) -> Any:
            return jax.tree.map(lambda factor: factor > 0, self.lr_factors(params))

        def scale(updates: Any, params: Any) -> Any:
            return jax.tree.map(lambda u, f: f * u, updates, self.lr_factors(updates))

        return optax.chain(
            optax.masked(optax.set_to_zero(), is_frozen),
            optax.masked(self._of_all(), is_trained),
            optax.stateless(scale),
        )

    def _of_all(self) -> optax.GradientTransformation:
        clip = optax.identity()
        if self.clip_norm is not None:
            clip = optax.clip_by_global_norm(self.clip_norm)
        coupled = decoupled = optax.identity()
        if self.name == "adamw":
            decoupled = optax.add_decayed_weights(self.weight_decay)
        else:
            coupled = optax.add_decayed_weights(self.weight_decay)
        if self.name == "sgd":
            direction = optax.trace(self.momentum, nesterov=True)
        else:
            direction = optax.scale_by_adam(*self.betas, eps=self.eps)
        rate = optax.scale_by_learning_rate(self.learning_rate())
        return optax.chain(clip, coupled, direction, decoupled, rate)
