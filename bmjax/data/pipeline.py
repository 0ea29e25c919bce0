"""The grain graph: sample i of the run, cut from the store, batched, in order.

A sample is a function of (seed, stream, step, slot) alone, so the batch of a step is
the same whatever the number of threads, worker processes or restarts, and the whole
state of the pipeline is the step. The only home of grain.
"""

import math
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from bmjax.data.patches import Centring, Size, cut_sample, generator, is_on_lesion
from bmjax.data.store import Store, StoredCase
from bmjax.data.workers import begin_worker

STREAMS = {"train": 0, "val": 1}
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Where patches come from and how they are drawn.

    Attributes:
      store: folder made by `bmjax prepare`.
      patch_size: size of a patch [vox]; None takes it from the plan.
      batch_size: samples of a batch, over all devices; None takes it from the plan.
      p_lesion: fraction of a batch that is centred on a lesion voxel.
      centring: draw that voxel by class (nnU-Net) or by lesion.
      held_out: ids of the cases to validate on; empty to use a fold.
      fold: which fold to validate on, from 0.
      num_folds: number of folds, split by patient.
      num_workers: worker processes; 0 reads in threads of this process.
      num_threads: reading threads, of each process.
      num_ahead: batches prepared in advance.
    """

    store: str | None = None
    patch_size: Size | None = None
    batch_size: int | None = None
    p_lesion: float = 0.33
    centring: Centring = "class"
    held_out: tuple[str, ...] = ()
    fold: int = 0
    num_folds: int = 5
    num_workers: int = 0
    num_threads: int = 2
    num_ahead: int = 4


class PatchSource:
    """Random access to the samples of a run; picklable, opens the store when read.

    Args:
      loader: how to draw; its patch and batch size are set.
      ids: cases to draw from, uniformly, with replacement.
      seed: of the run.
      stream: 0 for training, 1 for validation.
      num_steps: number of batches.
      slots: the samples of each batch that this process takes; None takes all.
    """

    def __init__(
        self,
        loader: Loader,
        ids: tuple[str, ...],
        *,
        seed: int,
        stream: int,
        num_steps: int,
        slots: range | None = None,
    ) -> None:
        if not loader.store or not loader.patch_size or not loader.batch_size:
            raise ValueError(
                "data.store, data.patch_size and data.batch_size must be set; "
                "give --data.store STORE and let the plan fill the others"
            )
        self._store = Store(Path(loader.store))
        self._patch_size, self.batch_size = loader.patch_size, loader.batch_size
        self._loader, self._ids = loader, ids
        self._seed, self._stream, self._num_steps = seed, stream, num_steps
        self._slots = range(self.batch_size) if slots is None else slots
        self._opened: dict[int, StoredCase] = {}

    def __len__(self) -> int:
        return self._num_steps * len(self._slots)

    def __getitem__(self, index: int) -> dict[str, Any]:
        step, place = divmod(int(index), len(self._slots))
        slot = self._slots[place]
        rng = generator(seed=self._seed, stream=self._stream, step=step, slot=slot)
        case = int(rng.integers(len(self._ids)))
        image, labels = cut_sample(
            self._case(case),
            patch_size=self._patch_size,
            on_lesion=is_on_lesion(
                slot, batch_size=self.batch_size, p_lesion=self._loader.p_lesion
            ),
            centring=self._loader.centring,
            rng=rng,
        )
        # an index, not a name: strings do not survive shared memory whole
        return {"image": image, "labels": labels, "case": np.int32(case)}

    @property
    def sample_bytes(self) -> int:
        """Memory of one sample: float32 channels and int8 labels."""
        num_channels = len(self._store.plan.channels)
        return math.prod(self._patch_size) * (4 * num_channels + 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def _case(self, index: int) -> StoredCase:
        """A case of the list, opened once in each process."""
        if index not in self._opened:
            self._opened[index] = self._store.case(self._ids[index])
        return self._opened[index]


class WorkerError(RuntimeError):
    """A process that reads patches is gone."""


class Batches(Iterator[dict[str, np.ndarray]]):
    """Batches of a stream in order: `image`, `labels`, index of `case`.

    Args:
      graph: grain's graph, of whole batches.
      start: number of the first batch.
      prepared_bytes: most memory that batches prepared in advance take.
    """

    def __init__(
        self, graph: grain.IterDataset, *, start: int, prepared_bytes: int
    ) -> None:
        self._stream = iter(graph)
        self._step = start
        self.prepared_bytes = prepared_bytes

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            batch = next(self._stream)
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

    @property
    def state(self) -> dict[str, int]:
        """Where the stream is; `batches(start=...)` goes on from there."""
        return {"next_batch": self._step}

    def close(self) -> None:
        """End the processes and threads that read ahead."""
        self._stream.close()


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
) -> Batches:
    """Batches `start` to `num_steps` of a stream.

    Args:
      loader: how to draw; its patch and batch size are set.
      ids: cases to draw from.
      seed: of the run.
      stream: `train` or `val`.
      num_steps: length of the stream.
      start: first batch wanted, for a resumed run.
      slots: the samples of each batch that this process takes; None takes all.

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
    )
    size = len(range(source.batch_size) if slots is None else slots)
    # batched before the split over workers, so that a batch is one worker's work
    whole = grain.MapDataset.source(source)[start * size :].batch(size)
    num_workers = loader.num_workers
    each = -(-loader.num_ahead // max(num_workers, 1))  # rounded up
    graph = whole.to_iter_dataset(
        grain.ReadOptions(
            num_threads=min(loader.num_threads, each), prefetch_buffer_size=each
        )
    )
    one = size * source.sample_bytes
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
    return Batches(graph, start=start, prepared_bytes=prepared)


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
