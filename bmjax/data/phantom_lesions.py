"""Places metastases in an anatomy, each with its oedema and its labels."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage as ndi

from bmjax.data.phantom_anatomy import Anatomy
from bmjax.data.phantom_template import Axes, Grid, largest_piece, smooth_field
from bmjax.data.phantom_tumour import LesionMix, Tumour, draw_tumour, draw_volumes_mm3

NETC, SNFH, ET = 1, 2, 3

_STEPS = [
    (dz, dy, dx)
    for dz in (-1, 0, 1)
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dz, dy, dx) > (0, 0, 0)
]


@dataclass(frozen=True)
class Lesions:
    """All metastases of a case, on its grid.

    Attributes:
      labels: 0 none, 1 necrosis, 2 oedema, 3 enhancing tumour.
      tumour: share of tumour, necrosis included.
      core: share of necrosis.
      oedema: share of oedema.
      oedema_level: brightness of the oedema, 1 is full.
      enhancement: brightness of the enhancing tumour, 1 is ordinary.
      core_level: brightness of necrosis on FLAIR, 1 is ordinary.
      listed: one dictionary per lesion.
    """

    labels: UInt8[np.ndarray, "z y x"]
    tumour: Grid
    core: Grid
    oedema: Grid
    oedema_level: Grid
    enhancement: Grid
    core_level: Grid
    listed: list[dict] = field(default_factory=list)


def grow(
    rng: np.random.Generator,
    anatomy: Anatomy,
    axes: Axes,
    *,
    mix: LesionMix,
    spacing_mm: tuple[float, float, float],
) -> Lesions:
    """Draw the metastases of one case into its anatomy."""
    size = anatomy.brain.shape
    grids = [np.zeros(size, np.float32) for _ in range(6)]
    tumour, core, oedema, oedema_level, enhancement, core_level = grids
    enhancement += 1
    core_level += 1
    labels = np.zeros(size, np.uint8)
    whole = np.zeros(size, bool)
    junction = _junction(anatomy, spacing_mm=spacing_mm)
    order = np.cumsum(junction.ravel(), dtype=np.float64)
    patchy = np.exp(0.35 * smooth_field(rng, axes, scale_mm=9.0))
    slowness = patchy / (
        anatomy.white + 0.22 * anatomy.grey + 0.05 * anatomy.fluid + 1e-3
    )
    slowness[~anatomy.brain] = np.inf
    taken: list[tuple[np.ndarray, float]] = []
    listed = []
    for et_mm3 in draw_volumes_mm3(rng, mix):
        own = np.random.default_rng(rng.integers(2**63))
        lesion = draw_tumour(own, float(et_mm3), spacing_mm=spacing_mm)
        centre = _place(own, lesion, anatomy, order, taken, spacing_mm=spacing_mm)
        if centre is None:
            continue
        box, part = _window(centre, lesion.half, size)
        inside = anatomy.brain[box]
        share = lesion.share[part] * inside
        is_tumour = _solid(share)
        is_core = (lesion.core[part] >= 0.5) & is_tumour
        if (is_core == is_tumour).all():
            is_core &= lesion.core[part] < lesion.core[part][is_tumour].max()
        taken.append((np.array(centre) * spacing_mm, lesion.reach_mm))
        tumour[box] = np.maximum(tumour[box], share)
        core[box] = np.maximum(core[box], lesion.core[part] * inside)
        enhancement[box][share > 0] = own.uniform(0.75, 1.2)
        core_level[box][share > 0] = own.uniform(0.55, 1.25)
        view = labels[box]
        view[is_tumour] = ET
        view[is_core] = NETC
        extent_mm = _oedema_extent_mm(own, lesion.radius_mm) * mix.oedema
        if extent_mm > 0:
            reach = (lesion.reach_mm + extent_mm) * 1.25
            wide = [int(np.ceil(reach / s)) for s in spacing_mm]
            around, _ = _window(centre, wide, size)
            whole[box] = is_tumour
            travel_mm = _travel_mm(
                whole[around],
                slowness[around],
                spacing_mm=spacing_mm,
                limit_mm=extent_mm + 2,
            )
            new = np.clip(0.5 + (extent_mm - travel_mm) / 2.0, 0, 1)
            new *= np.clip(1.4 * (1 - anatomy.fluid[around]), 0, 1)
            new *= anatomy.brain[around]
            level = own.uniform(0.65, 1.1) * (1 - 0.4 * travel_mm / extent_mm)
            is_new = new > oedema[around]
            oedema_level[around][is_new] = level[is_new]
            oedema[around][is_new] = new[is_new]
            whole[box] = False
        et_vox = int(np.count_nonzero(is_tumour & ~is_core))
        netc_vox = int(np.count_nonzero(is_core))
        voxel_mm3 = float(np.prod(spacing_mm))
        middle = np.argwhere(is_tumour).mean(axis=0) + [s.start for s in box]
        z, y, x = (
            np.interp(m, np.arange(len(a)), a)
            for m, a in zip(middle, axes, strict=True)
        )
        listed.append(
            {
                "id": len(listed) + 1,
                "centre_mm": (float(x), float(y), float(z)),
                "volume_mm3": (et_vox + netc_vox) * voxel_mm3,
                "et_mm3": et_vox * voxel_mm3,
                "netc_mm3": netc_vox * voxel_mm3,
                "drawn_et_mm3": float(et_mm3),
                "oedema_mm": float(extent_mm),
            }
        )
    labels[(labels == 0) & (oedema >= 0.5)] = SNFH
    return Lesions(
        labels, tumour, core, oedema, oedema_level, enhancement, core_level, listed
    )


def _junction(anatomy: Anatomy, *, spacing_mm: tuple[float, float, float]) -> Grid:
    """How likely a metastasis lodges in a voxel: most where grey meets white."""
    sigma_vox = [1.5 / s for s in spacing_mm]
    grey = ndi.gaussian_filter(anatomy.grey, sigma_vox, truncate=2.5)
    white = ndi.gaussian_filter(anatomy.white, sigma_vox, truncate=2.5)
    steepness = sum(np.square(slope) for slope in np.gradient(white, *spacing_mm))
    # steepness spares the brain stem, where the averaged maps are mixed throughout
    weight = grey * white * np.minimum(steepness, 0.02) + 2e-5 * white
    is_far = (anatomy.depth_mm > 1.5) & (anatomy.fluid < 0.4) & anatomy.brain
    return weight * is_far


def _place(
    rng: np.random.Generator,
    lesion: Tumour,
    anatomy: Anatomy,
    order: Float[np.ndarray, " n"],
    taken: list[tuple[np.ndarray, float]],
    *,
    spacing_mm: tuple[float, float, float],
    tries: int = 300,
) -> tuple[int, int, int] | None:
    """A centre voxel where the lesion fits; None if there is none."""
    size = anatomy.brain.shape
    gap_mm = 2.0 * max(spacing_mm) + 1.0
    draws = np.searchsorted(order, rng.uniform(0, order[-1], tries), side="right")
    draws = np.minimum(draws, order.size - 1)
    for place in np.stack(np.unravel_index(draws, size), axis=1):
        z, y, x = place.tolist()
        centre = (z, y, x)
        if anatomy.depth_mm[centre] < 0.75 * lesion.radius_mm + 0.5:
            continue
        at_mm = np.array(centre) * spacing_mm
        if any(
            np.linalg.norm(at_mm - other) < lesion.reach_mm + reach + gap_mm
            for other, reach in taken
        ):
            continue
        box, part = _window(centre, lesion.half, size)
        share = lesion.share[part]
        lost = lesion.share.sum() - (share * anatomy.brain[box]).sum()
        wet = (share * anatomy.fluid[box]).sum()
        if lost < 0.05 * lesion.share.sum() and wet < 0.3 * lesion.share.sum():
            return centre
    return None


def _window(
    centre: tuple[int, int, int],
    half: list[int] | tuple[int, int, int],
    size: tuple[int, ...],
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The box around a voxel inside the grid, and the same box in its own frame."""
    low = [max(c - h, 0) for c, h in zip(centre, half, strict=True)]
    high = [min(c + h + 1, n) for c, h, n in zip(centre, half, size, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    start = [a - c + h for a, c, h in zip(low, centre, half, strict=True)]
    part = tuple(slice(s, s + b - a) for s, a, b in zip(start, low, high, strict=True))
    return box, part


def _solid(share: Grid) -> Bool[np.ndarray, "z y x"]:
    """Voxels that are mostly tumour, in one piece; at least the fullest voxel."""
    solid = largest_piece(share >= 0.5)
    return solid if solid.any() else share >= share.max()


def _oedema_extent_mm(rng: np.random.Generator, radius_mm: float) -> float:
    """How far oedema spreads in white matter; large lesions mostly have some."""
    has_oedema = rng.uniform() < np.clip((radius_mm - 0.8) / 4.0, 0.12, 0.93)
    extent_mm = (2.0 + 0.75 * radius_mm) * rng.lognormal(0.15, 0.4)
    return float(min(extent_mm, 20.0)) if has_oedema else 0.0


def _travel_mm(
    start: Bool[np.ndarray, "z y x"],
    slowness: Grid,
    *,
    spacing_mm: tuple[float, float, float],
    limit_mm: float,
) -> Float32[np.ndarray, "z y x"]:
    """Distance from the tumour, as if white matter were the fastest road.

    Solved on every second or third voxel of a fine grid, by relaxing all 26
    neighbours until nothing gets shorter.
    """
    stride = [max(1, int(2.01 // s)) for s in spacing_mm]
    coarse = tuple(slice(None, None, k) for k in stride)
    near = np.asarray(ndi.maximum_filter(start, stride), dtype=bool)[coarse]
    cost = np.pad(slowness[coarse].astype(np.float32), 1, constant_values=np.inf)
    travel = np.full(cost.shape, np.inf, np.float32)
    inner = travel[1:-1, 1:-1, 1:-1]
    inner[near] = 0
    step_mm = np.array(spacing_mm) * stride
    while True:
        before = inner.copy()
        for step in _STEPS:
            length = np.float32(np.linalg.norm(step_mm * step) / 2)
            here = tuple(
                slice(max(s, 0), n + min(s, 0))
                for s, n in zip(step, cost.shape, strict=True)
            )
            there = tuple(
                slice(max(-s, 0), n + min(-s, 0))
                for s, n in zip(step, cost.shape, strict=True)
            )
            toll = length * (cost[here] + cost[there])
            np.minimum(travel[here], travel[there] + toll, out=travel[here])
            np.minimum(travel[there], travel[here] + toll, out=travel[there])
        inner[inner > limit_mm] = np.inf
        if np.array_equal(before, inner):
            break
    inner[~np.isfinite(inner)] = 2 * limit_mm
    if all(k == 1 for k in stride):
        return inner.copy()
    points = np.meshgrid(
        *(np.arange(n) / k for n, k in zip(slowness.shape, stride, strict=True)),
        indexing="ij",
    )
    fine = np.asarray(ndi.map_coordinates(inner, points, order=1, mode="nearest"))
    fine[start] = 0
    return fine
