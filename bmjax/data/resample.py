"""Resamples volumes by one banded matrix for each axis: just what a spline zoom does.

Interpolation on a regular grid is separable and linear, the spline's prefilter
included, so each axis is one matrix product. The inverse of the prefilter decays by
0.27 a voxel: weights far from a row's centre are below the rounding of float32 and are
left out, and what remains is done in blocks of rows, each a dense product with the part
of the input that it reaches. The matrices are those of scipy's zoom with mode "nearest"
on cell borders (`grid_mode`), which skimage and nnU-Net use.

`resample` takes arrays of numpy, and arrays of JAX on their device, also under `jit`.
It is here and not in `ops` because the processes that prepare cases never load JAX.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Integer
from scipy import ndimage

Kind = Literal["cubic", "linear"]
Taps = tuple[np.ndarray, np.ndarray, np.ndarray]
_ANISOTROPY = 3  # nnU-Net: above it, slices are resampled one by one
_NEGLIGIBLE = 2.0**-27  # an eighth of float32's rounding, of weights that sum to one
_BLOCK_ROWS = 64
_PAD = 12  # scipy's own, for mode "nearest"


def resample(
    volume: Float[Any, "z y x"],
    size: tuple[int, int, int],
    *,
    kind: Kind,
    apart: int | None = None,
) -> Float[Any, "u v w"]:
    """A volume on a grid of another size that covers the same space.

    Args:
      volume: float32 or float64, of numpy or of JAX.
      size: of the result [vox].
      kind: cubic B-spline, clipped to the range of the input, or linear.
      apart: axis along which slices are resampled on their own, and then repeated or
        left out, as nnU-Net does with thick slices.
    """
    if volume.shape == size:
        return volume
    xp = volume.__array_namespace__()
    within = tuple(axis for axis in range(3) if axis != apart)
    low = volume.min(axis=within, keepdims=True)
    high = volume.max(axis=within, keepdims=True)
    result = volume
    for axis, num_out in enumerate(size):
        num_in = volume.shape[axis]
        if axis == apart or num_in == num_out:
            result = xp.moveaxis(result, 0, 2)
        else:
            result = _product(blocks(num_in, num_out, kind), result)
    if kind == "cubic" and isinstance(result, np.ndarray):
        if not np.may_share_memory(result, volume):
            np.clip(result, low, high, out=result)
    elif kind == "cubic":
        result = xp.clip(result, low, high)
    if apart is not None:
        index = nearest(volume.shape[apart], size[apart])
        result = xp.take(result, index, axis=apart)
    return result


def linear_slices(
    volume: Float[np.ndarray, "z y x c"],
    size: tuple[int, int, int],
    *,
    apart: int | None = None,
) -> Iterator[Float[np.ndarray, "v w c"]]:
    """Slice after slice of a volume on another grid, linearly, all channels together.

    What `resample` gives, in the cache: no more than two slices are alive.
    """
    taps = [
        _taps(volume.shape[axis], size[axis], is_apart=axis == apart)
        for axis in range(3)
    ]
    alive: dict[int, np.ndarray] = {}
    for low, high, share in zip(*taps[0], strict=True):
        wanted = {low, high} if share else {low}
        alive = {
            z: alive[z] if z in alive else _plane(volume[z], *taps[1:]) for z in wanted
        }
        if share:
            yield alive[low] * (1 - share) + alive[high] * share
        else:
            yield alive[low]


def _plane(
    plane: Float[np.ndarray, "y x c"], rows: Taps, columns: Taps
) -> Float[np.ndarray, "v w c"]:
    """One slice, first along y, whose rows lie together, then along x."""
    for axis, (low, high, share) in enumerate((rows, columns)):
        if share.any() or len(low) != plane.shape[axis]:
            weights = share.reshape(-1, *(1,) * (2 - axis))
            first = plane.take(low, axis)
            second = plane.take(high, axis)
            second -= first
            second *= weights
            second += first
            plane = second
    return plane


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
            part = weights[reach, box[axis]]
            is_label = _product((Block(0, 0, part),), is_label)
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
    return np.clip(np.floor(_centres(num_in, num_out) + 0.5).astype(int), 0, num_in - 1)


def _taps(num_in: int, num_out: int, *, is_apart: bool) -> Taps:
    """For each new voxel two old ones, and the second one's share of it."""
    if is_apart:
        index = nearest(num_in, num_out)
        return index, index, np.zeros(num_out, np.float32)
    centres = _centres(num_in, num_out).clip(0, num_in - 1)
    low = np.floor(centres).astype(int)
    high = np.minimum(low + 1, num_in - 1)
    return low, high, (centres - low).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of a banded matrix, with the columns in which they are not zero.

    Attributes:
      row: the first one.
      column: the first one.
      weights: the dense part.
    """

    row: int
    column: int
    weights: Float[np.ndarray, "o i"]


@lru_cache(maxsize=64)
def blocks(num_in: int, num_out: int, kind: Kind) -> tuple[Block, ...]:
    """The matrix of a zoom along one axis, without what is zero to float32."""
    weights = matrix(num_in, num_out, kind)
    found = []
    for row in range(0, num_out, _BLOCK_ROWS):
        part = weights[row : row + _BLOCK_ROWS]
        reached = np.flatnonzero((np.abs(part) > _NEGLIGIBLE).any(0))
        first, last = reached[0], reached[-1] + 1
        dense = np.ascontiguousarray(part[:, first:last], np.float32)
        dense.flags.writeable = False
        found.append(Block(row, int(first), dense))
    return tuple(found)


def matrix(num_in: int, num_out: int, kind: Kind) -> Float[np.ndarray, "o i"]:
    """What a zoom along one axis does, as a matrix."""
    centres = _centres(num_in, num_out)
    if kind == "linear":
        distance = np.abs(centres.clip(0, num_in - 1)[:, None] - np.arange(num_in))
        return np.maximum(1 - distance, 0)
    # coefficients of each unit impulse, its border voxels repeated
    padded = np.pad(np.eye(num_in), ((_PAD, _PAD), (0, 0)), mode="edge")
    coefficients = ndimage.spline_filter1d(padded, 3, axis=0, mode="nearest")
    places = np.arange(-_PAD, num_in + _PAD)
    distance = np.abs(centres[:, None] - places)
    inner = 2 / 3 - distance**2 * (1 - distance / 2)
    spline = np.where(distance < 1, inner, np.maximum(2 - distance, 0) ** 3 / 6)
    return spline @ coefficients


def _centres(num_in: int, num_out: int) -> Float[np.ndarray, " n"]:
    """Where the centres of the new voxels lie between the old ones."""
    return (np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5


def _weights(num_in: int, num_out: int, is_apart: bool) -> Float[np.ndarray, "o i"]:
    if is_apart:
        return np.eye(num_in, dtype=np.float32)[nearest(num_in, num_out)]
    return matrix(num_in, num_out, "linear").astype(np.float32)


def _product(
    rows: tuple[Block, ...], volume: Float[Any, "z y x"]
) -> Float[Any, "y x o"]:
    """Apply a matrix along the first axis, which becomes the last.

    Three of these bring the axes back into order, each as few large products without a
    copy; many small ones would wait for BLAS's threads more than they compute.
    """
    z, y, x = volume.shape
    flat = volume.reshape(z, y * x).T
    num_out = rows[-1].row + len(rows[-1].weights)
    if isinstance(flat, np.ndarray):
        result = np.empty((y * x, num_out), flat.dtype)
        for block in rows:
            num_rows, num_columns = block.weights.shape
            part = flat[:, block.column : block.column + num_columns]
            out = result[:, block.row : block.row + num_rows]
            np.matmul(part, block.weights.T, out=out)
        return result.reshape(y, x, num_out)
    xp = flat.__array_namespace__()
    parts = [
        xp.matmul(
            flat[:, block.column : block.column + block.weights.shape[1]],
            block.weights.T,
            precision="highest",  # not the ten bits of a GPU's TF32
        )
        for block in rows
    ]
    return xp.concat(parts, axis=1).reshape(y, x, num_out)
