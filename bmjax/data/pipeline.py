"""The grain graph: batch i of the run, cut from the store, in order.

A sample is a function of (seed, stream, step, slot) alone, so the batch of a step is
the same whatever the number of threads, worker processes or restarts, and the whole
state of the pipeline is the step. The only home of grain.
"""

import multiprocessing
import re
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import grain
import numpy as np
from absl import flags

from bmjax.data.source import Loader, PatchSource, Variation
from bmjax.data.workers import begin_worker

STREAMS = {"train": 0, "val": 1}
_SHARED_MEMORY = Path("/dev/shm")


class WorkerError(RuntimeError):
    """A process that reads patches is gone."""


class Batches(Iterator[dict[str, np.ndarray]]):
    """Batches of a stream in order: `image`, `labels`, index of `case`.

    Args:
      graph: grain's graph, of whole batches.
      start: number of the first batch.
      prepared_bytes: most memory that batches prepared in advance take.
      timeout_s: longest wait for one batch [s]; None waits for ever.
    """

    def __init__(
        self,
        graph: Iterable[dict[str, np.ndarray]],
        *,
        start: int,
        prepared_bytes: int,
        timeout_s: float | None = None,
    ) -> None:
        self._stream: Any = iter(graph)
        self._step = start
        self._timeout_s = timeout_s
        self.prepared_bytes = prepared_bytes

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            batch = self._draw()
        except RuntimeError as error:
            code = re.search(_DEAD_WORKER, str(error))
            if code is None:
                raise
            raise WorkerError(
                f"a process that reads patches ended with exit code {code[1]} before "
                f"batch {self._step} was ready{_meaning(int(code[1]))}. Lower "
                "--data.num-workers or --data.num-ahead, or read in threads with "
                "--data.num-workers 0; the same command goes on from the last "
                "checkpoint"
            ) from error
        self._step += 1
        return batch

    def _draw(self) -> dict[str, np.ndarray]:
        """The next batch, waited for beside the worker processes for a limited time."""
        if self._timeout_s is None:
            return next(self._stream)
        drawn: SimpleQueue[Any] = SimpleQueue()
        # a daemon, so that it does not keep the program from ending
        Thread(target=_put_next, args=(self._stream, drawn), daemon=True).start()
        try:
            batch = drawn.get(timeout=self._timeout_s)
        except Empty:
            pids = _kill_workers()
            raise WorkerError(
                f"no batch {self._step} for {self._timeout_s:g} s from the processes "
                f"that read patches ({', '.join(map(str, pids))}), which were ended. "
                "See whether the disk of data.store answers, wait longer with "
                "--data.timeout-s, or read in threads with --data.num-workers 0; the "
                "same command goes on from the last checkpoint"
            ) from None
        if isinstance(batch, BaseException):
            raise batch
        return batch

    @property
    def state(self) -> dict[str, int]:
        """Where the stream is; `batches(start=...)` goes on from there."""
        return {"next_batch": self._step}

    def close(self) -> None:
        """End the processes and threads that read ahead."""
        self._stream.close()


def _put_next(stream: Iterator[Any], drawn: "SimpleQueue[Any]") -> None:
    """The next batch of a stream, or the error that it met, which is no loss."""
    try:
        drawn.put(next(stream))
    except BaseException as error:  # noqa: BLE001  raised again by the one who waits
        drawn.put(error)


def _kill_workers() -> list[int]:
    """End the processes that read patches, which do not listen to SIGTERM."""
    workers = [
        process
        for process in multiprocessing.active_children()
        if process.name.startswith("grain-process")
    ]
    for process in workers:
        process.kill()
    return [process.pid or 0 for process in workers]


_DEAD_WORKER = r"Worker process was terminated unexpectedly with exit code (-?\d+)"


def _meaning(code: int) -> str:
    if code != -signal.SIGKILL:
        return ""
    return " (killed; most often the system does so when memory runs out)"


def batches(
    loader: Loader,
    ids: tuple[str, ...],
    *,
    seed: int,
    stream: str,
    num_steps: int,
    start: int = 0,
    slots: range | None = None,
    variation: Variation | None = None,
) -> Batches:
    """Batches `start` to `num_steps` of a stream.

    With a variation, a batch in which a patch is moved holds boxes instead of patches,
    and `affine` (and `elastic`) say where in them the patches are; one with small
    lesions to paste holds `donor_image`, `donor_labels` and `donor_seed`. See
    `AugmentPolicy.place`.

    Args:
      loader: how to draw; its patch and batch size are set.
      ids: cases to draw from.
      seed: of the run.
      stream: `train` or `val`.
      num_steps: length of the stream.
      start: first batch wanted, for a resumed run.
      slots: the samples of each batch that this process takes; None takes all.
      variation: for augmentation; None for patches as they are.

    Raises:
      ValueError: shared memory is too small for so many worker processes.
    """
    source = PatchSource(
        loader,
        ids,
        seed=seed,
        stream=STREAMS[stream],
        num_steps=num_steps,
        slots=slots,
        variation=variation,
    )
    whole = grain.MapDataset.source(source)[start:]
    num_workers = loader.num_workers
    each = -(-loader.num_ahead // max(num_workers, 1))  # rounded up
    graph = whole.to_iter_dataset(
        grain.ReadOptions(
            num_threads=min(loader.num_threads, each), prefetch_buffer_size=each
        )
    )
    one = source.batch_bytes
    prepared = one * (each + 1)
    if num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads absl flags: grain#1355
        _require_shared_memory(2 * num_workers * one, num_workers)
        graph = graph.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=num_workers, per_worker_buffer_size=1
            ),
            worker_init_fn=begin_worker,
        )
        # read ahead, in the queue, and on its way between the two
        prepared = num_workers * one * (each + 2)
    return Batches(
        graph,
        start=start,
        prepared_bytes=prepared,
        timeout_s=loader.timeout_s if num_workers else None,
    )


def _require_shared_memory(num_bytes: int, num_workers: int) -> None:
    """Refuse worker processes whose batches do not fit into the system's /dev/shm."""
    if not _SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if num_bytes > free:
        raise ValueError(
            f"{_SHARED_MEMORY}: {num_workers} worker processes pass batches through "
            f"{num_bytes / 2**20:.0f} MiB of shared memory, but {free / 2**20:.0f} MiB "
            "are free; lower --data.num-workers, read in threads with "
            "--data.num-workers 0, or give the container more (--shm-size)"
        )
