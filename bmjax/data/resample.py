"""Resamples volumes by one matrix for each axis: exactly what a spline zoom does.

Interpolation on a regular grid is separable and linear, the spline's prefilter
included, so each axis is one matrix product, which BLAS does many times faster than a
loop over voxels. The matrices are those of scipy's zoom with mode "nearest" on cell
borders (`grid_mode`), which skimage and nnU-Net use.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage

Kind = Literal["cubic", "linear"]
_ORDER = {"linear": 1, "cubic": 3}
_ANISOTROPY = 3  # nnU-Net: above it, slices are resampled one by one


def resample(
    volume: Float[np.ndarray, "z y x"],
    size: tuple[int, int, int],
    *,
    kind: Kind,
    apart: int | None = None,
) -> Float[np.ndarray, "u v w"]:
    """A volume on a grid of another size that covers the same space.

    Args:
      volume: float32 or float64.
      size: of the result [vox].
      kind: cubic B-spline, clipped to the range of the input, or linear.
      apart: axis along which slices are resampled on their own, and then repeated or
        left out, as nnU-Net does with thick slices.
    """
    if volume.shape == size:
        return volume
    within = (
        tuple(axis for axis in range(3) if axis != apart) if apart is not None else None
    )
    low, high = volume.min(within, keepdims=True), volume.max(within, keepdims=True)
    result = volume
    for axis, num_out in enumerate(size):
        num_in = volume.shape[axis]
        if axis == apart or num_in == num_out:
            result = np.ascontiguousarray(np.moveaxis(result, 0, 2))
        else:
            result = _product(matrix(num_in, num_out, kind), result)
    if kind == "cubic":
        np.clip(result, low, high, out=result)
    if apart is not None:
        result = np.take(result, nearest(volume.shape[apart], size[apart]), axis=apart)
    return result


def resample_labels(
    labels: Integer[np.ndarray, "z y x"],
    size: tuple[int, int, int],
    *,
    apart: int | None = None,
) -> Integer[np.ndarray, "u v w"]:
    """Labels on another grid: each is interpolated linearly and kept where >= 0.5.

    Where two labels reach 0.5 the larger one wins, as in nnU-Net.
    """
    if labels.shape == size:
        return labels
    result = np.zeros(size, labels.dtype)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        is_label = (labels[box] == value).astype(np.float32)
        target = []
        for axis in range(3):
            weights = _weights(labels.shape[axis], size[axis], axis == apart)
            rows = np.flatnonzero(weights[:, box[axis]].any(1))
            reach = slice(rows.min(initial=size[axis]), rows.max(initial=-1) + 1)
            is_label = _product(weights[reach, box[axis]], is_label)
            target.append(reach)
        result[tuple(target)][is_label >= 0.5] = value
    return result


def thick_axis(*spacings_mm: tuple[float, ...]) -> int | None:
    """The axis along which slices are resampled on their own (nnU-Net's rule).

    Args:
      spacings_mm: voxel size before and after [mm]; the first that is anisotropic
        decides.
    """
    for spacing_mm in spacings_mm:
        if max(spacing_mm) / min(spacing_mm) > _ANISOTROPY:
            thick = [i for i, s in enumerate(spacing_mm) if s == max(spacing_mm)]
            return thick[0] if len(thick) == 1 else None
    return None


def new_size(
    size: tuple[int, ...],
    *,
    spacing_mm: tuple[float, ...],
    new_spacing_mm: tuple[float, ...],
) -> tuple[int, ...]:
    """Number of voxels of another size that cover the same space."""
    return tuple(
        max(1, int(round(old / new * n)))
        for old, new, n in zip(spacing_mm, new_spacing_mm, size, strict=True)
    )


def nearest(num_in: int, num_out: int) -> Integer[np.ndarray, " n"]:
    """Index of the input voxel that each output voxel's centre lies in."""
    centres = (np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5
    return np.clip(np.floor(centres + 0.5).astype(int), 0, num_in - 1)


@lru_cache(maxsize=64)
def matrix(num_in: int, num_out: int, kind: Kind) -> Float[np.ndarray, "o i"]:
    """What a zoom along one axis does, as a matrix."""
    columns = np.empty((num_in, num_out))
    unit = np.zeros(num_in)
    for i in range(num_in):
        unit[i] = 1
        ndimage.zoom(
            unit,
            num_out / num_in,
            output=columns[i],
            order=_ORDER[kind],
            mode="nearest",
            grid_mode=True,
        )
        unit[i] = 0
    result = np.ascontiguousarray(columns.T, np.float32)
    result.flags.writeable = False
    return result


def _weights(num_in: int, num_out: int, is_apart: bool) -> Float[np.ndarray, "o i"]:
    if is_apart:
        return np.eye(num_in, dtype=np.float32)[nearest(num_in, num_out)]
    return matrix(num_in, num_out, "linear")


def _product(
    weights: Float[np.ndarray, "o z"], volume: Float[np.ndarray, "z y x"]
) -> Float[np.ndarray, "y x o"]:
    """Apply a matrix along the first axis, which becomes the last.

    Three of these bring the axes back into order, each as one large product without a
    copy; many small ones would wait for BLAS's threads more than they compute.
    """
    z, y, x = volume.shape
    return (volume.reshape(z, y * x).T @ weights.T).reshape(y, x, len(weights))
