"""Enlarging a grid by whole factors, voxel centres kept in the middle."""

from functools import partial

import jax
from jax import Array, lax
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
        x = _double(x, axis)
    return x


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _double(x: Array, axis: int) -> Array:
    size = x.shape[axis]
    first, last = _part(x, axis, 0, 1), _part(x, axis, size - 1, size)
    before = jnp.concatenate([first, _part(x, axis, 0, size - 1)], axis)
    after = jnp.concatenate([_part(x, axis, 1, size), last], axis)
    pair = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return pair.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def _forward(x: Array, axis: int) -> tuple[Array, None]:
    return _double(x, axis), None


def _backward(axis: int, _: None, grads: Array) -> tuple[Array]:
    # Written out: the transpose of the slices would be a sum of padded arrays.
    size = grads.shape[axis] // 2
    pair = grads.reshape(*grads.shape[:axis], size, 2, *grads.shape[axis + 1 :])
    left, right = (lax.index_in_dim(pair, i, axis + 1, keepdims=False) for i in (0, 1))
    first, last = _part(left, axis, 0, 1), _part(right, axis, size - 1, size)
    from_after = jnp.concatenate([_part(left, axis, 1, size), last], axis)
    from_before = jnp.concatenate([first, _part(right, axis, 0, size - 1)], axis)
    return (0.75 * (left + right) + 0.25 * (from_after + from_before),)


_double.defvjp(_forward, _backward)


def _part(x: Array, axis: int, start: int, stop: int) -> Array:
    return x[(slice(None),) * axis + (slice(start, stop),)]
