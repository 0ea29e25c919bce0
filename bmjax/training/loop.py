"""The one training loop: draw, update, look, save, stop when asked."""

import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

from bmjax.device_memory import memory_explained
from bmjax.training.cost import Meter
from bmjax.training.optim import Optimizer
from bmjax.training.patience import Progress
from bmjax.training.state import TrainState

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How often a run looks at itself and saves.

    Attributes:
      log_every: training records [steps].
      validate_every: validation on held-out patches [steps].
      num_val_batches: batches of one validation.
      num_val_volumes: held-out cases that each validation also predicts whole, by
        windows; where there are any, their mean Dice and not the pseudo-Dice decides
        which checkpoint is the best. All of them where fewer are held out.
      checkpoint_every: saving [steps]; a new best is saved at once.
      keep_last: newest checkpoints kept, beside the best.
      score_decay: share of the old value in the running mean of the Dice that decides
        which checkpoint is the best (nnU-Net: 0.9).
      monitor: what plateaus and the early end go by: that running mean, or the
        validation loss.
      min_delta: smallest change of it that counts as better.
      stop_patience: validations without a better one before the run ends early; None
        never ends it.
    """

    log_every: int = 10
    validate_every: int = 250
    num_val_batches: int = 50
    num_val_volumes: int = 0
    checkpoint_every: int = 250
    keep_last: int = 2
    score_decay: float = 0.9
    monitor: Literal["score", "loss"] = "score"
    min_delta: float = 0.0
    stop_patience: int | None = None


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite."""


_REMEDY = (
    "lower --data.batch-size or --data.patch-size, compute in less with --model.dtype "
    "bfloat16 or --model.use-remat"
)


class Stop:
    """Whether somebody asked the run to end, by a signal within `watch`.

    SIGTERM (schedulers, `kill`), SIGUSR1 (SLURM's warning) and SIGINT (Ctrl-C).
    """

    def __init__(self) -> None:
        self.is_asked = False

    @contextmanager
    def watch(self) -> Iterator["Stop"]:
        """Take the first signal as a request; a second of its kind acts at once."""
        before = {}

        def ask(number: int, _: object) -> None:
            self.is_asked = True
            signal.signal(number, before[number])

        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            before[number] = signal.signal(number, ask)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def fit(
    state: TrainState,
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    settings: Fit,
    optimizer: Optimizer,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Mapping[str, Any]]],
    validate: Callable[[TrainState], Record],
    put: Callable[[Any], Any],
    save: Callable[[TrainState, Progress], None],
    emit: Callable[[Record], None],
    report_failure: Callable[[int, Mapping[str, np.ndarray]], str],
    stop: Stop,
    progress: Progress,
    batch_size: int,
    agree: Callable[[bool], bool] = bool,
) -> TrainState:
    """Train until all updates are done, nothing gets better, or somebody asks to stop.

    Args:
      state: where to begin; its step says how many updates are done. Donated.
      batches: the rest of the training stream.
      settings: how often to look, log and save.
      optimizer: its length and its rates, for the log and at a plateau.
      train_step: compiled update.
      validate: held-out loss and `pseudo_dice` by region, and `volume_dice` where whole
        cases are predicted.
      put: places a host batch on the devices.
      save: writes a checkpoint.
      emit: takes each record.
      report_failure: given the step and the batch of a loss that is not finite, keeps
        what explains it, and says so.
      stop: asked to end early, the loop saves and returns.
      progress: from the checkpoint of a resumed run.
      batch_size: samples of a batch, over all processes.
      agree: whether any process is asked to stop; called by all at the same steps.

    Raises:
      NonFiniteLossError: the loss is not finite; nothing of it has been saved.
    """
    stream, num_steps = iter(batches), optimizer.total_steps
    rate = optimizer.learning_rate()
    done = saved = int(state.step)
    meter = Meter(batch_size)
    ahead = next(stream, None)
    placed = _placed(ahead, put)
    meter.restart()
    while ahead is not None and done < num_steps:
        if progress.stopping.is_out(settings.stop_patience) or agree(stop.is_asked):
            break
        batch = ahead
        with memory_explained("a training step", _REMEDY):
            state, metrics = train_step(state, placed)
            with meter.waiting():
                ahead = next(stream, None)  # while the device computes
            placed = _placed(ahead, put)
            loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
        done += 1
        progress.next_batch = done
        meter.step()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise NonFiniteLossError(
                f"loss is {loss} and its gradient's norm {grad_norm} at step {done}; "
                f"{report_failure(done, batch)}. Look at these cases with "
                "`bmjax check`, or lower optimizer.peak_lr; the checkpoint before this "
                "step is whole"
            )
        progress.window.append(loss)
        if done % settings.log_every == 0 or done == num_steps:
            emit(
                {
                    "kind": "train",
                    "step": done,
                    "loss": float(np.mean(progress.window)),
                    "grad_norm": grad_norm,
                    "lr": float(rate(done - 1)) * progress.lr_factor,
                    **meter.read(),
                }
            )
            progress.window.clear()
        is_best = False
        if done % settings.validate_every == 0 or done == num_steps:
            state, is_best = _look(state, validate, emit, settings, optimizer, progress)
            meter.restart()
        if done % settings.checkpoint_every == 0 or done == num_steps or is_best:
            save(state, progress)
            saved = done
            meter.restart()
    if done != saved:
        save(state, progress)
    return state


def _placed(batch: Mapping[str, np.ndarray] | None, put: Callable[[Any], Any]) -> Any:
    """The arrays that the step takes, on the devices."""
    if batch is None:
        return None
    return put({name: array for name, array in batch.items() if name != "case"})


def _look(
    state: TrainState,
    validate: Callable[[TrainState], Record],
    emit: Callable[[Record], None],
    settings: Fit,
    optimizer: Optimizer,
    progress: Progress,
) -> tuple[TrainState, bool]:
    """Validate, and draw the consequences.

    Returns:
      The state, its rates lowered at a plateau, and whether it is the best so far by
      the running mean of its Dice (nnU-Net).
    """
    found = validate(state)
    by_region = found.get("volume_dice") or found["pseudo_dice"]
    dice = float(np.mean(list(by_region.values())))
    decay = settings.score_decay
    if progress.score is None:
        progress.score = dice
    else:
        progress.score = decay * progress.score + (1 - decay) * dice
    is_best = progress.best_score is None or progress.score > progress.best_score
    if is_best:
        progress.best_score = progress.score
    value = -found["loss"] if settings.monitor == "loss" else progress.score
    for waiting in (progress.plateau, progress.stopping):
        waiting.look(value, min_delta=settings.min_delta)
    if progress.plateau.is_out(optimizer.plateau_patience):
        progress.plateau.waited = 0
        progress.lr_factor = optimizer.after_plateau(progress.lr_factor)
        # where the old one is, on the devices of all processes
        place = state.lr_factor.sharding
        factor = jax.device_put(np.float32(progress.lr_factor), place)
        state = replace(state, lr_factor=factor)
    step = int(state.step)
    record = {"kind": "val", "step": step, **found, "score": progress.score}
    if optimizer.num_steps is None:
        record["epoch"] = step / optimizer.epoch_steps
    emit(record)
    return state, is_best
