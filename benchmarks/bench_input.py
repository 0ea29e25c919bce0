"""The input pipeline: batches from a store, cut as augmentation needs them."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.timing import Work

PEERS = ()


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How batches are read.

    Attributes:
      patch_size: [vox].
      spacing_mm: grid of the synthetic cases.
      num_cases: how many there are.
      num_workers: processes; 0 reads in threads.
      num_threads: reading threads of each process.
      num_batches: of one call, many more than are read ahead.
      is_moved: cut boxes where nnU-Net's augmentation moves a patch.
      to_device: until the batch is there; else what the host does alone.
    """

    patch_size: tuple[int, int, int]
    spacing_mm: float
    num_cases: int
    num_workers: int
    num_threads: int
    num_batches: int = 50
    is_moved: bool = False
    to_device: bool = True


def _stream(num_workers: int, num_threads: int) -> Stream:
    return Stream(
        patch_size=(64, 64, 64),
        spacing_mm=1.5,
        num_cases=4,
        num_workers=num_workers,
        num_threads=num_threads,
    )


CASES = {
    f"64x64x64 b2, {w} workers, {t} threads": _stream(w, t)
    for w, t in ((0, 1), (0, 2), (1, 1), (2, 1))
} | {
    f"64x192x160 b2 moved, host alone, {w} workers, {t} threads": Stream(
        patch_size=(64, 192, 160),
        spacing_mm=1.0,
        num_cases=3,
        num_workers=w,
        num_threads=t,
        num_batches=20,
        is_moved=True,
        to_device=False,
    )
    for w, t in ((0, 2), (2, 1))
}
QUICK = {
    "tiny": Stream(
        patch_size=(8, 8, 8),
        spacing_mm=6.0,
        num_cases=1,
        num_workers=0,
        num_threads=1,
        num_batches=1,
    )
}
BATCH_SIZE = 2


def ours(stream: Stream, *, scratch: Path) -> Work:
    import jax

    import bmjax
    from bmjax import sharding
    from bmjax.augment import Spatial
    from bmjax.data import phantom
    from bmjax.data.pipeline import Loader, batches
    from bmjax.data.source import Variation

    store = scratch / "store"
    cohort = phantom.Cohort(
        num_cases=stream.num_cases, spacing_mm=(stream.spacing_mm,) * 3
    )
    if not store.is_dir():
        phantom.write_cohort(cohort, scratch / "raw")
        bmjax.prepare(
            scratch / "raw", store, patch_size=stream.patch_size, num_workers=1
        )
    loader = Loader(
        store=str(store),
        patch_size=stream.patch_size,
        batch_size=BATCH_SIZE,
        num_workers=stream.num_workers,
        num_threads=stream.num_threads,
    )
    ids = tuple(cohort.case_id(i) for i in range(stream.num_cases))
    source = batches(
        loader,
        ids,
        seed=0,
        stream="train",
        num_steps=100_000,
        variation=Variation(spatial=Spatial()) if stream.is_moved else None,
    )
    mesh = sharding.data_mesh(jax.devices()[:1])

    def call() -> None:
        for batch in islice(source, stream.num_batches):
            if stream.to_device:
                arrays = {name: batch[name] for name in ("image", "labels")}
                jax.block_until_ready(sharding.put_batch(arrays, mesh))

    return Work(
        call=call,
        facts={
            "samples_per_call": BATCH_SIZE * stream.num_batches,
            "prepared_mib": source.prepared_bytes / 2**20,
        },
    )
