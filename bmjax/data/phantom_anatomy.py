"""Warps an averaged brain into one person's anatomy: tissue maps, vessels, spots.

Everything happens in world millimetres (z, y, x of RAS+), so that a case keeps its
anatomy when only the spacing changes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from bmjax.data.phantom_template import (
    Atlas,
    Axes,
    Grid,
    Reader,
    Template,
    largest_piece,
    smooth_field,
)
from bmjax.data.phantom_vessels import vessel_tree

# (distance of control points [mm], standard deviation of the displacement [mm])
_WARPS = ((70.0, 3.0), (28.0, 1.5), (11.0, 0.8))


@dataclass(frozen=True)
class Anatomy:
    """One person's brain on the grid of a scan.

    Attributes:
      brain: inside the brain.
      grey: share of grey matter; grey, white and fluid add up to 1 in the brain.
      white: share of white matter.
      fluid: share of cerebrospinal fluid.
      texture: how the T1 signal differs from that of the shares.
      depth_mm: distance from the brain's surface, roughly.
      vessels: share of blood, choroid plexus and other healthy enhancement.
      spots: strength of healthy bright spots on FLAIR.
    """

    brain: Bool[np.ndarray, "z y x"]
    grey: Grid
    white: Grid
    fluid: Grid
    texture: Grid
    depth_mm: Grid
    vessels: Grid
    spots: Grid


def warp(
    rng: np.random.Generator,
    template: Template,
    axes: Axes,
    *,
    fine: Template,
    spacing_mm: tuple[float, float, float],
) -> Anatomy:
    """Draw one person: shape, atrophy, vessels and spots.

    Args:
      rng: decides everything; the amount drawn does not depend on the grid.
      template: blurred to the grid's spacing.
      axes: coordinates of the grid along z, y, x [mm].
      fine: the template at 1 mm.
      spacing_mm: of the grid, along z, y, x.
    """
    points = _displaced(rng, axes)
    points -= np.array(fine.origin_mm, np.float32).reshape(3, 1, 1, 1)
    last = np.array(fine.size, np.float32).reshape(3, 1, 1, 1) - 1
    brain = np.asarray(((points >= 0) & (points <= last)).all(axis=0))
    brain[brain] = Reader(points[:, brain], fine.size)(template.brain) > 0.5
    brain = largest_piece(brain)
    read = Reader(points[:, brain], fine.size)

    def sample(values: Atlas) -> Grid:
        grid = np.zeros(brain.shape, np.float32)
        grid[brain] = read(values)
        return grid

    grey, white, t1 = (
        sample(template.grey),
        sample(template.white),
        sample(template.t1),
    )
    fluid = np.clip(brain - grey - white, 0, 1)
    texture = (t1 - (0.27 * fluid + 0.65 * grey + 0.875 * white)) * brain
    atrophy = rng.uniform(0.65, 1.15)
    grey, white, fluid = _sharpened(grey, white, fluid, atrophy=atrophy, brain=brain)
    blood = vessel_tree(rng, fine, spacing_mm=spacing_mm)
    vessels = sample(blood)
    pial = smooth_field(rng, axes, scale_mm=5.0) * smooth_field(
        rng, axes, scale_mm=25.0
    )
    depth_mm = sample(template.depth_mm)
    is_sulcus = np.clip((14 - depth_mm) / 6, 0, 1) * np.clip(2.5 * fluid - 0.3, 0, 1)
    vessels = np.maximum(vessels, 0.7 * np.clip(pial - 0.5, 0, 1) * is_sulcus)
    caps = sample(template.caps) * rng.uniform(0.2, 1.0)
    caps *= np.clip(0.9 + 0.4 * smooth_field(rng, axes, scale_mm=9.0), 0, 1.5)
    spots = np.maximum(caps, _white_spots(rng, axes, fine, points=points) * white)
    return Anatomy(
        brain=brain,
        grey=grey,
        white=white,
        fluid=fluid,
        texture=texture,
        depth_mm=depth_mm,
        vessels=np.clip(vessels, 0, 1),
        spots=np.clip(spots, 0, 1),
    )


def _displaced(rng: np.random.Generator, axes: Axes) -> Float32[np.ndarray, "3 z y x"]:
    """Where each voxel of the grid lies in the template [mm]."""
    turn_deg = rng.normal(0.0, (4.0, 3.0, 3.0))
    stretch = 1.0 + rng.normal(0.0, 0.025, 3) + rng.normal(-0.01, 0.02)
    matrix = np.diag(stretch)
    for (i, j), angle in zip(
        ((0, 1), (0, 2), (1, 2)), np.radians(turn_deg), strict=True
    ):
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    middle = np.array((2.0, -17.0, 0.0))
    z, y, x = (
        (points - centre).astype(np.float32)
        for points, centre in zip(axes, middle, strict=True)
    )
    grid = np.empty((3, len(z), len(y), len(x)), np.float32)
    for axis in range(3):
        row = matrix[axis].astype(np.float32)
        grid[axis] = (
            (row[0] * z)[:, None, None]
            + (row[1] * y)[None, :, None]
            + (row[2] * x + np.float32(middle[axis]))[None, None, :]
        )
        for scale_mm, std_mm in _WARPS:
            grid[axis] += std_mm * smooth_field(rng, axes, scale_mm=scale_mm)
    return grid


def _sharpened(
    grey: Grid,
    white: Grid,
    fluid: Grid,
    *,
    atrophy: float,
    brain: Bool[np.ndarray, "z y x"],
) -> tuple[Grid, Grid, Grid]:
    """Undo part of the blur that averaging many people left."""
    shares = [
        np.power(share, power, dtype=np.float32)
        for share, power in ((grey, 1.5), (white, 1.5), (fluid, atrophy))
    ]
    total = shares[0] + shares[1] + shares[2]
    total[total == 0] = 1
    g, w, f = (share / total * brain for share in shares)
    return g, w, f


def _white_spots(
    rng: np.random.Generator,
    axes: Axes,
    fine: Template,
    *,
    points: Float32[np.ndarray, "3 z y x"],
) -> Grid:
    """Small round white-matter lesions of age, in the template's deep white matter."""
    deep = np.argwhere(fine.white[::2, ::2, ::2] > 0.9) * 2
    count = int(rng.integers(4, 22))
    centres = deep[rng.integers(len(deep), size=count)]
    radii_mm = np.clip(rng.lognormal(0.6, 0.45, count), 1.0, 5.0)
    levels = rng.uniform(0.3, 0.9, count)
    grid = np.zeros(points.shape[1:], np.float32)
    step_mm = [abs(axis[1] - axis[0]) if len(axis) > 1 else 1.0 for axis in axes]
    for centre, radius_mm, level in zip(centres, radii_mm, levels, strict=True):
        offset = points[:, ::2, ::2, ::2] - centre.astype(np.float32).reshape(
            3, 1, 1, 1
        )
        squared = np.square(offset).sum(axis=0)
        near = 2 * np.array(np.unravel_index(np.argmin(squared), squared.shape))
        half = [int(np.ceil((2.5 * radius_mm + 4) / step)) + 1 for step in step_mm]
        box = tuple(
            slice(max(n - h, 0), n + h) for n, h in zip(near, half, strict=True)
        )
        offset = points[(slice(None), *box)] - centre.astype(np.float32).reshape(
            3, 1, 1, 1
        )
        away = np.linalg.norm(offset, axis=0)
        spot = level / (1 + np.exp((away - radius_mm) / 0.7))
        grid[box] = np.maximum(grid[box], spot)
    return grid
