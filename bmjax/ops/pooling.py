"""Pooling over windows that touch but do not overlap."""

from functools import partial
from math import prod

import jax
from jax import Array
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.typing import Size


def average_pool(x: Float[Array, "b *s c"], *, window: Size) -> Float[Array, "b *o c"]:
    """Mean of each window; a last incomplete window is dropped, as torch does."""
    return _windows(x, window).mean(_window_axes(window))


def max_pool(x: Float[Array, "b *s c"], *, window: Size) -> Float[Array, "b *o c"]:
    """Maximum of each window; a last incomplete window is dropped.

    The gradient goes to the first voxel of a window that holds its maximum, as in torch
    and TensorFlow.
    """
    return _max_pool(x, window)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, window: Size) -> Array:
    return _forward(x, window)[0]


def _forward(x: Array, window: Size) -> tuple[Array, tuple[Array, Array]]:
    y = _windows(x, window).max(_window_axes(window))
    return y, (x, y)


def _backward(window: Size, saved: tuple[Array, Array], grads: Array) -> tuple[Array]:
    x, y = saved
    axes = _window_axes(window)
    wide, largest = _windows(x, window), jnp.expand_dims(y, axes)
    place = jnp.arange(prod(window)).reshape(window)  # in its window
    place = jnp.expand_dims(place, [i for i in range(wide.ndim) if i not in axes])
    candidates = jnp.where(wide == largest, place, prod(window))
    first = candidates.min(axes, keepdims=True)
    spread = jnp.where(place == first, jnp.expand_dims(grads, axes), 0)
    kept = [n // w * w for n, w in zip(x.shape[1:-1], window, strict=True)]
    rest = [(0, n - k) for n, k in zip(x.shape[1:-1], kept, strict=True)]
    spread = spread.reshape(x.shape[0], *kept, x.shape[-1])
    return (
        jnp.pad(spread, [(0, 0), *rest, (0, 0)]) if any(map(sum, rest)) else spread,
    )


_max_pool.defvjp(_forward, _backward)


def _windows(x: Array, window: Size) -> Array:
    batch, *space, channels = x.shape
    counts = [n // w for n, w in zip(space, window, strict=True)]
    kept = (slice(n * w) for n, w in zip(counts, window, strict=True))
    pairs = (size for pair in zip(counts, window, strict=True) for size in pair)
    return x[:, *kept].reshape(batch, *pairs, channels)


def _window_axes(window: Size) -> tuple[int, ...]:
    return tuple(2 + 2 * axis for axis in range(len(window)))
