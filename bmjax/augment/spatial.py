"""Transforms that move voxels: image and labels together."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, PRNGKeyArray


def mirror(
    image: Float[Array, "*s c"],
    labels: Int[Array, "*s"],
    *,
    key: PRNGKeyArray,
    p: float,
    axes: tuple[int, ...],
) -> tuple[Float[Array, "*s c"], Int[Array, "*s"]]:
    """Reverse each of `axes` with probability `p` (nnU-Net: all axes, p = 0.5)."""
    draws = jax.random.bernoulli(key, p, (len(axes),))
    for axis, is_reversed in zip(axes, draws, strict=True):
        image, labels = lax.cond(
            is_reversed,
            lambda pair, axis=axis: tuple(jnp.flip(x, axis) for x in pair),
            lambda pair: pair,
            (image, labels),
        )
    return image, labels
