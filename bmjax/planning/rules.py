"""From a fingerprint to the configurations of a data set, by nnU-Net's default planner.

Target spacing, axis order, sizes after resampling, and whether a low-resolution stage
is called for (Isensee et al. 2021; experiment planner of nnU-Net v2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from bmjax.planning.fingerprint import require_cases
from bmjax.planning.topology import Preset, Topology, fit

ANISOTROPY = 3.0  # an axis this much coarser than the others is treated apart
MASK_NORM_BELOW = 0.75  # normalise inside the brain if cropping removes a quarter
LOWRES_BELOW = 0.25  # patch / median case that calls for a low-resolution stage
LOWRES_STEP = 1.03


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One network of a data set's plans: its grid, its shape, its Dice.

    Attributes:
      spacing_mm: target spacing [mm].
      median_size: median size of the cases at that spacing [vox].
      net: patch, stages and batch size.
      batch_dice: sum the Dice terms over the batch before dividing.
    """

    spacing_mm: tuple[float, ...]
    median_size: tuple[int | float, ...]
    net: Topology
    batch_dice: bool


def target_spacing(fingerprint: Mapping[str, Any]) -> tuple[float, ...]:
    """Median spacing; a tenth percentile along a thick, short axis [mm]."""
    spacings = np.array(fingerprint["spacings_mm"], float)  # n 3
    target = np.percentile(spacings, 50, axis=0)
    size = np.percentile(np.array(fingerprint["sizes_after_crop"], float), 50, axis=0)
    thick = int(np.argmax(target))
    others = [i for i in range(3) if i != thick]
    finest = target[others].max()
    is_thick = target[thick] > ANISOTROPY * finest
    if is_thick and size[thick] * ANISOTROPY < size[others].min():
        tenth = np.percentile(spacings[:, thick], 10)
        target[thick] = tenth if tenth >= finest else finest + 1e-5
    return tuple(target.tolist())


def transpose_forward(spacing_mm: tuple[float, ...]) -> tuple[int, ...]:
    """Order of the axes that brings the coarsest first."""
    thick = int(np.argmax(spacing_mm))
    return (thick, *(i for i in range(3) if i != thick))


def size_at(
    size: Sequence[int], *, old_mm: Sequence[float], new_mm: Sequence[float]
) -> tuple[int, ...]:
    """Size of a grid of the same extent at another spacing [vox]."""
    return tuple(
        round(old / new * n) for old, new, n in zip(old_mm, new_mm, size, strict=True)
    )


def use_mask_for_norm(fingerprint: Mapping[str, Any]) -> bool:
    """Whether intensities are measured inside the non-zero region only."""
    relative = np.median(fingerprint["relative_size_after_crop"])
    return bool(relative < MASK_NORM_BELOW)


def configurations(
    fingerprint: Mapping[str, Any],
    *,
    num_outputs: int,
    preset: Preset = "default",
    spacing_mm: tuple[float, ...] | None = None,
    num_cases: int | None = None,
    memory_gb: float | None = None,
) -> dict[str, Configuration]:
    """The configurations "2d", "3d_fullres" and, where cases are large, "3d_lowres".

    Spacings and sizes are in the transposed order of axes.

    Args:
      fingerprint: what `fingerprint.summarise` returns.
      num_outputs: classes with background, as nnU-Net counts them.
      preset: which planner.
      spacing_mm: target spacing instead of the rule's, z y x as read [mm].
      num_cases: size of the data set, if the fingerprint is that of a part.
      memory_gb: of the GPU [GB]; None: the one that the preset is made for.
    """
    require_cases(fingerprint)
    target = spacing_mm or target_spacing(fingerprint)
    order = transpose_forward(target)
    sizes = [
        size_at(size, old_mm=old, new_mm=target)
        for size, old in zip(
            fingerprint["sizes_after_crop"], fingerprint["spacings_mm"], strict=True
        )
    ]
    median = tuple(np.median(sizes, axis=0)[list(order)].tolist())
    spacing = tuple(target[i] for i in order)
    num_cases = num_cases or len(sizes)
    dataset_voxels = prod(median) * num_cases
    flat = fit(
        spacing[1:],
        median[1:],
        dataset_voxels=dataset_voxels,
        num_outputs=num_outputs,
        preset=preset,
        memory_gb=memory_gb,
    )
    found = {
        "2d": Configuration(
            spacing_mm=spacing[1:], median_size=median[1:], net=flat, batch_dice=True
        )
    }
    if median[0] == 1:
        return found
    full = fit(
        spacing,
        median,
        dataset_voxels=dataset_voxels,
        num_outputs=num_outputs,
        preset=preset,
        memory_gb=memory_gb,
    )
    low = _low_resolution(
        Configuration(
            spacing_mm=spacing, median_size=median, net=full, batch_dice=False
        ),
        num_cases=num_cases,
        num_outputs=num_outputs,
        preset=preset,
        memory_gb=memory_gb,
    )
    found["3d_fullres"] = Configuration(
        spacing_mm=spacing, median_size=median, net=full, batch_dice=low is not None
    )
    if low is not None:
        found["3d_lowres"] = low
    return found


def _low_resolution(
    full: Configuration,
    *,
    num_cases: int,
    num_outputs: int,
    preset: Preset,
    memory_gb: float | None,
) -> Configuration | None:
    """A coarser configuration whose patch covers a quarter of a case, if worth it."""
    fine = np.array(full.spacing_mm)
    fine_size = np.array(full.median_size)
    spacing, low = fine.copy(), full
    voxels = fine_voxels = float(np.prod(fine_size))
    while prod(low.net.patch_size) / voxels < LOWRES_BELOW:
        # first the fine axes of anisotropic voxels, until all are within a factor of 2
        is_fine = spacing.max() / spacing > 2
        spacing[is_fine if is_fine.any() else ...] *= LOWRES_STEP
        size = fine / spacing * fine_size
        voxels = float(np.prod(size))
        rounded = tuple(round(n) for n in size.tolist())
        low = Configuration(
            spacing_mm=tuple(spacing.tolist()),
            median_size=rounded,
            net=fit(
                tuple(spacing.tolist()),
                rounded,
                dataset_voxels=voxels * num_cases,
                num_outputs=num_outputs,
                preset=preset,
                memory_gb=memory_gb,
            ),
            batch_dice=False,
        )
    return None if fine_voxels / voxels < 2 else low
