"""Transforms of intensities, one sample at a time, as in nnU-Net's default recipe.

Each takes an image `*s c` and a key, and changes it always; how often is the policy's
decision. Ranges and order are those of batchgeneratorsv2.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

Sample = Float[Array, "*s c"]


def _channelwise(image: Array, values: Array) -> Array:
    """Values c, shaped to multiply an image *s c."""
    return values.reshape((1,) * (image.ndim - 1) + (-1,))


def _space(image: Array) -> tuple[int, ...]:
    return tuple(range(image.ndim - 1))


def split_uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], *, low: float, high: float
) -> Array:
    """Half of the draws uniform below 1, half above, so that 1 is the median."""
    side, below, above = jax.random.split(key, 3)
    return jnp.where(
        jax.random.bernoulli(side, 0.5, shape),
        jax.random.uniform(below, shape, minval=low, maxval=1.0),
        jax.random.uniform(above, shape, minval=1.0, maxval=high),
    )


def noise(image: Sample, *, key: PRNGKeyArray, high: float = 0.1) -> Sample:
    """Add Gaussian noise of one standard deviation, drawn from 0 to `high`."""
    scale_key, voxel_key = jax.random.split(key)
    std = jax.random.uniform(scale_key, (), maxval=high)
    # drawn flat: XLA compiles that several times faster on a CPU
    voxels = jax.random.normal(voxel_key, (image.size,), image.dtype)
    return image + std * voxels.reshape(image.shape)


def brightness(
    image: Sample, *, key: PRNGKeyArray, low: float = 0.75, high: float = 1.25
) -> Sample:
    """Multiply each channel by its own factor."""
    factors = split_uniform(key, image.shape[-1:], low=low, high=high)
    return image * _channelwise(image, factors)


def contrast(
    image: Sample, *, key: PRNGKeyArray, low: float = 0.75, high: float = 1.25
) -> Sample:
    """Stretch each channel about its mean, clipped to the range that it had."""
    factors = split_uniform(key, image.shape[-1:], low=low, high=high)
    mean = jnp.mean(image, _space(image), keepdims=True)
    stretched = (image - mean) * _channelwise(image, factors) + mean
    return jnp.clip(
        stretched,
        jnp.min(image, _space(image), keepdims=True),
        jnp.max(image, _space(image), keepdims=True),
    )


def gamma(
    image: Sample,
    *,
    key: PRNGKeyArray,
    low: float = 0.7,
    high: float = 1.5,
    is_inverted: bool = False,
) -> Sample:
    """Raise each channel, scaled to [0, 1], to a power; keep its mean and spread."""
    powers = split_uniform(key, image.shape[-1:], low=low, high=high)
    sign = -1.0 if is_inverted else 1.0
    x = sign * image
    low_value = jnp.min(x, _space(x), keepdims=True)
    width = jnp.max(x, _space(x), keepdims=True) - low_value
    unit = jnp.clip((x - low_value) / jnp.maximum(width, 1e-7), 0, 1)
    bent = unit ** _channelwise(x, powers) * width + low_value
    mean, std = jnp.mean(x, _space(x), keepdims=True), _std(x)
    bent = (bent - jnp.mean(bent, _space(x), keepdims=True)) / jnp.maximum(
        _std(bent), 1e-7
    )
    return sign * (bent * std + mean)


def _std(x: Array) -> Array:
    return jnp.std(x, _space(x), keepdims=True, ddof=1)
