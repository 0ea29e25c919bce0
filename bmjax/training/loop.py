"""The one training loop: draw, update, look, save, stop when asked."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from bmjax.training.state import TrainState

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How often a run looks at itself and saves.

    Attributes:
      log_every: training records [steps].
      validate_every: validation on held-out patches [steps].
      num_val_batches: batches of one validation.
      checkpoint_every: saving [steps].
      keep_last: newest checkpoints kept, beside the best.
      score_decay: share of the old value in the running mean of the pseudo-Dice that
        decides which checkpoint is the best (nnU-Net: 0.9).
    """

    log_every: int = 10
    validate_every: int = 250
    num_val_batches: int = 50
    checkpoint_every: int = 250
    keep_last: int = 2
    score_decay: float = 0.9


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


class DeviceMemoryError(RuntimeError):
    """The device has too little memory for the step."""


# XLA reports a convolution without room for its workspace as one without an algorithm
_MEMORY_SIGNS = ("RESOURCE_EXHAUSTED", "out of memory", "cudnn convolution algorithm")


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Say in words what a device that runs out of memory needs."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(sign.lower() in str(error).lower() for sign in _MEMORY_SIGNS):
            raise
        raise DeviceMemoryError(
            "the device has too little memory for a training step; lower "
            "--data.batch-size or --data.patch-size, compute in less with "
            "--model.dtype bfloat16 or --model.use-remat, or see whether another "
            f"process holds the device. The device said: {str(error).splitlines()[0]}"
        ) from error


class Stop:
    """Whether somebody asked the run to end, by SIGTERM or SIGINT within `watch`."""

    def __init__(self) -> None:
        self.is_asked = False

    @contextmanager
    def watch(self) -> Iterator["Stop"]:
        """Take the first SIGTERM or SIGINT as a request; a second acts at once."""
        before = {}

        def ask(number: int, _: object) -> None:
            self.is_asked = True
            signal.signal(number, before[number])

        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, ask)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass
class Progress:
    """What the loop remembers beside the arrays; saved with each checkpoint.

    Attributes:
      score: running mean of the validation pseudo-Dice; None before the first.
      window: losses since the last training record.
    """

    score: float | None = None
    window: list[float] = field(default_factory=list)


def fit(
    state: TrainState,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    settings: Fit,
    num_steps: int,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, Any]]],
    validate: Callable[[TrainState], Record],
    learning_rate: Callable[[int], Any],
    put: Callable[[Any], Any],
    save: Callable[[TrainState, Progress], None],
    emit: Callable[[Record], None],
    name_cases: Callable[[np.ndarray], str],
    stop: Stop,
    progress: Progress,
) -> TrainState:
    """Train until `num_steps` updates are done or somebody asks to stop.

    Args:
      state: where to begin; its step says how many updates are done. Donated.
      batches: the rest of the training stream.
      settings: how often to look, log and save.
      num_steps: number of updates of the whole run.
      train_step: compiled update.
      validate: held-out loss and `pseudo_dice` by region.
      learning_rate: rate after a number of updates, for the log.
      put: places a host batch on the devices.
      save: writes a checkpoint.
      emit: takes each record.
      name_cases: names of the cases in a batch, for errors.
      stop: asked to end early, the loop saves and returns.
      progress: from the checkpoint of a resumed run.

    Raises:
      NonFiniteLossError: the loss is not finite; nothing of it has been saved.
    """
    stream = iter(batches)
    done = saved = int(state.step)
    mark, waited = time.perf_counter(), 0.0
    ahead = next(stream, None)
    while ahead is not None and done < num_steps and not stop.is_asked:
        batch = dict(ahead)
        cases = batch.pop("case")
        with _memory_explained():
            state, metrics = train_step(state, put(batch))
            begin = time.perf_counter()
            ahead = next(stream, None)  # while the device computes
            waited += time.perf_counter() - begin
            loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
        done += 1
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise NonFiniteLossError(
                f"loss is {loss} and its gradient's norm {grad_norm} at step {done}; "
                f"the batch held {name_cases(cases)}. Look at these cases with "
                "`bmjax check`, or lower optimizer.peak_lr; the checkpoint before this "
                "step is whole"
            )
        progress.window.append(loss)
        if done % settings.log_every == 0 or done == num_steps:
            now, count = time.perf_counter(), len(progress.window)
            emit(
                {
                    "kind": "train",
                    "step": done,
                    "loss": float(np.mean(progress.window)),
                    "grad_norm": grad_norm,
                    "lr": float(learning_rate(done - 1)),
                    "step_ms": 1e3 * (now - mark) / count,
                    "wait_ms": 1e3 * waited / count,
                }
            )
            mark, waited = now, 0.0
            progress.window.clear()
        if done % settings.validate_every == 0 or done == num_steps:
            progress.score = _look(state, validate, emit, settings, progress.score)
            mark = time.perf_counter()
        if done % settings.checkpoint_every == 0 or done == num_steps:
            save(state, progress)
            saved = done
            mark = time.perf_counter()
    if done != saved:
        save(state, progress)
    return state


def _look(
    state: TrainState,
    validate: Callable[[TrainState], Record],
    emit: Callable[[Record], None],
    settings: Fit,
    score: float | None,
) -> float:
    """Validate, and update the running score (nnU-Net's pseudo-Dice mean)."""
    found = validate(state)
    emit({"kind": "val", "step": int(state.step), **found})
    dice = float(np.mean(list(found["pseudo_dice"].values())))
    if score is None:
        return dice
    return settings.score_decay * score + (1 - settings.score_decay) * dice
