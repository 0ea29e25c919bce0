"""How parameter values change: optimiser, schedule, clipping, and what stays fixed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
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
      num_steps: length of the run [steps]; None counts in epochs.
      num_epochs: length of the run [epochs]; None counts in steps. 1000 epochs
        (nnU-Net) if both are None.
      epoch_steps: length of an epoch [steps] (nnU-Net: 250).
      schedule: shape of the decay after the warm-up.
      power: exponent of the polynomial decay.
      warmup_steps: linear rise from 0 [steps].
      hold_steps: the rate changes once in so many steps (250 = nnU-Net's epochs).
      restarts: steps at which warm-up and decay begin anew; the way to lengthen a run
        that has ended without changing the rates that it had.
      plateau_patience: validations without a better `fit.monitor` before all rates
        are multiplied by `plateau_factor`; None never does it.
      plateau_factor: that factor (Keras: 0.1).
      plateau_min_lr: the rate at the peak of the schedule falls no lower than this.
      accumulate: parts of a batch that pass through the network one after the other,
        for a device too small for the whole batch. Losses and norms that pool over
        the batch see one part.
      ema_decay: the network that is validated, saved and predicted with is a running
        mean of the parameters, of this decay (less in the first steps); None for the
        parameters themselves.
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
    num_steps: int | None = None
    num_epochs: int | None = None
    epoch_steps: int = 250
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    power: float = 0.9
    warmup_steps: int = 0
    hold_steps: int = 1
    restarts: tuple[int, ...] = ()
    plateau_patience: int | None = None
    plateau_factor: float = 0.1
    plateau_min_lr: float = 0.0
    accumulate: int = 1
    ema_decay: float | None = None
    momentum: float = 0.99
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 3e-5
    clip_norm: float | None = 12.0
    freeze: tuple[str, ...] = ()
    lr_scale: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.num_steps is not None and self.num_epochs is not None:
            raise ValueError(
                f"optimizer.num_steps is {self.num_steps} and optimizer.num_epochs "
                f"{self.num_epochs}; give one of them and set the other None"
            )
        bounds = (0, *self.restarts, self.total_steps)
        for start, stop in pairwise(bounds):
            if stop - start <= self.warmup_steps:
                raise ValueError(
                    f"optimizer: the schedule from step {start} to {stop} has nothing "
                    f"after {self.warmup_steps} warm-up steps; lower "
                    "optimizer.warmup_steps, raise optimizer.num_steps, or give "
                    "optimizer.restarts in rising order"
                )
        factor, decay = self.plateau_factor, self.ema_decay
        for name, is_good, expected in (
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("plateau_factor", 0 < factor < 1, "a number between 0 and 1"),
            ("ema_decay", decay is None or 0 < decay < 1, "one between 0 and 1"),
        ):
            if not is_good:
                value = getattr(self, name)
                raise ValueError(f"optimizer.{name} is {value}; expected {expected}")
        for pattern, factor in self.lr_scale:
            if not 0 < factor < math.inf:
                raise ValueError(
                    f"optimizer.lr_scale is {factor} for '{pattern}'; expected a "
                    "positive number. optimizer.freeze holds parameters fixed"
                )

    @property
    def total_steps(self) -> int:
        """Length of the run [steps]."""
        if self.num_steps is not None:
            return self.num_steps
        return (self.num_epochs or 1000) * self.epoch_steps

    def learning_rate(self) -> Callable[[Any], Any]:
        """Learning rate as a function of the number of updates done."""
        bounds = (0, *self.restarts, self.total_steps)
        pieces = [self._piece(stop - start) for start, stop in pairwise(bounds)]
        whole = pieces[0]
        if self.restarts:
            whole = optax.join_schedules(pieces, list(self.restarts))
        hold = self.hold_steps
        return lambda count: whole(jnp.asarray(count) // hold * hold)

    def _piece(self, num_steps: int) -> optax.Schedule:
        """One warm-up and decay."""
        decay_steps = num_steps - self.warmup_steps
        match self.schedule:
            case "poly":
                decay = optax.polynomial_schedule(
                    self.peak_lr, 0.0, self.power, decay_steps
                )
            case "cosine":
                decay = optax.cosine_decay_schedule(self.peak_lr, decay_steps)
            case "constant":
                decay = optax.constant_schedule(self.peak_lr)
        if not self.warmup_steps:
            return decay
        rise = optax.linear_schedule(0.0, self.peak_lr, self.warmup_steps)
        return optax.join_schedules([rise, decay], [self.warmup_steps])

    def after_plateau(self, lr_factor: float) -> float:
        """The factor of all rates once another plateau was met."""
        floor = self.plateau_min_lr / self.peak_lr
        return max(lr_factor * self.plateau_factor, min(floor, lr_factor))

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
