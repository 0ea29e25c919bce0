"""From a spacing and a case size to the stages of a U-Net and the patch it sees.

nnU-Net's rules (network topology and experiment planner): pool the axes whose voxels
are finest, until a feature map would get too small; shrink the patch until the sum of
the feature maps, a stand-in for memory, meets the reference of the preset.
"""

from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

import numpy as np

Preset = Literal["default", "resenc", "resenc_m", "resenc_l", "resenc_xl"]
MIN_EDGE = 4  # no axis of a feature map gets shorter [vox]
BASE_FEATURES = 32
MAX_FEATURES = {2: 512, 3: 320}  # by number of axes
REFERENCE_BATCH = {2: 12, 3: 2}
MIN_BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The network that a preset plans for, and what it may cost.

    Attributes:
      is_residual: residual encoder with a stem, instead of plain convolutions.
      encoder_blocks: blocks of the first stages; the last number goes on.
      decoder_blocks: convolution blocks of each decoder stage.
      reference: feature-map voxels at the reference batch, by number of axes.
      memory_gb: of the GPU that the reference stands for [GB].
      max_dataset_fraction: largest share of the data set's voxels in one batch.
    """

    is_residual: bool = True
    encoder_blocks: tuple[int, ...] = (1, 3, 4, 6)
    decoder_blocks: int = 1
    reference: tuple[tuple[int, int], ...]
    memory_gb: float = 8.0
    max_dataset_fraction: float = 1.0


BUDGETS: dict[Preset, Budget] = {
    "default": Budget(
        is_residual=False,
        encoder_blocks=(2,),
        decoder_blocks=2,
        reference=((2, 85_000_000), (3, 560_000_000)),
        max_dataset_fraction=0.05,
    ),
    "resenc": Budget(
        reference=((2, 135_000_000), (3, 680_000_000)), max_dataset_fraction=0.05
    ),
    "resenc_m": Budget(reference=((2, 135_000_000), (3, 680_000_000))),
    "resenc_l": Budget(
        reference=((2, 380_000_000), (3, 2_100_000_000)), memory_gb=24.0
    ),
    "resenc_xl": Budget(
        reference=((2, 560_000_000), (3, 3_600_000_000)), memory_gb=40.0
    ),
}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The shape of a U-Net.

    Attributes:
      patch_size: smallest patch, at least as large as asked for, that pools evenly.
      strides: stride that enters each stage; the first is all ones.
      kernel_sizes: convolution kernel of each stage [vox].
      features: channels of each stage.
      batch_size: patches per step.
    """

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    features: tuple[int, ...]
    batch_size: int = MIN_BATCH


def divisor(strides: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Factor by which the strides together shrink each axis."""
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


def pool(
    spacing_mm: tuple[float, ...], patch_size: tuple[int | float, ...]
) -> Topology:
    """The stages for a patch: which axes are pooled when, and the kernels.

    An axis is pooled while its feature map keeps four voxels, together with all axes
    whose voxels are less than twice the finest; a kernel grows from 1 to 3 along an
    axis once its voxels are less than twice the finest.

    Args:
      spacing_mm: voxel size along each axis [mm].
      patch_size: wanted patch; rounded up in the result until it pools evenly [vox].
    """
    axes = range(len(spacing_mm))
    spacing, size = list(spacing_mm), list(patch_size)
    kernel = [1] * len(spacing)
    strides, kernel_sizes = [(1,) * len(spacing)], []
    while True:
        large = [i for i in axes if size[i] >= 2 * MIN_EDGE]
        if not large:
            break
        finest = min(spacing[i] for i in large)
        pooled = [i for i in large if spacing[i] / finest < 2]
        if len(pooled) == 1 and size[pooled[0]] < 3 * MIN_EDGE:
            break
        for i in axes:
            if spacing[i] / min(spacing) < 2:
                kernel[i] = 3
        for i in pooled:
            spacing[i] *= 2
            size[i] = ceil(size[i] / 2)
        strides.append(tuple(2 if i in pooled else 1 for i in axes))
        kernel_sizes.append(tuple(kernel))
    kernel_sizes.append((3,) * len(spacing))
    steps = divisor(tuple(strides))
    return Topology(
        patch_size=tuple(
            ceil(p / s) * s for p, s in zip(patch_size, steps, strict=True)
        ),
        strides=tuple(strides),
        kernel_sizes=tuple(kernel_sizes),
        features=tuple(
            min(MAX_FEATURES[len(spacing)], BASE_FEATURES * 2**i)
            for i in range(len(strides))
        ),
    )


def reference_voxels(
    preset: Preset, *, rank: int, memory_gb: float | None = None
) -> float:
    """Feature-map voxels that a preset allows, in proportion to the memory.

    Args:
      preset: which planner.
      rank: number of axes.
      memory_gb: of the GPU [GB]; None: the one that the preset is made for.
    """
    budget = BUDGETS[preset]
    share = 1.0 if memory_gb is None else memory_gb / budget.memory_gb
    return dict(budget.reference)[rank] * share


def feature_map_voxels(net: Topology, *, budget: Budget, num_outputs: int) -> int:
    """Numbers that all convolutions of a network put out for one patch.

    nnU-Net's stand-in for memory (`compute_conv_feature_map_size`), without deep
    supervision.

    Args:
      net: the stages and the patch.
      budget: kind of network and its blocks.
      num_outputs: channels of the head.
    """
    sizes = [net.patch_size]
    for stride in net.strides:
        sizes.append(tuple(n // s for n, s in zip(sizes[-1], stride, strict=True)))
    voxels = [prod(size) for size in sizes[1:]]  # of each stage
    total = voxels[0] * num_outputs
    for stage, (features, count) in enumerate(zip(net.features, voxels, strict=True)):
        blocks = budget.encoder_blocks[min(stage, len(budget.encoder_blocks) - 1)]
        maps = blocks
        if budget.is_residual:
            widened = stage > 0 and features != net.features[stage - 1]
            has_projection = widened or sizes[stage] != sizes[stage + 1]
            maps = 2 * blocks + has_projection + (stage == 0)  # the stem
        if stage < len(voxels) - 1:
            maps += budget.decoder_blocks + 1  # and the transposed convolution
        total += maps * features * count
    return total


def fit(
    spacing_mm: tuple[float, ...],
    median_size: tuple[int | float, ...],
    *,
    dataset_voxels: float,
    num_outputs: int,
    preset: Preset = "default",
    memory_gb: float | None = None,
) -> Topology:
    """The largest patch that meets the budget, with its stages and its batch size.

    Args:
      spacing_mm: target spacing [mm].
      median_size: median size of the cases at that spacing [vox].
      dataset_voxels: voxels of the whole data set at that spacing.
      num_outputs: classes with background, as nnU-Net counts them.
      preset: which planner.
      memory_gb: of the GPU [GB]; None: the one that the preset is made for.

    Raises:
      ValueError: not even the smallest patch fits.
    """
    budget, rank = BUDGETS[preset], len(spacing_mm)
    reference = reference_voxels(preset, rank=rank, memory_gb=memory_gb)
    reference_batch = REFERENCE_BATCH[rank]
    aspect = 1 / np.array(spacing_mm)
    volume = {2: 2048**2, 3: 256**3}[rank]
    largest = [round(i) for i in aspect * (volume / np.prod(aspect)) ** (1 / rank)]
    net = pool(spacing_mm, tuple(map(min, largest, median_size)))
    while True:
        cost = feature_map_voxels(net, budget=budget, num_outputs=num_outputs)
        # the default planner insists on a batch of two, the residual ones on one patch
        excess = cost if budget.is_residual else cost / reference_batch * MIN_BATCH
        if excess <= reference:
            break
        if max(net.patch_size) <= 2 * MIN_EDGE:
            raise ValueError(
                f"plan: no patch is small enough for {memory_gb:g} GB; give more"
            )
        net = _shrink(net, spacing_mm=spacing_mm, median_size=median_size)
    batch = round(reference / cost * reference_batch)
    covered = dataset_voxels * budget.max_dataset_fraction / prod(net.patch_size)
    return Topology(
        patch_size=net.patch_size,
        strides=net.strides,
        kernel_sizes=net.kernel_sizes,
        features=net.features,
        batch_size=max(min(batch, round(covered)), MIN_BATCH),
    )


def _shrink(
    net: Topology,
    *,
    spacing_mm: tuple[float, ...],
    median_size: tuple[int | float, ...],
) -> Topology:
    """The next smaller patch: shorter along the axis that covers most of a case."""
    cover = [p / m for p, m in zip(net.patch_size, median_size, strict=True)]
    axis = int(np.argsort(cover, kind="stable")[-1])
    # a step that keeps the pooling may skip legal sizes (224 = 7 * 2**5 below 256), so
    # the step is that of the topology one step down
    trial = list(net.patch_size)
    trial[axis] -= divisor(net.strides)[axis]
    size = list(net.patch_size)
    size[axis] -= divisor(pool(spacing_mm, tuple(trial)).strides)[axis]
    return pool(spacing_mm, tuple(size))


def nearest_legal(
    spacing_mm: tuple[float, ...], patch_size: tuple[int, ...]
) -> tuple[int, ...]:
    """The patch closest to the wanted one that its own topology divides evenly."""
    net = pool(spacing_mm, patch_size)
    steps = divisor(net.strides)
    rounded = tuple(
        max(1, round(p / s)) * s for p, s in zip(patch_size, steps, strict=True)
    )
    is_legal = pool(spacing_mm, rounded).patch_size == rounded
    return rounded if is_legal else net.patch_size


def require_divisible(
    patch_size: tuple[int, ...], strides: tuple[tuple[int, ...], ...]
) -> None:
    """Refuse a patch that the strides do not divide.

    Raises:
      ValueError: names the nearest patch that fits.
    """
    steps = divisor(strides)
    legal = tuple(
        max(1, round(p / s)) * s for p, s in zip(patch_size, steps, strict=True)
    )
    if legal != tuple(patch_size):
        raise ValueError(
            f"patch_size {patch_size} is not divisible by {steps}, the product of the "
            f"strides; the nearest legal patch is {legal}"
        )
