"""How parameter values change: optimiser, learning-rate schedule, clipping."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import optax


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

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.num_steps <= self.warmup_steps:
            raise ValueError(
                f"optimizer.num_steps is {self.num_steps}, which leaves nothing after "
                f"{self.warmup_steps} warm-up steps; lower optimizer.warmup_steps"
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

    def transformation(self) -> optax.GradientTransformation:
        """The same as an optax chain."""
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
