"""What a prediction will take: passes, time and memory, before it begins.

Sizes are those of the files, uncropped: an upper bound. Time is that of one batch of
windows here and now.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.estimate import Sizes, free_disk_bytes, free_memory_bytes, peak_bytes
from bmjax.data.geometry import permute, triple
from bmjax.data.resample import new_size
from bmjax.inference.outputs import Outputs
from bmjax.inference.sliding import Forward, sliding_logits
from bmjax.inference.windows import SlidingWindow, num_windows, padded_size
from bmjax.planning.plan import Plan

_GIB = 2**30
_LEAST_ROUNDS = 10  # to try one batch costs two rounds


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What predicting will take, at most.

    Attributes:
      num_cases: whose files can be read.
      num_windows: of all cases together.
      num_passes: of each window through a network: mirrors times folds.
      seconds: for the windows; None where there are too few to try one.
      num_devices: that share them.
      platform: what kind of device, such as cpu.
      case_bytes: memory of the largest case and of its neighbours that are read and
        written beside it, above that of a bare process.
      free_memory_bytes: of the machine or its container; None where it is not known.
      disk_bytes: of all files that will be written, uncompressed.
      free_disk_bytes: where they will be.
    """

    num_cases: int
    num_windows: int
    num_passes: int
    seconds: float | None
    num_devices: int
    platform: str
    case_bytes: int
    free_memory_bytes: int | None
    disk_bytes: int
    free_disk_bytes: int

    def __str__(self) -> str:
        duration = "time not tried"
        if self.seconds is not None and self.seconds >= 3600:
            duration = f"up to {self.seconds / 3600:.1f} h"
        elif self.seconds is not None:
            duration = f"up to {max(self.seconds / 60, 0.1):.1f} min"
        free, warning = "an unknown amount", ""
        if self.free_memory_bytes is not None:
            free = f"{self.free_memory_bytes / _GIB:.1f} GiB"
            if self.case_bytes > self.free_memory_bytes:
                warning = "; MEMORY MAY NOT SUFFICE: crop or resample the largest case"
        if self.disk_bytes > self.free_disk_bytes:
            warning += "; THE DISK MAY NOT SUFFICE: make room, or ask for fewer maps"
        return (
            f"to predict: {self.num_cases} cases, {self.num_windows} windows x "
            f"{self.num_passes} passes, {duration} on {self.num_devices} "
            f"{self.platform} devices; memory up to {self.case_bytes / _GIB:.2f} GiB "
            f"of {free} free, disk up to {self.disk_bytes / _GIB:.2f} GiB of "
            f"{self.free_disk_bytes / _GIB:.1f} GiB free{warning}"
        )


def estimate(
    forward: Forward,
    cases: Sequence[Case],
    plan: Plan,
    *,
    settings: SlidingWindow,
    outputs: Outputs,
    out: Path = Path(),
    num_folds: int | None = None,
    devices: Sequence[Any] | None = None,
) -> Estimate:
    """What `predict_cases` will take; a case whose header cannot be read is left out.

    Args:
      forward: the network, see `sliding_logits`.
      cases: what to predict.
      plan: how they are prepared.
      settings: the sliding window.
      outputs: what is written.
      out: folder for it, made or not.
      num_folds: networks in `forward`, if it is from `stack_folds`.
      devices: that share the windows; None takes the first one.
    """
    devices = list(devices or jax.devices()[:1])
    sizes = [found for case in cases if (found := _sizes(case, plan)) is not None]
    counts = [
        num_windows(
            after,
            plan.patch_size,
            overlap=settings.overlap,
            convention=settings.convention,
        )
        for _, after in sizes
    ]
    together = settings.batch_size * len(devices)
    rounds = sum(-(-count // together) for count in counts)
    seconds = None
    if rounds >= _LEAST_ROUNDS:
        seconds = rounds * _round_s(
            forward, plan, settings, num_folds, devices, together
        )
    num_kept = (num_folds or 1) if outputs.needs_folds() else 1
    needed = [
        _case_bytes(before, after, plan, outputs, num_kept, len(sizes) > 1)
        for before, after in sizes
    ]
    return Estimate(
        num_cases=len(sizes),
        num_windows=sum(counts),
        num_passes=settings.num_mirrors(plan.patch_size) * (num_folds or 1),
        seconds=seconds,
        num_devices=len(devices),
        platform=devices[0].platform,
        case_bytes=max(needed, default=0),
        free_memory_bytes=free_memory_bytes(),
        # labels of a byte each, and maps of four
        disk_bytes=sum(
            prod(before) * (1 + 4 * len(outputs.maps) * plan.num_classes)
            for before, _ in sizes
        ),
        free_disk_bytes=free_disk_bytes(out),
    )


def _sizes(case: Case, plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Size of a case's file and on the plan's grid, in the plan's axes."""
    try:
        path = case.reading.source(case.images, plan.channels[0])
        size, affine = nifti.grid_of(path, orientation=plan.orientation)
    except (ValueError, OSError, KeyError):
        return None  # its fault is told when its turn comes
    order = plan.transpose_forward
    before = permute(size, order)
    spacing_mm = permute(nifti.spacing_of(affine), order)
    target_mm = triple((*spacing_mm[: 3 - len(plan.spacing_mm)], *plan.spacing_mm))
    return before, new_size(before, spacing_mm=spacing_mm, new_spacing_mm=target_mm)


def _case_bytes(
    before: tuple[int, ...],
    after: tuple[int, ...],
    plan: Plan,
    outputs: Outputs,
    num_kept: int,
    has_neighbours: bool,
) -> int:
    """What is alive at once: a case in the network, one read, and one written."""
    native = prod(before)
    grid = prod(padded_size(after, plan.patch_size))
    num_channels, num_regions = len(plan.channels), plan.num_classes
    reading = peak_bytes(Sizes(native, native, prod(after)), num_channels)
    logits = 4 * num_kept * num_regions * grid
    running = 4 * num_channels * grid + logits + 4 * grid
    # labels cropped and whole, and their file's bytes
    writing = logits + 3 * native
    if outputs.maps:
        writing += 2 * 4 * native  # cropped and whole
    if outputs.lesions == "csv" or outputs.min_volume_mm3:
        writing += 3 * 4 * native  # components, where they are
    if outputs.smooth_mm:
        writing += 2 * logits
    if has_neighbours:
        return reading + running + writing
    return max(reading, running, writing)


def _round_s(
    forward: Forward,
    plan: Plan,
    settings: SlidingWindow,
    num_folds: int | None,
    devices: list[Any],
    together: int,
) -> float:
    """Time of one batch of windows [s], after it was compiled."""
    window = plan.patch_size
    slices = together if len(window) == 2 else 1
    size = (*(slices,) * (3 - len(window)), *window)
    image = np.zeros((*size, len(plan.channels)), np.float32)
    seconds = 0.0
    for _ in range(2):  # the first one compiles
        start = time.perf_counter()
        sliding_logits(
            forward,
            image,
            window=window,
            num_classes=plan.num_classes,
            settings=settings,
            num_folds=num_folds,
            devices=devices,
        )
        seconds = time.perf_counter() - start
    return seconds
