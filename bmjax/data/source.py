"""Every batch of a run, cut from the store: a function of seed, stream and step."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmjax.augment.geometry import Placement, Size, Spatial
from bmjax.data.patches import (
    Centring,
    Sampling,
    cut_donor,
    cut_sample,
    generator,
    is_on_lesion,
)
from bmjax.data.store import Store, StoredCase


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Where patches come from and how they are drawn.

    Attributes:
      store: folder made by `bmjax prepare`.
      patch_size: size of a patch [vox]; None takes it from the plan.
      batch_size: samples of a batch, over all devices; None takes it from the plan.
      p_lesion: fraction of a batch that is centred on a lesion voxel.
      centring: draw that voxel by class (nnU-Net) or by lesion: each lesion of a case
        has the same chance.
      volume_power: weight lesions by their volume to the power of minus this; 1 is the
        inverse of the volume.
      held_out: ids of the cases to validate on; empty to use a fold.
      fold: which fold to validate on, from 0.
      num_folds: number of folds, split by patient.
      num_workers: worker processes; 0 reads in threads of this process.
      num_threads: reading threads, of each process.
      num_ahead: batches prepared in advance.
      timeout_s: the run ends where worker processes bring no batch for so long [s], as
        when a network disk hangs.
    """

    store: str | None = None
    patch_size: Size | None = None
    batch_size: int | None = None
    p_lesion: float = 0.33
    centring: Centring = "lesion"
    volume_power: float = 0.0
    held_out: tuple[str, ...] = ()
    fold: int = 0
    num_folds: int = 5
    num_workers: int = 0
    num_threads: int = 2
    num_ahead: int = 4
    timeout_s: float = 900.0


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What the device needs for augmentation beyond the patch.

    Attributes:
      spatial: how patches are moved.
      donor_size: side of the box around a small lesion of another case, sent along with
        each sample to be pasted [vox]; 0 for none.
      donor_mm3: smallest and largest volume of such a lesion.
    """

    spatial: Spatial
    donor_size: int = 0
    donor_mm3: tuple[float, float] = (0.0, 0.0)


class PatchSource:
    """Random access to every batch of a run; picklable, opens the store when read.

    Args:
      loader: how to draw; its patch and batch size are set.
      ids: cases to draw from, uniformly, with replacement.
      seed: of the run.
      stream: 0 for training, 1 for validation.
      num_steps: number of batches.
      variation: for augmentation; None for patches as they are.
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
        variation: Variation | None = None,
        slots: range | None = None,
    ) -> None:
        if not loader.store or not loader.patch_size or not loader.batch_size:
            raise ValueError(
                "data.store, data.patch_size and data.batch_size must be set; "
                "give --data.store STORE and let the plan fill the others"
            )
        self._store = Store(Path(loader.store))
        self._patch_size, self.batch_size = loader.patch_size, loader.batch_size
        self._ids, self._p_lesion = ids, loader.p_lesion
        self._sampling = Sampling(
            centring=loader.centring, volume_power=loader.volume_power
        )
        self._seed, self._stream, self._num_steps = seed, stream, num_steps
        self._variation = variation
        self._slots = range(self.batch_size) if slots is None else slots
        self._opened: dict[int, StoredCase] = {}
        self._load_size = self._box_size = self._patch_size
        if variation is not None:
            self._load_size = variation.spatial.box_size(self._patch_size)
            self._box_size = self._fitted(self._load_size)

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, index: int) -> dict[str, Any]:
        step = int(index)
        rngs = [
            generator(seed=self._seed, stream=self._stream, step=step, slot=slot)
            for slot in range(self.batch_size)
        ]
        # of the whole batch, so that all processes cut the same size
        placements: list[Placement | None] = [None] * self.batch_size
        if self._variation is not None:
            spatial = self._variation.spatial
            placements = [spatial.draw(rng, self._patch_size) for rng in rngs]
        is_moved = any(p is not None and p.is_moved for p in placements)
        size = self._box_size if is_moved else self._patch_size
        rngs = [rngs[slot] for slot in self._slots]
        placements = [placements[slot] for slot in self._slots]
        cases = [int(rng.integers(len(self._ids))) for rng in rngs]
        num_channels = self._case(cases[0]).image.shape[-1]
        image = np.zeros((len(cases), *size, num_channels), np.float32)
        labels = np.zeros((len(cases), *size), np.int8)
        affines = [
            cut_sample(
                self._case(case),
                image=image[place],
                labels=labels[place],
                patch_size=self._patch_size,
                load_size=self._load_size,
                on_lesion=is_on_lesion(
                    slot, batch_size=self.batch_size, p_lesion=self._p_lesion
                ),
                sampling=self._sampling,
                placement=placements[place],
                rng=rngs[place],
            )
            for place, (slot, case) in enumerate(zip(self._slots, cases, strict=True))
        ]
        # an index, not a name: strings do not survive shared memory whole
        batch = {"image": image, "labels": labels, "case": np.asarray(cases, np.int32)}
        if is_moved:
            batch["affine"] = np.stack(affines)
            bent = [p.elastic for p in placements if p and p.elastic is not None]
            batch |= {"elastic": np.stack(bent)} if bent else {}
        if self._variation is not None and self._variation.donor_size:
            batch |= self._donors(rngs, self._variation)
        return batch

    @property
    def batch_bytes(self) -> int:
        """Most memory of a batch: float32 channels and int8 labels."""
        num_channels = len(self._store.plan.channels)
        size, samples = math.prod(self._box_size), len(self._slots)
        if self._variation is not None:
            size += self._variation.donor_size**3
        return samples * size * (4 * num_channels + 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": {}}

    def _case(self, index: int) -> StoredCase:
        """A case of the list, opened once in each process."""
        if index not in self._opened:
            self._opened[index] = self._store.case(self._ids[index])
        return self._opened[index]

    def _fitted(self, load_size: Size) -> Size:
        """A box no larger than the largest case: beyond it there are only zeros."""
        sizes = [self._case(i).image.shape[:3] for i in range(len(self._ids))]
        largest = np.max(sizes, 0)[-len(load_size) :]
        return tuple(
            min(load, max(part, int(most)))
            for load, part, most in zip(
                load_size, self._patch_size, largest, strict=True
            )
        )

    def _donors(
        self, rngs: list[np.random.Generator], variation: Variation
    ) -> dict[str, np.ndarray]:
        """A small lesion of some case for each sample, and a number to place it by."""
        found = [
            cut_donor(
                self._case(int(rng.integers(len(self._ids)))),
                size=variation.donor_size,
                volume_mm3=variation.donor_mm3,
                rng=rng,
            )
            for rng in rngs
        ]
        return {
            "donor_image": np.stack([image for image, _ in found]),
            "donor_labels": np.stack([labels for _, labels in found]),
            "donor_seed": np.asarray([rng.integers(2**31) for rng in rngs], np.int32),
        }
