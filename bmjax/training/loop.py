"""The one training loop: draw, update, look, save, stop when asked."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bmjax.device_memory import memory_explained
from bmjax.training.learner import Learner
from bmjax.training.state import TrainState

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


@runtime_checkable
class Seating(Protocol):
    """How the states and batches of several learners become those of one step."""

    def join(self, batches: Sequence[Any]) -> Any:
        """One batch of those of all."""
        ...

    def part(self, state: Any, index: int) -> Any:
        """The state of one."""
        ...

    def with_part(self, state: Any, index: int, one: Any) -> Any:
        """The state of all, that of one exchanged."""
        ...


class Alone:
    """The seating of a single learner."""

    def join(self, batches: Sequence[Any]) -> Any:
        """Its batch."""
        return batches[0]

    def part(self, state: Any, index: int) -> Any:
        """Its state."""
        del index
        return state

    def with_part(self, state: Any, index: int, one: Any) -> Any:
        """Its new state."""
        del state, index
        return one


def fit(
    state: Any,
    learners: Sequence[Learner],
    *,
    train_step: Callable[[Any, Any], tuple[Any, Any]],
    stop: Stop,
    seating: Seating | None = None,
    agree: Callable[[bool], bool] = bool,
) -> list[TrainState]:
    """Train until all updates are done, nothing gets better, or somebody asks to stop.

    Several learners go side by side, each from its own step; one that is over keeps its
    devices busy with its last batch, to no effect, until the others are over too.

    Args:
      state: where to begin, of all learners as `seating` has it. Donated.
      learners: one, or several that share `train_step`.
      train_step: compiled update; its metrics have an entry for each learner.
      stop: asked to end early, the loop saves and returns.
      seating: of several learners.
      agree: whether any process is asked to stop; called by all at the same steps.

    Raises:
      NonFiniteLossError: a loss is not finite; nothing of it has been saved, and the
        other learners have gone on to their ends.

    Returns:
      The state of each learner after its last update.
    """
    seating = seating or Alone()
    for learner in learners:
        learner.draw()
        learner.restart_meter()
    ended = {i: seating.part(state, i) for i in _indices(learners, is_over=True)}
    while at_work := _indices(learners, is_over=False):
        if agree(stop.is_asked):
            break
        for i in ended:
            learners[i].idle_like(learners[at_work[0]])
        with memory_explained("a training step", _REMEDY):
            batch = seating.join([learner.placed for learner in learners])
            state, metrics = train_step(state, batch)
            for i in at_work:
                learners[i].draw()  # while the device computes
            losses, norms = (np.ravel(metrics[name]) for name in ("loss", "grad_norm"))
        for i in at_work:
            learners[i].note(loss=float(losses[i]), grad_norm=float(norms[i]))
        state, looked = _look(state, learners, seating, at_work)
        kept = [i for i in at_work if learners[i].is_save_due]
        for i in [i for i in at_work if i in kept or learners[i].is_over]:
            one = looked.get(i) or seating.part(state, i)
            if i in kept:
                learners[i].keep(one)
            if learners[i].is_over:
                ended[i] = one
        if looked or kept:
            for learner in learners:
                learner.restart_meter()
    final = [ended.get(i) or seating.part(state, i) for i in range(len(learners))]
    for learner, one in zip(learners, final, strict=True):
        if not learner.is_kept:
            learner.keep(one)
    for learner in learners:
        if learner.failure is not None:
            raise learner.failure
    return final


def _indices(learners: Sequence[Learner], *, is_over: bool) -> list[int]:
    return [i for i, learner in enumerate(learners) if learner.is_over == is_over]


def _look(
    state: Any, learners: Sequence[Learner], seating: Seating, at_work: Sequence[int]
) -> tuple[Any, dict[int, TrainState]]:
    """Validate those that are due, at the same time, and draw the consequences.

    Returns:
      The state of all, and the states of those that were looked at.
    """
    due = [i for i in at_work if learners[i].is_look_due]
    if not due:
        return state, {}
    parts = {i: seating.part(state, i) for i in due}
    if len(due) == 1:
        found = [learners[due[0]].validate(parts[due[0]])]
    else:
        with ThreadPoolExecutor(len(due)) as pool:
            found = list(pool.map(lambda i: learners[i].validate(parts[i]), due))
    for i, each in zip(due, found, strict=True):
        one = learners[i].judge(parts[i], each)
        if one is not parts[i]:
            state = seating.with_part(state, i, one)
            parts[i] = seating.part(state, i)
    return state, parts
