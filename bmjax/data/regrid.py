"""Resamples a volume onto the grid of another, by the affines of both."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped
from scipy.ndimage import affine_transform

from bmjax.data.grids import Grid
from bmjax.data.nifti import Scan, spacing_of


def onto_grid(scan: Scan, grid: Grid, *, is_labels: bool = False) -> tuple[Scan, float]:
    """The volume on another grid, and the share of that grid that it covers.

    Images go by a cubic B-spline, held within their own range, and are 0 where they do
    not reach. Of labels, each goes by linear weights and is kept from a half on.

    Args:
      scan: what to resample.
      grid: where to.
      is_labels: the values are labels.
    """
    size, affine = grid
    # from the grid's (z, y, x) index to the scan's
    between = np.linalg.inv(scan.affine) @ affine
    matrix = between[np.ix_((2, 1, 0, 3), (2, 1, 0, 3))]

    def sample(values: Shaped[np.ndarray, "z y x"], order: int) -> np.ndarray:
        return affine_transform(
            values.astype(np.float32),
            matrix,
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
    return Scan(result, affine, spacing_of(affine), scan.path), float(covered.mean())


def _labels(
    scan: Scan,
    size: tuple[int, ...],
    sample: Callable[[np.ndarray, int], np.ndarray],
) -> Shaped[np.ndarray, "z y x"]:
    result = np.zeros(size, scan.array.dtype)
    best: Float[np.ndarray, "z y x"] = np.full(size, 0.5, np.float32)
    for value in np.unique(scan.array[scan.array != 0]):
        weight = sample(scan.array == value, 1)
        # a half goes to the label, as it does in a prediction
        is_better = weight >= best
        result[is_better] = value
        best = np.maximum(best, weight)
    return result
