"""Trains one network of the 2-D study, epoch by epoch, with the published callbacks.

The rate falls at a plateau of the validation loss, the run ends when the training loss
no longer falls, the weights of the best validation loss are kept, and a CSV line is
written after each epoch. Training measures are running ones of the epoch, as Keras
reports them: with dropout, and while the weights still change.
"""

import csv
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bmjax import losses, sharding
from bmjax.data import streams
from bmjax.study.scores2d import Tally, batch_sums
from bmjax.study.slices2d import SliceStore
from bmjax.training import (
    NonFiniteLossError,
    Optimizer,
    Patience,
    TrainState,
    initial_state,
)

LossName = Literal["categorical", "binary"]
_LOSSES: dict[LossName, Any] = {
    "categorical": losses.CrossEntropy(),
    "binary": losses.BinaryCrossEntropy(),
}
_PROBS: dict[LossName, Callable[[Any], Any]] = {
    "categorical": jax.nn.softmax,
    "binary": jax.nn.sigmoid,
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a network is trained; the paper's optimiser, the notebooks' callbacks.

    Attributes:
      epochs: most passes over the training slices.
      batch_size: slices of a batch; the paper does not give it.
      loss: `categorical` is softmax and categorical cross-entropy (step 10 of the
        paper's algorithm), `binary` a sigmoid and binary cross-entropy for each class
        (step 9).
      lr: of Adam.
      plateau_factor: of the rate at a plateau of the validation loss.
      plateau_patience: epochs without a fall before that.
      plateau_delta: smallest fall that counts (Keras).
      min_lr: the rate falls no lower.
      stop_patience: epochs without a fall of the training loss before the run ends;
        None never ends it.
    """

    epochs: int = 35
    batch_size: int = 8
    loss: LossName = "categorical"
    lr: float = 1e-3
    plateau_factor: float = 0.2
    plateau_patience: int = 2
    plateau_delta: float = 1e-4
    min_lr: float = 1e-6
    stop_patience: int | None = 2

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"{self.epochs} epochs in batches of {self.batch_size}; give at least "
                "1 of each"
            )

    def optimizer(self) -> Optimizer:
        """Keras' Adam: nothing clipped, no weight decay."""
        return Optimizer(
            name="adam",
            peak_lr=self.lr,
            schedule="constant",
            eps=1e-7,
            weight_decay=0.0,
            clip_norm=None,
            plateau_factor=self.plateau_factor,
            plateau_patience=self.plateau_patience,
            plateau_min_lr=self.min_lr,
        )


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    Attributes:
      variables: those of the best validation loss.
      epochs: the lines of the log.
      best_epoch: whose variables they are, from 1.
    """

    variables: Any
    epochs: list[dict[str, Any]]
    best_epoch: int


class Program:
    """One network, compiled once to be trained from any seed, and looked at.

    Args:
      model: network whose `num_classes` counts the background.
      classes: names of the classes without background.
      schedule: how it is trained.
    """

    def __init__(self, model: Any, classes: Sequence[str], schedule: Schedule) -> None:
        self.model, self.classes = model, tuple(classes)
        self.schedule = schedule
        devices = sharding.devices_for(schedule.batch_size, None)
        self._mesh = sharding.data_mesh(devices)
        self._num_devices = len(devices)
        self._optimizer = schedule.optimizer().transformation()
        self._step = sharding.parallelise(
            partial(
                _train_step,
                model=model,
                loss=schedule.loss,
                optimizer=self._optimizer,
            ),
            self._mesh,
        )
        self._look = sharding.compile_for(
            partial(_look, model=model, loss=schedule.loss), self._mesh
        )
        self._probs = sharding.compile_for(
            partial(_predict, model=model, loss=schedule.loss), self._mesh
        )

    def begin(self, image: np.ndarray, *, seed: int) -> TrainState:
        """The state before the first update, for batches of this shape."""
        variables = self.model.init(jax.random.key(seed), jnp.asarray(image[:1]))
        return sharding.replicate(initial_state(variables, self._optimizer), self._mesh)

    def train(
        self, state: TrainState, batches: Iterator[Mapping[str, Any]], *, seed: int
    ) -> tuple[TrainState, dict[str, float]]:
        """One epoch: the state after it, and its running measures.

        Args:
          state: donated.
          batches: of the epoch.
          seed: of dropout.

        Raises:
          NonFiniteLossError: the loss became NaN or infinite.
        """
        tally = Tally(self.classes)
        # travels with the state, so that one program serves all seeds
        number = sharding.replicate(jnp.asarray(seed, jnp.uint32), self._mesh)
        ahead = next(batches, None)
        while ahead is not None:
            batch = ahead
            (state, number), sums = self._step((state, number), self._put(batch))
            ahead = next(batches, None)  # read while the device computes
            sums = jax.device_get(sums)
            loss = float(sums["loss"])
            if not np.isfinite(loss):
                raise NonFiniteLossError(
                    f"loss is {loss} at step {int(state.step)}, on slices of "
                    f"{', '.join(sorted(set(batch['exams'])))}; look at these exams "
                    "with `bmjax check`, or lower the learning rate"
                )
            tally.add(sums, loss=loss, exams=batch["exams"])
        return state, tally.scores()

    def evaluate(self, variables: Any, batches: Iterator[Mapping[str, Any]]) -> Tally:
        """Every measure with fixed weights and without dropout."""
        tally = Tally(self.classes)
        for batch in batches:
            sums = jax.device_get(self._look(variables, self._put(batch)))
            tally.add(sums, loss=float(sums["loss"]), exams=batch["exams"])
        return tally

    def probs(self, variables: Any, image: np.ndarray) -> np.ndarray:
        """Probabilities of the classes, background first, of some slices."""
        return np.asarray(self._probs(variables, self._put({"image": image})["image"]))

    def _put(self, batch: Mapping[str, Any]) -> Any:
        arrays = {n: batch[n] for n in ("image", "labels") if n in batch}
        if len(arrays["image"]) % self._num_devices:
            return sharding.replicate(arrays, self._mesh)  # the last of a set
        return sharding.put_batch(arrays, self._mesh)


def fit_network(
    program: Program,
    store: SliceStore,
    *,
    train: Sequence[str],
    val: Sequence[str],
    seed: int,
    log: Path,
    announce: Callable[[str], None],
) -> Fitted:
    """Train until the epochs are over, or the training loss no longer falls.

    Args:
      program: the network.
      store: where the slices are.
      train: exams to train on.
      val: exams to validate on.
      seed: of parameters, dropout and the order of slices.
      log: CSV file, written anew after each epoch.
      announce: takes a line about each epoch.
    """
    schedule = program.schedule
    optimizer, size = schedule.optimizer(), schedule.batch_size
    first = next(store.in_order(train, batch_size=1))
    state = program.begin(first["image"], seed=seed)
    plateau, stopping, best = Patience(), Patience(), Patience()
    variables, best_epoch, lr_factor = state.variables, 0, 1.0
    lines: list[dict[str, Any]] = []
    for epoch in range(1, schedule.epochs + 1):
        began = time.perf_counter()
        batches = store.shuffled(train, batch_size=size, seed=seed, epoch=epoch)
        state, running = program.train(state, batches, seed=seed)
        looked = program.evaluate(
            state.variables, store.in_order(val, batch_size=size)
        ).scores()
        lines.append(
            {
                "epoch": epoch,
                "lr": schedule.lr * lr_factor,
                "took_s": time.perf_counter() - began,
                **running,
                **{f"val_{name}": value for name, value in looked.items()},
            }
        )
        write_rows(log, lines)
        announce(
            f"epoch {epoch}/{schedule.epochs}: loss {running['loss']:.4f}, val loss "
            f"{looked['loss']:.4f}, val Dice {looked['dice']:.3f} "
            f"(legacy {looked['legacy_dice']:.3f}), {lines[-1]['took_s']:.1f} s"
        )
        best.look(-looked["loss"])
        if best.waited == 0:
            # copies: the state is donated to the next step
            variables, best_epoch = jax.tree.map(np.array, state.variables), epoch
        plateau.look(-looked["loss"], min_delta=schedule.plateau_delta)
        if plateau.is_out(schedule.plateau_patience):
            plateau.waited = 0
            lr_factor = optimizer.after_plateau(lr_factor)
            factor = jax.device_put(np.float32(lr_factor), state.lr_factor.sharding)
            state = replace(state, lr_factor=factor)
        stopping.look(-running["loss"])
        if stopping.is_out(schedule.stop_patience):
            break
    return Fitted(variables, lines, best_epoch)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same names as CSV; the file appears complete or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    streams.write_pieces(path, [text.getvalue().encode()])


def _train_step(
    state_and_seed: tuple[TrainState, Any],
    batch: Mapping[str, Any],
    *,
    model: Any,
    loss: LossName,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> tuple[tuple[TrainState, Any], dict[str, Any]]:
    state, seed = state_and_seed
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    params = state.variables["params"]
    fixed = {k: v for k, v in state.variables.items() if k != "params"}

    def objective(params: Any) -> tuple[Any, Any]:
        (logits,), new = model.apply(
            {"params": params, **fixed},
            batch["image"],
            is_training=True,
            mutable=list(fixed),
            rngs={"dropout": key},
        )
        targets = losses.one_hot(batch["labels"], logits.shape[-1])
        return _LOSSES[loss](logits, targets, axis_name=axis_name), (logits, new)

    (value, (logits, new)), grads = jax.value_and_grad(objective, has_aux=True)(params)
    grads = sharding.mean_over_devices(grads, axis_name=axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    updates = jax.tree.map(lambda update: state.lr_factor * update, updates)
    params = optax.apply_updates(params, updates)
    new_state = TrainState(
        state.step + 1, {"params": params, **new}, opt_state, state.lr_factor
    )
    sums = batch_sums(_PROBS[loss](logits), batch["labels"])
    return (new_state, seed), {"loss": value, **sums}


def _look(
    variables: Any, batch: Mapping[str, Any], *, model: Any, loss: LossName
) -> dict[str, Any]:
    (logits,) = model.apply(variables, batch["image"], is_training=False)
    targets = losses.one_hot(batch["labels"], logits.shape[-1])
    value = _LOSSES[loss](logits, targets)
    return {"loss": value, **batch_sums(_PROBS[loss](logits), batch["labels"])}


def _predict(variables: Any, image: Any, *, model: Any, loss: LossName) -> Any:
    (logits,) = model.apply(variables, image, is_training=False)
    return _PROBS[loss](logits)
