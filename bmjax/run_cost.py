"""What a training run will take, before it begins: memory of a step, room on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import jax

from bmjax.data.estimate import free_disk_bytes, free_memory_bytes
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.training import TrainState
from bmjax.training.memory import estimate_step

_GIB = 2**30
# tracing a step costs half a second at the least; one so small fits anywhere
_LEAST_VOXELS = 64**3


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a run will take.

    Attributes:
      step_bytes: liveness estimate of a training step on each device; None where the
        batch is too small to matter.
      free_memory_bytes: of each device; None where it is not known.
      disk_bytes: of the checkpoints that are still to come, the one being written
        included.
      free_disk_bytes: where they will be.
    """

    step_bytes: int | None
    free_memory_bytes: int | None
    disk_bytes: int
    free_disk_bytes: int

    def __str__(self) -> str:
        disk = (
            f"checkpoints take {self.disk_bytes / _GIB:.2f} GiB of "
            f"{self.free_disk_bytes / _GIB:.1f} GiB free"
        )
        if self.step_bytes is None:
            return disk
        free, warning = "an unknown amount", ""
        if self.free_memory_bytes is not None:
            free = f"{self.free_memory_bytes / _GIB:.1f} GiB free"
            if self.step_bytes > self.free_memory_bytes:
                warning = (
                    "; MEMORY MAY NOT SUFFICE: lower --data.batch-size, or take "
                    "--model.use-remat"
                )
        step = f"a step takes about {self.step_bytes / _GIB:.2f} GiB a device of {free}"
        return f"{step}, {disk}{warning}"


def run_cost(
    run: Path,
    experiment: Experiment,
    plan: Plan,
    state: TrainState,
    *,
    num_saved: int,
    devices: Sequence[Any],
) -> RunCost:
    """What is still to come of a run.

    Args:
      run: its folder.
      experiment: resolved.
      plan: of its store.
      state: as it begins.
      num_saved: checkpoints that are there.
      devices: that share each batch.

    Raises:
      OSError: the disk is too small for its checkpoints.
    """
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    # the newest ones, the best, and the one on its way
    disk = one * max(1, experiment.fit.keep_last + 2 - num_saved)
    free_disk = free_disk_bytes(run)
    if disk > free_disk:
        raise OSError(
            f"{run}: its checkpoints need {disk / _GIB:.3g} GiB and "
            f"{free_disk / _GIB:.3g} GiB are free on its disk; make room, choose "
            "another --workdir, or lower --fit.keep-last"
        )
    size = experiment.data.patch_size or plan.patch_size
    batch_size = experiment.data.batch_size or 1
    share = -(-batch_size // experiment.optimizer.accumulate // len(devices))
    step = None
    if share * prod(size) >= _LEAST_VOXELS:
        step = estimate_step(
            model=experiment.model,
            loss=experiment.loss,
            optimizer=experiment.optimizer.transformation(),
            regions=plan.regions,
            size=(share, *size),
            num_channels=len(plan.channels),
        ).total
    return RunCost(
        step_bytes=step,
        free_memory_bytes=_free_memory(devices),
        disk_bytes=disk,
        free_disk_bytes=free_disk,
    )


def _free_memory(devices: Sequence[Any]) -> int | None:
    """Of one device; the parts of a CPU share what the machine has."""
    if devices[0].platform == "cpu":
        free = free_memory_bytes()
        return None if free is None else free // len(devices)
    facts = devices[0].memory_stats() or {}
    if "bytes_limit" not in facts:
        return None
    return facts["bytes_limit"] - facts.get("bytes_in_use", 0)
