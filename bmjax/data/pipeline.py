"""The grain graph: sample i of the run, cut from the store, batched, in order.

A sample is a function of (seed, stream, step, slot) alone, so the batch of a step is
the same whatever the number of threads, worker processes or restarts, and the whole
state of the pipeline is the step. The only home of grain.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import flags

from bmjax.data.patches import Centring, Size, cut_sample, generator, is_on_lesion
from bmjax.data.store import Store, StoredCase

STREAMS = {"train": 0, "val": 1}


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
    """Random access to every sample of a run; picklable, opens the store when read.

    Args:
      loader: how to draw; its patch and batch size are set.
      ids: cases to draw from, uniformly, with replacement.
      seed: of the run.
      stream: 0 for training, 1 for validation.
      num_steps: number of batches.
    """

    def __init__(
        self,
        loader: Loader,
        ids: tuple[str, ...],
        *,
        seed: int,
        stream: int,
        num_steps: int,
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
        self._opened: dict[int, StoredCase] = {}

    def __len__(self) -> int:
        return self._num_steps * self.batch_size

    def __getitem__(self, index: int) -> dict[str, Any]:
        step, slot = divmod(int(index), self.batch_size)
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

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def _case(self, index: int) -> StoredCase:
        """A case of the list, opened once in each process."""
        if index not in self._opened:
            self._opened[index] = self._store.case(self._ids[index])
        return self._opened[index]


def batches(
    loader: Loader,
    ids: tuple[str, ...],
    *,
    seed: int,
    stream: str,
    num_steps: int,
    start: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches `start` to `num_steps` of a stream: `image`, `labels`, index of `case`.

    Args:
      loader: how to draw; its patch and batch size are set.
      ids: cases to draw from.
      seed: of the run.
      stream: `train` or `val`.
      num_steps: length of the stream.
      start: first batch wanted, for a resumed run.
    """
    source = PatchSource(
        loader, ids, seed=seed, stream=STREAMS[stream], num_steps=num_steps
    )
    size = source.batch_size
    # batched before the split over workers, so that a batch is one worker's work
    whole = grain.MapDataset.source(source)[start * size :].batch(size)
    reading = grain.ReadOptions(
        num_threads=loader.num_threads, prefetch_buffer_size=loader.num_ahead
    )
    graph = whole.to_iter_dataset(reading)
    if loader.num_workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads absl flags: grain#1355
        graph = graph.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=loader.num_workers, per_worker_buffer_size=loader.num_ahead
            )
        )
    return iter(graph)
