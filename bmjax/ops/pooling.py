"""Pooling over windows that touch but do not overlap."""

from jax import Array
from jaxtyping import Float

from bmjax.typing import Size


def average_pool(x: Float[Array, "b *s c"], *, window: Size) -> Float[Array, "b *o c"]:
    """Mean of each window; a last incomplete window is dropped, as torch does."""
    return _windows(x, window).mean(_window_axes(window))


def max_pool(x: Float[Array, "b *s c"], *, window: Size) -> Float[Array, "b *o c"]:
    """Maximum of each window; a last incomplete window is dropped."""
    return _windows(x, window).max(_window_axes(window))


def _windows(x: Array, window: Size) -> Array:
    batch, *space, channels = x.shape
    counts = [n // w for n, w in zip(space, window, strict=True)]
    kept = (slice(n * w) for n, w in zip(counts, window, strict=True))
    pairs = (size for pair in zip(counts, window, strict=True) for size in pair)
    return x[:, *kept].reshape(batch, *pairs, channels)


def _window_axes(window: Size) -> tuple[int, ...]:
    return tuple(2 + 2 * axis for axis in range(len(window)))
