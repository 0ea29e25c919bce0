"""Whether volumes lie on one grid: same size, and the same place in the world."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

MAX_SHIFT_VOX = 0.1
Grid = tuple[tuple[int, ...], Float[np.ndarray, "4 4"]]
"""Size along z, y, x and the affine from the (x, y, z) index to millimetres."""


def max_shift_vox(
    first: Float[np.ndarray, "4 4"],
    second: Float[np.ndarray, "4 4"],
    size: tuple[int, int, int],
) -> float:
    """How far two affines move any corner of a grid apart, in the first's voxels."""
    z, y, x = size
    corners = np.array(
        [[i, j, k, 1] for i in (0, x - 1) for j in (0, y - 1) for k in (0, z - 1)],
        np.float64,
    )
    apart_mm = corners @ (first - second).T
    apart_vox = apart_mm[:, :3] @ np.linalg.inv(first[:3, :3]).T
    shift = np.abs(apart_vox).max()
    return float(shift) if np.isfinite(shift) else float("inf")


def is_one_grid(first: Grid, second: Grid) -> bool:
    """Whether two grids are the same, to a tenth of a voxel."""
    (size, affine), (other_size, other_affine) = first, second
    if size != other_size:
        return False
    z, y, x = size
    return max_shift_vox(affine, other_affine, (z, y, x)) <= MAX_SHIFT_VOX


def grid_faults(grids: Mapping[str, Grid]) -> list[str]:
    """Where the files of a case, as turned, do not lie on one grid."""
    if len({size for size, _ in grids.values()}) > 1:
        table = ", ".join(
            f"{role} {' x '.join(map(str, size))}" for role, (size, _) in grids.items()
        )
        return [f"files differ in size (z, y, x): {table}; register and resample them"]
    faults = []
    for role, (size, affine) in grids.items():
        first, (_, reference) = next(iter(grids.items()))
        z, y, x = size
        shift = max_shift_vox(reference, affine, (z, y, x))
        if shift > MAX_SHIFT_VOX:
            faults.append(
                f"{role} lies up to {shift:.3g} voxels away from {first} by its "
                f"affine; at most {MAX_SHIFT_VOX} is taken for the same grid: resample "
                f"it to {first}"
            )
    return faults
