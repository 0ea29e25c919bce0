"""What preparing a data set will take: time, disk and memory, before it begins.

Sizes follow from the cases' facts and the plan. Memory is an upper bound of what is
alive at once. Time is that of preparing one case here and now, scaled by voxels.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bmjax.data.cases import Case
from bmjax.data.cropping import read_cropped
from bmjax.data.parallel import default_workers
from bmjax.data.resample import new_size
from bmjax.data.store import TEMPORARY, Precision, prepare_case
from bmjax.planning import Plan

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What preparing will take.

    Attributes:
      num_cases: still to be prepared.
      num_workers: processes that fit into memory.
      seconds: of all of them together; None where no case could be tried.
      disk_bytes: that will be written.
      free_disk_bytes: on the store's disk.
      case_bytes: memory of the largest case, above that of a bare process.
      free_memory_bytes: of the machine or its container; None where it is not known.
    """

    num_cases: int
    num_workers: int
    seconds: float | None
    disk_bytes: int
    free_disk_bytes: int
    case_bytes: int
    free_memory_bytes: int | None

    def __str__(self) -> str:
        minutes = "unknown"
        if self.seconds is not None:
            minutes = f"about {max(self.seconds / 60, 0.1):.1f} min"
        free = "an unknown amount"
        warning = ""
        if self.free_memory_bytes is not None:
            free = f"{self.free_memory_bytes / _GIB:.1f} GiB"
            if self.num_workers * self.case_bytes > self.free_memory_bytes:
                warning = "; MEMORY MAY NOT SUFFICE: lower --num-workers"
        return (
            f"to prepare: {self.num_cases} cases, {minutes} with {self.num_workers} "
            f"workers; disk {self.disk_bytes / _GIB:.2f} GiB of "
            f"{self.free_disk_bytes / _GIB:.1f} GiB free; memory up to "
            f"{self.case_bytes / _GIB:.2f} GiB a worker of {free} free{warning}"
        )


def estimate(
    cases: Sequence[Case],
    facts: Sequence[Mapping[str, Any]],
    plan: Plan,
    store: Path,
    *,
    dtype: Precision = "float32",
    num_workers: int | None = None,
) -> Estimate:
    """What preparing cases into a store will take.

    Args:
      cases: all of them; those that the store holds already are not counted.
      facts: of each, from `measure_cases`.
      plan: how they are prepared.
      store: where to, made or not.
      dtype: of the stored images.
      num_workers: processes wanted; None: one for each processor, as many as fit into
        memory.

    Raises:
      OSError: the disk is too small.
    """
    pairs = [
        (case, fact)
        for case, fact in zip(cases, facts, strict=True)
        if not (store / "cases" / case.id / "case.json").is_file()
    ]
    sizes = [_sizes(fact, plan) for _, fact in pairs]
    num_channels = len(plan.channels)
    disk = sum(n.after * (num_channels * np.dtype(dtype).itemsize + 1) for n in sizes)
    free_disk = free_disk_bytes(store)
    if disk > free_disk:
        raise OSError(
            f"{store}: {disk / _GIB:.3g} GiB are needed and {free_disk / _GIB:.3g} GiB "
            "are free on its disk; make room, take another disk, or prepare as float16"
        )
    case_bytes = max((peak_bytes(n, num_channels) for n in sizes), default=0)
    free_memory = free_memory_bytes()
    if num_workers is None:
        num_workers = default_workers(len(pairs))
        if free_memory is not None and case_bytes:
            num_workers = max(1, min(num_workers, free_memory // case_bytes))
    todo = [case for case, _ in pairs]
    seconds = _seconds(todo, sizes, plan, store, dtype)
    return Estimate(
        num_cases=len(pairs),
        num_workers=num_workers,
        seconds=seconds and seconds / num_workers,
        disk_bytes=disk,
        free_disk_bytes=free_disk,
        case_bytes=case_bytes,
        free_memory_bytes=free_memory,
    )


def free_disk_bytes(folder: Path) -> int:
    """Room on the disk of a folder, made or not."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def free_memory_bytes(
    meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")
) -> int | None:
    """Memory that can be had without swapping, of the machine and of its container."""
    found = []
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found.append(max(0, int(limit.read_text()) - int(used.read_text())))
    return min(found, default=None)


@dataclass(frozen=True)
class Sizes:
    """Voxels of a case: of its files, inside the crop, and on the plan's grid."""

    before: int
    inside: int
    after: int


def _sizes(fact: Mapping[str, Any], plan: Plan) -> Sizes:
    order = plan.transpose_forward
    inside = tuple(fact["size_after_crop"][i] for i in order)
    spacing_mm = tuple(fact["spacing_mm"][i] for i in order)
    target_mm = (*spacing_mm[: 3 - len(plan.spacing_mm)], *plan.spacing_mm)
    after = new_size(inside, spacing_mm=spacing_mm, new_spacing_mm=target_mm)
    return Sizes(prod(fact["size"]), prod(inside), prod(after))


def peak_bytes(n: Sizes, num_channels: int) -> int:
    """What is alive at once, while files are read and while channels are resampled."""
    # one file's voxels twice over, labels and mask, and all contents as float32
    reading = n.before * (2 * 4 + 1 + 1) + 4 * num_channels * n.inside
    # contents, the result, and two channels on their way
    resampling = 4 * num_channels * (n.inside + n.after) + 2 * 4 * max(
        n.inside, n.after
    )
    return max(reading, resampling)


def _seconds(
    cases: Sequence[Case],
    sizes: Sequence[Sizes],
    plan: Plan,
    store: Path,
    dtype: Precision,
) -> float | None:
    """Try one case: reading goes with its files' voxels, the rest with the result's."""
    values = tuple(value for _, value in plan.labels)
    folder = store / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    for case, size in zip(cases, sizes, strict=True):
        try:
            start = time.perf_counter()
            read_cropped(
                case,
                channels=plan.channels,
                orientation=plan.orientation,
                label_values=values,
            )
            read = time.perf_counter()
            with TemporaryDirectory(prefix=TEMPORARY, dir=folder) as scratch:
                prepare_case(case, plan=plan, folder=Path(scratch), dtype=dtype)
                done = time.perf_counter()
        except (ValueError, OSError):
            continue  # its fault is told when its turn comes
        reading = (read - start) / size.before
        rest = max(done - read - (read - start), 0) / size.after
        return sum(reading * n.before + rest * n.after for n in sizes)
    return 0.0 if not cases else None
