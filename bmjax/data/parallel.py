"""Runs a function over items in spawned processes; one failure stops no other."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

Progress = Callable[[int, int, str], None]
"""Called with the number done, the number of all, and the name of the one just done."""

_EXPECTED = (ValueError, OSError, MemoryError)


@dataclass(frozen=True)
class Outcome:
    """What became of one item: a value, or the error that it met."""

    value: Any = None
    error: Exception | None = None


def default_workers(num_items: int) -> int:
    """As many processes as this one may use processors, and no idle ones."""
    if hasattr(os, "sched_getaffinity"):  # Linux: those a container or scheduler grants
        num_processors = len(os.sched_getaffinity(0))
    else:
        num_processors = os.cpu_count() or 1
    return max(1, min(num_items, num_processors))


def run_all(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    num_workers: int | None = None,
    progress: Progress | None = None,
    names: Sequence[str] | None = None,
    timeout_s: float | None = None,
) -> list[Outcome]:
    """Call a function on each item; the outcomes come in the items' order.

    Args:
      function: of one argument, defined in a module.
      items: what can be pickled.
      num_workers: processes; None: one for each processor; up to 1: this process.
      progress: told after each item.
      names: of the items, for `progress`.
      timeout_s: longest wait for the next item that a process finishes [s].

    Raises:
      RuntimeError: a process died, as when memory runs out, or none finished in time.
    """
    names = names or [str(item) for item in items]
    if num_workers is None:
        num_workers = default_workers(len(items))
    if num_workers <= 1 or len(items) <= 1:
        return _run_here(function, items, names, progress)
    outcomes = [Outcome()] * len(items)
    pool = ProcessPoolExecutor(
        min(num_workers, len(items)), get_context("spawn"), _start_worker
    )
    try:
        with _unnamed_main():
            futures: dict[Future, int] = {
                pool.submit(function, item): i for i, item in enumerate(items)
            }
        for done, future in enumerate(_finished(pool, futures, names, timeout_s), 1):
            i = futures[future]
            try:
                outcomes[i] = Outcome(value=future.result())
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"a worker process died near {names[i]}, perhaps for lack of "
                    f"memory; try again with fewer than {num_workers} workers"
                ) from error
            except _EXPECTED as error:
                outcomes[i] = Outcome(error=error)
            if progress is not None:
                progress(done, len(items), names[i])
    finally:
        pool.shutdown(cancel_futures=True)
    return outcomes


def _finished(
    pool: ProcessPoolExecutor,
    futures: Mapping[Future, int],
    names: Sequence[str],
    timeout_s: float | None,
) -> Iterator[Future]:
    """The futures as they are done; processes that take too long are ended."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout_s, FIRST_COMPLETED)
        if not done:
            stuck = sorted(names[futures[f]] for f in pending if f.running())
            # the pool has no way of its own to end a process that hangs
            for process in list(pool._processes.values()):
                process.kill()
            raise RuntimeError(
                f"nothing was done for {timeout_s:g} s; at work on "
                f"{', '.join(stuck) or 'nothing'}: see whether their disk answers, or "
                "wait longer with --timeout-s; the same command goes on"
            )
        yield from done


def require_all(
    outcomes: Sequence[Outcome], names: Sequence[str], purpose: str
) -> list[Any]:
    """The values of all outcomes.

    Raises:
      ValueError: lists every error that one of them met.
    """
    pairs = zip(names, outcomes, strict=True)
    errors = [(name, outcome.error) for name, outcome in pairs if outcome.error]
    if errors:
        lines = [
            str(error) if str(error).startswith(name) else f"{name}: {error}"
            for name, error in errors
        ]
        count = f"{len(errors)} of {len(outcomes)} cases could not {purpose}"
        raise ValueError("\n  ".join([f"{count}:", *lines])) from errors[0][1]
    return [outcome.value for outcome in outcomes]


def _run_here(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    names: Sequence[str],
    progress: Progress | None,
) -> list[Outcome]:
    outcomes = []
    for item, name in zip(items, names, strict=True):
        try:
            outcomes.append(Outcome(value=function(item)))
        except _EXPECTED as error:
            outcomes.append(Outcome(error=error))
        if progress is not None:
            progress(len(outcomes), len(items), name)
    return outcomes


def _start_worker() -> None:
    """Runs in each process before its first item, and before numpy is loaded."""
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = "1"  # one process for each processor needs no threads
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot tell its workers to stop: they would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _unnamed_main() -> Iterator[None]:
    """Keep new processes from running the main script again.

    They need nothing from it: it may lack an `if __name__ == "__main__"`, which would
    start processes without end, or load JAX, which takes memory in each of them.
    """
    main = sys.modules["__main__"]
    facts = main.__dict__
    hidden = {name: facts[name] for name in ("__file__", "__spec__") if name in facts}
    facts["__spec__"] = None
    facts.pop("__file__", None)
    try:
        yield
    finally:
        facts.update(hidden)
