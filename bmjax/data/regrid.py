"""Resamples a volume onto the grid of another, by the affines of both."""

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import affine_transform

from bmjax.data.grids import MAX_SHIFT_VOX, max_shift_vox
from bmjax.data.nifti import Scan


def is_on_grid_of(scan: Scan, reference: Scan) -> bool:
    """Whether two volumes lie on one grid, to a tenth of a voxel."""
    if scan.array.shape != reference.array.shape:
        return False
    z, y, x = reference.array.shape
    return max_shift_vox(reference.affine, scan.affine, (z, y, x)) <= MAX_SHIFT_VOX


def onto_grid_of(
    scan: Scan, reference: Scan, *, is_labels: bool = False
) -> tuple[Scan, float]:
    """The volume on another grid, and the share of that grid that it does not cover.

    Images go by a cubic B-spline, held within their own range, and are 0 where they do
    not reach. Of labels, each goes by linear weights and is kept from a half on.

    Args:
      scan: what to resample.
      reference: whose grid to take.
      is_labels: the values are labels.
    """
    # from the reference's (z, y, x) index to the scan's
    between = np.linalg.inv(scan.affine) @ reference.affine
    matrix, offset = between[:3, :3][::-1, ::-1], between[:3, 3][::-1]
    size = reference.array.shape

    def sample(values: Shaped[np.ndarray, "z y x"], order: int) -> np.ndarray:
        return affine_transform(
            values.astype(np.float32),
            matrix,
            offset=offset,
            output_shape=size,
            order=order,
            mode="constant",
        )

    covered = sample(np.ones(scan.array.shape, np.float32), 0)
    if is_labels:
        result = _labels(scan, size, sample)
    else:
        low, high = float(scan.array.min()), float(scan.array.max())
        result = np.clip(sample(scan.array, 3), low, high)
        result[covered == 0] = 0
    moved = Scan(result, reference.affine, reference.spacing_mm, scan.path)
    return moved, float(1 - covered.mean())


def _labels(scan: Scan, size: tuple[int, ...], sample) -> Shaped[np.ndarray, "z y x"]:
    result = np.zeros(size, scan.array.dtype)
    best: Float[np.ndarray, "z y x"] = np.full(size, 0.5, np.float32)
    for value in np.unique(scan.array[scan.array != 0]):
        weight = sample(scan.array == value, 1)
        # a half goes to the label, as it does in a prediction
        is_better = weight >= best
        result[is_better] = value
        best = np.maximum(best, weight)
    return result
