"""Draws healthy enhancement: arteries, veins, sinuses, choroid plexus.

Landmarks are MNI152 coordinates.
"""

import numpy as np
from jaxtyping import Float
from scipy import ndimage as ndi

from bmjax.data.phantom_template import Atlas, Template

# Centre lines x, y, z [mm] of the right side, radius [mm], share of people.
_ARTERIES = (
    (((0, -27, -52), (1, -24, -44), (0, -20, -34), (0, -16, -26)), 1.5, 1.0),
    (((5, 2, -18), (20, 4, -20), (34, 4, -16), (41, -6, -2), (43, -18, 8)), 1.1, 1.0),
    (((2, 8, -18), (2, 26, -10), (2, 37, 6), (2, 28, 22), (2, 6, 34)), 0.9, 0.9),
    (((4, -17, -22), (17, -26, -16), (24, -36, -8), (14, -54, -2)), 0.9, 0.8),
)
_VEINS = (
    (((0, -40, 4), (0, -56, 0), (0, -72, -6), (0, -88, -8)), 1.6, 1.0),
    (((2, -3, 14), (3, -16, 13), (2, -32, 9), (0, -40, 5)), 0.9, 0.9),
    (((12, 20, 16), (16, 8, 22), (10, -2, 17), (3, -3, 14)), 0.6, 0.5),
    (((14, -40, -10), (10, -32, -4), (4, -36, 4)), 0.8, 0.7),
)
_CHOROID = ((5, -4, 14), (9, -16, 18), (17, -30, 17), (24, -40, 9), (29, -33, -4))


def vessel_tree(
    rng: np.random.Generator,
    fine: Template,
    *,
    spacing_mm: tuple[float, float, float],
) -> Atlas:
    """Share of enhancing blood in the template's space, at 1 mm."""
    lines: list[tuple[np.ndarray, float]] = []
    for table in (_ARTERIES, _VEINS):
        for line, radius_mm, share in table:
            is_midline = all(abs(x) < 2 for x, _, _ in line)
            for side in (1,) if is_midline else (1, -1):
                bent = np.array(line, float)[:, ::-1]  # z y x
                bent = bent + rng.normal(0, 1.0, bent.shape) * (1, 1, not is_midline)
                bent[:, 2] *= side
                thick = radius_mm * rng.uniform(0.8, 1.2)
                if rng.uniform() < share:
                    lines.append((_spline(bent), thick))
    for side in (1, -1):
        plexus = np.array(_CHOROID, float)[:, ::-1] * (1, 1, side)
        plexus = _spline(plexus + rng.normal(0, 0.8, plexus.shape))
        plexus = plexus + rng.normal(0, 0.9, plexus.shape)
        thick = rng.uniform(0.7, 1.2)
        lines.append((plexus, thick))
        lines.append((plexus[len(plexus) * 3 // 5 : len(plexus) * 4 // 5], thick))
    lines.append((_sagittal_sinus(fine), rng.uniform(1.6, 2.2)))
    lines.extend(_surface_veins(rng, fine))
    return _splat(lines, fine, spacing_mm=spacing_mm)


def _spline(points: Float[np.ndarray, "n 3"], *, step_mm: float = 0.4):
    """Points every `step_mm` along a smooth line through the given ones."""
    length = np.concatenate(
        ([0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    )
    at = np.arange(0, length[-1], step_mm)
    coarse = np.stack([np.interp(at, length, c) for c in points.T], axis=1)
    return ndi.gaussian_filter1d(coarse, 4.0 / step_mm, axis=0, mode="nearest")


def _sagittal_sinus(fine: Template) -> Float[np.ndarray, "n 3"]:
    """Along the top of the midline plane, from the forehead to the occiput."""
    origin = np.array(fine.origin_mm)
    plane = fine.brain[:, :, round(-origin[2])] > 0.5  # z y
    centre = np.array((10.0, -20.0)) - origin[:2]
    edge = []
    for angle in np.radians(np.arange(40, 205, 3)):
        away = np.arange(20, 130, 0.5)
        z = centre[0] + away * np.sin(angle)
        y = centre[1] + away * np.cos(angle)
        is_on = (z < plane.shape[0] - 0.5) & (y > -0.5) & (y < plane.shape[1] - 0.5)
        z, y = z[is_on & (z > -0.5)], y[is_on & (z > -0.5)]
        last = np.flatnonzero(plane[np.rint(z).astype(int), np.rint(y).astype(int)])[-1]
        edge.append((z[last] - 1.0, y[last], -origin[2]))
    return _spline(np.array(edge) + origin)


def _surface_veins(
    rng: np.random.Generator, fine: Template, *, count: int = 44
) -> list[tuple[Float[np.ndarray, "n 3"], float]]:
    """Curvy lines that creep along the brain's surface."""
    depth = fine.depth_mm
    shell = np.argwhere((depth[::3, ::3, ::3] > 1) & (depth[::3, ::3, ::3] < 3)) * 3
    at = shell[rng.integers(len(shell), size=count)].astype(float)
    heading = rng.normal(size=(count, 3))
    aim_mm = rng.uniform(0.8, 2.2, count)
    trace = [at]
    for _ in range(36):
        near = np.clip(np.rint(at).astype(int), 1, np.array(depth.shape) - 2).T
        slope = np.stack(
            [
                depth[tuple(near + step)] - depth[tuple(near - step)]
                for step in np.eye(3, dtype=int)[:, :, None]
            ],
            axis=1,
        )
        slope /= np.linalg.norm(slope, axis=1, keepdims=True) + 1e-3
        heading += rng.normal(0, 0.35, heading.shape)
        heading -= (heading * slope).sum(1, keepdims=True) * slope
        heading /= np.linalg.norm(heading, axis=1, keepdims=True) + 1e-3
        lift = np.clip(aim_mm - depth[tuple(near)], -1, 1)[:, None]
        at = at + 1.3 * heading + 0.6 * lift * slope
        trace.append(at)
    steps = rng.integers(8, 37, count)
    thick = rng.uniform(0.5, 1.1, count)
    paths = np.stack(trace, axis=1) + np.array(fine.origin_mm)
    return [(_spline(paths[i, : steps[i]]), float(thick[i])) for i in range(count)]


def _splat(
    lines: list[tuple[np.ndarray, float]],
    fine: Template,
    *,
    spacing_mm: tuple[float, float, float],
) -> Atlas:
    """Turn centre lines into tubes, blurred as a voxel averages them."""
    tubes = np.zeros(fine.size, np.float32)
    for line, radius_mm in lines:
        at = np.rint(line - np.array(fine.origin_mm)).astype(int)
        at = at[((at >= 0) & (at < fine.size)).all(axis=1)]
        np.add.at(tubes, tuple(at.T), np.float32(0.4 * np.pi * radius_mm**2))
    sigma = [np.hypot(0.65, 0.4 * max(s - 1.0, 0) ** 0.8) for s in spacing_mm]
    return np.clip(ndi.gaussian_filter(tubes, sigma, truncate=3.0), 0, 1)
