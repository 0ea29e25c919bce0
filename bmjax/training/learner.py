"""One network in training: what it draws, notes, looks at and saves."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np

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


class Learner:
    """Where one network's batches come from and its results go, and how far it is.

    Args:
      start: number of updates done.
      batches: the rest of its training stream.
      batch_size: samples of a batch, over all processes.
      put: places a host batch on the devices.
      settings: how often to look, log and save.
      optimizer: its length and its rates, for the log and at a plateau.
      validate: held-out loss and `pseudo_dice` by region, and `volume_dice` where whole
        cases are predicted.
      save: writes a checkpoint.
      emit: takes each record.
      report_failure: given the step and the batch of a loss that is not finite, keeps
        what explains it, and says so.
      progress: from the checkpoint of a resumed run.
    """

    def __init__(
        self,
        *,
        start: int,
        batches: Iterable[Mapping[str, np.ndarray]],
        batch_size: int,
        put: Callable[[Any], Any],
        settings: Fit,
        optimizer: Optimizer,
        validate: Callable[[TrainState], Record],
        save: Callable[[TrainState, Progress], None],
        emit: Callable[[Record], None],
        report_failure: Callable[[int, Mapping[str, np.ndarray]], str],
        progress: Progress,
    ) -> None:
        self.done = self._saved = start
        self.failure: NonFiniteLossError | None = None
        self.placed: Any = None
        self._batch: Mapping[str, np.ndarray] | None = None
        self._ahead: Mapping[str, np.ndarray] | None = None
        self._stream = iter(batches)
        self._put = put
        self._settings, self._optimizer = settings, optimizer
        self._rate, self._num_steps = optimizer.learning_rate(), optimizer.total_steps
        self._save, self._emit = save, emit
        self.validate, self._report_failure = validate, report_failure
        self._progress, self._is_best = progress, False
        self._meter = Meter(batch_size)

    @property
    def is_over(self) -> bool:
        """Whether it has no update to do any more."""
        return (
            self.failure is not None
            or self._ahead is None
            or self.done >= self._num_steps
            or self._progress.stopping.is_out(self._settings.stop_patience)
        )

    @property
    def is_look_due(self) -> bool:
        """Whether the update just done is one to validate after."""
        return self.failure is None and self._is_due(self._settings.validate_every)

    @property
    def is_kept(self) -> bool:
        """Whether a checkpoint has all that was done and is worth keeping."""
        return self.failure is not None or self.done == self._saved

    @property
    def is_save_due(self) -> bool:
        """Whether the update just done, and looked at, is one to keep."""
        due = self._is_due(self._settings.checkpoint_every)
        return not self.is_kept and (due or self._is_best or self.is_over)

    def draw(self) -> None:
        """Place the next batch on the devices, after that before it was dispatched."""
        self._batch = self._ahead
        with self._meter.waiting():
            self._ahead = next(self._stream, None)
        if self._ahead is not None:
            self.placed = self._put(_arrays(self._ahead))

    def idle_like(self, other: "Learner") -> None:
        """Take another one's batch where it never had its own."""
        if self.placed is None and other._ahead is not None:
            self.placed = self._put(_arrays(other._ahead))

    def note(self, *, loss: float, grad_norm: float) -> None:
        """Count one update; a loss that is not finite becomes the `failure`."""
        progress = self._progress
        self.done += 1
        self._is_best = False
        progress.next_batch = self.done
        self._meter.step()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            self.failure = NonFiniteLossError(
                f"loss is {loss} and its gradient's norm {grad_norm} at step "
                f"{self.done}; {self._report_failure(self.done, self._batch or {})}. "
                "Look at these cases with `bmjax check`, or lower optimizer.peak_lr; "
                "the checkpoint before this step is whole"
            )
            return
        progress.window.append(loss)
        if self._is_due(self._settings.log_every):
            self._emit(
                {
                    "kind": "train",
                    "step": self.done,
                    "loss": float(np.mean(progress.window)),
                    "grad_norm": grad_norm,
                    "lr": float(self._rate(self.done - 1)) * progress.lr_factor,
                    **self._meter.read(),
                }
            )
            progress.window.clear()

    def judge(self, state: TrainState, found: Record) -> TrainState:
        """Draw the consequences of a validation.

        Whether the state is the best so far goes by the running mean of its Dice
        (nnU-Net).

        Args:
          state: that was validated.
          found: from `validate`.

        Returns:
          The state, its rates lowered at a plateau.
        """
        progress, settings = self._progress, self._settings
        by_region = found.get("volume_dice") or found["pseudo_dice"]
        dice = float(np.mean(list(by_region.values())))
        decay = settings.score_decay
        if progress.score is None:
            progress.score = dice
        else:
            progress.score = decay * progress.score + (1 - decay) * dice
        best = progress.best_score
        self._is_best = best is None or progress.score > best
        if self._is_best:
            progress.best_score = progress.score
        value = -found["loss"] if settings.monitor == "loss" else progress.score
        for waiting in (progress.plateau, progress.stopping):
            waiting.look(value, min_delta=settings.min_delta)
        if progress.plateau.is_out(self._optimizer.plateau_patience):
            progress.plateau.waited = 0
            progress.lr_factor = self._optimizer.after_plateau(progress.lr_factor)
            # where the old one is, on the devices of all processes
            place = state.lr_factor.sharding
            factor = jax.device_put(np.float32(progress.lr_factor), place)
            state = replace(state, lr_factor=factor)
        record = {"kind": "val", "step": self.done, **found, "score": progress.score}
        if self._optimizer.num_steps is None:
            record["epoch"] = self.done / self._optimizer.epoch_steps
        self._emit(record)
        return state

    def keep(self, state: TrainState) -> None:
        """Write a checkpoint."""
        self._save(state, self._progress)
        self._saved = self.done

    def restart_meter(self) -> None:
        """Do not count what happened beside the updates."""
        self._meter.restart()

    def _is_due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self._num_steps


def _arrays(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the step takes of a batch."""
    return {name: array for name, array in batch.items() if name != "case"}
