"""Enlarging a grid by whole factors, voxel centres kept in the middle."""

from jax import Array
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.typing import Size


def upsample_nearest(
    x: Float[Array, "b *s c"], *, factors: Size
) -> Float[Array, "b *o c"]:
    """Each voxel repeated `factors` times along each axis."""
    batch, *space, channels = x.shape
    spread = x.reshape(batch, *(n for size in space for n in (size, 1)), channels)
    pairs = (n for pair in zip(space, factors, strict=True) for n in pair)
    spread = jnp.broadcast_to(spread, (batch, *pairs, channels))
    sizes = (n * f for n, f in zip(space, factors, strict=True))
    return spread.reshape(batch, *sizes, channels)


def upsample_linear(x: Float[Array, "b *s c"]) -> Float[Array, "b *o c"]:
    """Twice the size by linear interpolation (torch's `align_corners=False`).

    Each new voxel lies a quarter of an old one from its nearest old centre, hence the
    weights 3/4 and 1/4; beyond the border the last voxel is repeated.
    """
    for axis in range(1, x.ndim - 1):
        size = x.shape[axis]
        first, last = _part(x, axis, 0, 1), _part(x, axis, size - 1, size)
        before = jnp.concatenate([first, _part(x, axis, 0, size - 1)], axis)
        after = jnp.concatenate([_part(x, axis, 1, size), last], axis)
        pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def _part(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(slice(None),) * axis + (slice(start, stop),)]
