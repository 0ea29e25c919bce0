"""Draws metastases one by one: how many, how large, of which shape.

Numbers and volumes follow the enhancing lesions of 1,296 BraTS-METS cases (quantiles
measured on the expert masks of the challenge's public training sets). Of each case
the largest lesion is drawn from one table and the others from a second one: within a
case the volumes span four decades, so a pooled table would lose the largest.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bmjax.data.phantom_template import Axes, Grid, smooth_field

# Quantiles of 10,119 enhancing lesions in the 1,250 of 1,296 cases that have any.
_AT = (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
NUM_LESIONS = (1.0, 1.0, 1.0, 2.0, 4.0, 9.0, 17.0, 28.0, 55.5)
LARGEST_MM3 = (8.1, 29.8, 53.7, 179.0, 898.8, 3503.9, 9375.8, 13830.8, 27412.0)
OTHERS_MM3 = (0.6, 2.0, 4.5, 11.5, 31.0, 106.9, 350.3, 789.0, 3454.3)


@dataclass(frozen=True, kw_only=True)
class LesionMix:
    """How many metastases a case has, and how large they are.

    Attributes:
      num_scale: multiplies the published number per case.
      volume_scale: multiplies the published volumes.
      min_volume_mm3: smaller ones are not drawn.
      min_largest_mm3: every case has a lesion of at least this volume.
      max_lesions: upper limit per case.
      oedema: multiplies the reach of oedema.
    """

    num_scale: float = 1.0
    volume_scale: float = 1.0
    min_volume_mm3: float = 0.6
    min_largest_mm3: float = 8.0
    max_lesions: int = 40
    oedema: float = 1.0


def draw_volumes_mm3(
    rng: np.random.Generator, mix: LesionMix
) -> Float[np.ndarray, " l"]:
    """Enhancing volume of every lesion of one case, largest first."""
    num = np.interp(rng.uniform(), _AT, NUM_LESIONS) * mix.num_scale
    num = int(np.clip(np.rint(num), 1, mix.max_lesions))
    largest = _volume(rng, LARGEST_MM3, mix, above_mm3=mix.min_largest_mm3, size=1)
    others = _volume(rng, OTHERS_MM3, mix, above_mm3=mix.min_volume_mm3, size=num - 1)
    return np.sort(np.concatenate([largest, np.minimum(others, largest)]))[::-1]


def _volume(
    rng: np.random.Generator,
    table: tuple[float, ...],
    mix: LesionMix,
    *,
    above_mm3: float,
    size: int,
) -> Float[np.ndarray, " l"]:
    """Draw from a table of quantiles, cut off below a volume."""
    logs = np.log(np.array(table) * mix.volume_scale)
    lowest = min(np.interp(np.log(above_mm3), logs, _AT), _AT[-2])
    return np.exp(np.interp(rng.uniform(lowest, _AT[-1], size), _AT, logs))


@dataclass(frozen=True)
class Tumour:
    """One lesion on voxels around its own centre voxel."""

    share: Grid
    core: Grid
    half: tuple[int, int, int]
    radius_mm: float
    reach_mm: float


def draw_tumour(
    rng: np.random.Generator,
    et_mm3: float,
    *,
    spacing_mm: tuple[float, float, float],
) -> Tumour:
    """A lumpy ball of the given enhancing volume, with necrosis if it is large."""
    p_core = np.clip((np.log10(et_mm3) - 1.9) / 1.1, 0, 0.9)
    has_core = rng.uniform() < p_core
    core_share = rng.uniform(0.12, 0.35 + 0.25 * p_core) if has_core else 0.0
    volume_mm3 = et_mm3 / (1 - core_share)
    radius_mm = float(np.cbrt(volume_mm3 * 3 / (4 * np.pi)))
    spacing = np.array(spacing_mm)
    half = np.ceil((1.7 * radius_mm + 1.0) / spacing).astype(int) + 1
    aim_mm = np.clip(radius_mm / 4, 0.35, 1.2)
    split = np.maximum(np.rint(spacing / aim_mm), 1).astype(int)
    offset_mm = rng.uniform(-0.5, 0.5, 3) * spacing
    axes = tuple(
        ((np.arange((2 * h + 1) * k) + 0.5) / k - h - 0.5) * s - o
        for h, k, s, o in zip(half, split, spacing, offset_mm, strict=True)
    )
    stretch = np.exp(rng.normal(0, 0.16, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = turn * (stretch / np.cbrt(stretch.prod()))
    ball = _norm(axes, matrix)
    box_mm = ((-2.5 * radius_mm, 2.5 * radius_mm),) * 3
    lumps = 0.65 * smooth_field(rng, axes, scale_mm=1.1 * radius_mm, box_mm=box_mm)
    lumps += 0.35 * smooth_field(rng, axes, scale_mm=0.5 * radius_mm, box_mm=box_mm)
    shape = ball / np.clip(1 + 0.32 * lumps, 0.5, 1.7)
    shape[ball > 1.65 * radius_mm] = np.inf
    voxel_mm3 = float(np.prod(spacing / split))
    edge_mm = _threshold(shape, volume_mm3 / voxel_mm3)
    softness_mm = float((spacing / split).mean())
    share = np.clip(0.5 + (edge_mm - shape) / softness_mm, 0, 1)
    core = np.zeros_like(share)
    if has_core:
        shift_mm = rng.normal(0, 0.07, 3) * radius_mm
        inner = _norm(tuple(a - d for a, d in zip(axes, shift_mm, strict=True)), matrix)
        inner /= np.clip(1 + 0.4 * lumps + 0.1, 0.6, 1.8)
        rim_mm = max(0.9, 0.12 * radius_mm)
        inner[shape > edge_mm - rim_mm] = np.inf
        core_mm = _threshold(inner, core_share * volume_mm3 / voxel_mm3)
        core = np.clip(0.5 + (core_mm - inner) / softness_mm, 0, 1)
    share, core = _averaged(share, split), _averaged(core, split)
    place = np.stack(np.nonzero(share > 0.02), axis=1) - half
    reach_mm = float(np.linalg.norm(place * spacing, axis=1).max(initial=0))
    z, y, x = (int(h) for h in half)
    return Tumour(share, np.minimum(core, share), (z, y, x), radius_mm, reach_mm)


def _norm(axes: Axes, matrix: Float[np.ndarray, "3 3"]) -> Grid:
    z, y, x = (axis.astype(np.float32) for axis in axes)
    rows = [
        a * z[:, None, None] + b * y[None, :, None] + c * x[None, None, :]
        for a, b, c in matrix.T.astype(np.float32)
    ]
    return np.sqrt(sum(np.square(row) for row in rows))


def _threshold(values: Grid, count: float) -> float:
    """Value below which about `count` of the finite values lie."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -np.inf
    rank = int(np.clip(round(count), 1, finite.size)) - 1
    return float(np.partition(finite, rank)[rank])


def _averaged(values: Float[np.ndarray, "fz fy fx"], split: np.ndarray) -> Grid:
    z, y, x = (n // k for n, k in zip(values.shape, split, strict=True))
    blocks = values.reshape(z, split[0], y, split[1], x, split[2])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)
