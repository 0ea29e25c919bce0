"""Transforms that move voxels: image and labels together, one sample at a time.

Beyond the box that was cut everything counts as zero, in the image and as a label, and
a border voxel reaches to its outer edge: `grid_sample` with zero padding, as in
batchgeneratorsv2.
"""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bmjax.augment.platforms import each
from bmjax.typing import Size

LabelRule = Literal["linear", "nearest"]
_TIE = 1e-4  # weights closer than this are equal: they are rounded


def resample(
    image: Float[Array, "*s c"],
    labels: Int[Array, "*s"],
    affine: Float[Array, "d e"],
    *,
    size: Size,
    elastic: Float[Array, "*g d"] | None = None,
    label_rule: LabelRule = "linear",
) -> tuple[Float[Array, "*o c"], Int[Array, "*o"]]:
    """Linear interpolation of a patch, each corner of a cell gathered once.

    Args:
      image: the box.
      labels: on the same grid.
      affine: from a voxel of the patch to a place in the box, shift in the last column.
      size: of the patch [vox].
      elastic: displacement at control points, added before the affine map [vox].
      label_rule: `linear` takes the label with the largest sum of weights (nnU-Net),
        the nearest one's where several have it; `nearest` the nearest.
    """
    num_axes, channels = labels.ndim, image.shape[-1]
    rows, flat = image.reshape(-1, channels), labels.reshape(-1)
    inner = jnp.meshgrid(
        *(jnp.arange(n, dtype=jnp.float32) for n in size[1:]), indexing="ij"
    )
    splines = None
    if elastic is not None:
        splines = [_spline(n, elastic.shape[axis]) for axis, n in enumerate(size)]

    def plane(first: Array) -> tuple[Array, Array]:
        """One slice of the patch, so that what is between stays in the cache."""
        places = [jnp.broadcast_to(first.astype(jnp.float32), size[1:]), *inner]
        if elastic is not None and splines is not None:
            bent = jnp.tensordot(splines[0][first], elastic, 1)
            for axis, spline in enumerate(splines[1:]):
                bent = jnp.moveaxis(jnp.tensordot(spline, bent, (1, axis)), 0, axis)
            places = [p + bent[..., axis] for axis, p in enumerate(places)]
        source = [
            sum((affine[i, j] * places[j] for j in range(num_axes)), affine[i, -1])
            for i in range(num_axes)
        ]
        sides = [
            _sides(s.ravel(), n) for s, n in zip(source, labels.shape, strict=True)
        ]
        total, weights, found = jnp.zeros((sides[0][0][0].size, channels)), [], []
        for corner in product(*sides):
            index, weight = _join(corner, labels.shape)
            picked = rows.at[index].get(mode="promise_in_bounds")
            total = total + weight[:, None] * picked
            weights.append(weight)
            if label_rule == "linear":
                found.append(flat.at[index].get(mode="promise_in_bounds"))
        nearest = _nearest(source, flat, labels.shape)
        chosen = nearest if label_rule == "nearest" else _elect(weights, found, nearest)
        return total.reshape(*size[1:], channels), chosen.reshape(size[1:])

    return each(plane, jnp.arange(size[0]))


def _sides(
    place: Float[Array, " v"], length: int
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The voxels below and above along an axis, with weights; zero beyond the ends."""
    low = jnp.floor(place)
    share = place - low
    first = low.astype(jnp.int32)

    def side(index: Array, weight: Array) -> tuple[Array, Array]:
        is_inside = (index >= 0) & (index < length)
        return jnp.clip(index, 0, length - 1), jnp.where(is_inside, weight, 0)

    return side(first, 1 - share), side(first + 1, share)


def _join(
    corner: Sequence[tuple[Array, Array]], size: Size
) -> tuple[Int[Array, " v"], Float[Array, " v"]]:
    """Position in the flattened box, and weight, of one corner of each cell."""
    index, weight = corner[0]
    for (own, share), length in zip(corner[1:], size[1:], strict=True):
        index, weight = index * length + own, weight * share
    return index, weight


def _nearest(
    source: Sequence[Array], flat: Int[Array, " n"], size: Size
) -> Int[Array, " v"]:
    """The label of the nearest voxel, half to even; zero outside."""
    index, is_inside = 0, True
    for place, length in zip(source, size, strict=True):
        own = jnp.round(place.ravel()).astype(jnp.int32)
        is_inside = is_inside & (own >= 0) & (own < length)
        index = index * length + jnp.clip(own, 0, length - 1)
    picked = flat.at[index].get(mode="promise_in_bounds")
    return jnp.where(is_inside, picked, 0)


def _elect(
    weights: Sequence[Array], found: Sequence[Array], nearest: Int[Array, " v"]
) -> Int[Array, " v"]:
    """The label with most weight among the corners; what is outside votes for zero."""
    scores = list(weights)
    for i, j in combinations(range(len(found)), 2):
        is_same = found[i] == found[j]
        scores[i] = scores[i] + jnp.where(is_same, weights[j], 0)
        scores[j] = scores[j] + jnp.where(is_same, weights[i], 0)
    outside = 1 - sum(weights[1:], weights[0])
    scores = [
        s + jnp.where(f == 0, outside, 0) for s, f in zip(scores, found, strict=True)
    ]
    # the nearest voxel wins a tie; where it has no vote, zero has what is outside
    best = jnp.where(nearest == 0, outside, 0.0)
    for score, label in zip(scores, found, strict=True):
        best = jnp.where(label == nearest, jnp.maximum(best, score), best)
    chosen = nearest
    for score, label in zip(scores, found, strict=True):
        is_better = score > best + _TIE
        best, chosen = (
            jnp.where(is_better, score, best),
            jnp.where(is_better, label, chosen),
        )
    is_better = outside > best + _TIE
    return jnp.where(is_better, 0, chosen).astype(nearest.dtype)


def _spline(length: int, num_points: int) -> Float[Array, "n g"]:
    """Weights of a uniform cubic B-spline whose ends lie half a voxel outside."""
    # num_points - 3 intervals over the axis
    place = (np.arange(length) + 0.5) / length * (num_points - 3)
    first = np.minimum(place.astype(int), num_points - 4)
    t = place - first
    pieces = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    weights = np.zeros((length, num_points), np.float32)
    for step, piece in enumerate(pieces):
        weights[np.arange(length), first + step] = piece
    return jnp.asarray(weights)
