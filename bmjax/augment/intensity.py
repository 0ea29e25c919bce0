"""Transforms of intensities, one sample `*s c` at a time, by explicit values.

How often each is applied, and with which values, is drawn by the policy. The arithmetic
is that of batchgeneratorsv2 (version 0.3.6).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, PRNGKeyArray

from bmjax.augment.platforms import each

Sample = Float[Array, "*s c"]
PerChannel = Float[Array, " c"]
_REACH = 3  # of the blur to each side, enough for a sigma of 1 [vox]
_TAPS = 2 * _REACH + 1
_TINY = 1e-7


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


def noise(image: Sample, std: Float[Array, ""], *, key: PRNGKeyArray) -> Sample:
    """Add Gaussian noise of one standard deviation to all channels."""
    # drawn flat: XLA compiles that several times faster on a CPU
    voxels = jax.random.normal(key, (image.size,), image.dtype)
    return image + std * voxels.reshape(image.shape)


def brightness(image: Sample, factors: PerChannel) -> Sample:
    """Multiply each channel by its own factor."""
    return image * factors.reshape((1,) * (image.ndim - 1) + (-1,))


def contrast(image: Sample, factors: PerChannel) -> Sample:
    """Stretch each channel about its mean, clipped to the range that it had."""

    def stretch(x: Array, factor: Array) -> Array:
        mean = jnp.mean(x)
        return jnp.clip((x - mean) * factor + mean, jnp.min(x), jnp.max(x))

    return _by_channel(stretch, image, factors)


def gamma(image: Sample, powers: PerChannel, *, is_inverted: bool = False) -> Sample:
    """Raise each channel, scaled to [0, 1], to a power; keep its mean and spread."""
    sign = -1.0 if is_inverted else 1.0

    def bend(x: Array, power: Array) -> Array:
        x = sign * x
        low = jnp.min(x)
        width = jnp.max(x) - low
        unit = jnp.clip((x - low) / jnp.maximum(width, _TINY), 0, 1)
        power_of = jnp.exp(power * jnp.log(unit))  # faster than ** on a CPU; 0 stays 0
        # kept, or each of the sums below would compute the power again
        bent = lax.optimization_barrier(power_of) * width + low
        ratio = jnp.std(x, ddof=1) / jnp.maximum(jnp.std(bent, ddof=1), _TINY)
        return sign * ((bent - jnp.mean(bent)) * ratio + jnp.mean(x))

    return _by_channel(bend, image, powers)


def blur(
    image: Sample, sigma_vox: Float[Array, "c d"], *, chosen: Bool[Array, " c"]
) -> Sample:
    """Blur some channels, each by its own sigma along each axis, up to 1 voxel.

    The kernel has the odd number of taps next to 6 sigma + 0.5, the border is
    reflected.
    """

    def smooth(x: Array, sigma_vox: Array) -> Array:
        for axis in range(x.ndim):
            x = _weighted(_reflected(x, axis), _kernel(sigma_vox[axis]), axis)
        return x

    return _by_channel(smooth, image, sigma_vox, chosen=chosen)


def low_resolution(
    image: Sample,
    scales: PerChannel,
    *,
    chosen: Bool[Array, " c"],
    keep_first_axis: bool = False,
) -> Sample:
    """Sample some channels on a coarser grid, and interpolate them back linearly.

    Args:
      image: one sample.
      scales: size of the coarse grid as a fraction, for each channel.
      chosen: which channels.
      keep_first_axis: leave the first axis alone (nnU-Net's dummy 2-D).
    """

    def coarsen(x: Array, scale: Array) -> Array:
        by_axis = [_coarse(n, scale) for n in x.shape]
        if keep_first_axis:
            by_axis[0] = _coarse(x.shape[0], jnp.ones(()))

        def plane(first: Array) -> Array:
            """One slice, so that what is between stays in the cache."""
            low, high, share = (part[first] for part in by_axis[0])
            out = (1 - share) * x[low] + share * x[high]
            for axis, (low, high, share) in enumerate(by_axis[1:]):
                share = share.reshape([-1 if a == axis else 1 for a in range(out.ndim)])
                out = (1 - share) * _take(out, low, axis) + share * _take(
                    out, high, axis
                )
            return out

        return each(plane, jnp.arange(x.shape[0]))

    return _by_channel(coarsen, image, scales, chosen=chosen)


def _coarse(length: int, scale: Array) -> tuple[Array, Array, Array]:
    """The voxels below and above on the coarse grid, in the fine one, and the share."""
    count = jnp.round(length * scale)
    # torch's linear interpolation with align_corners=False
    place = jnp.maximum((jnp.arange(length) + 0.5) * count / length - 0.5, 0)
    low = jnp.floor(place)
    high = jnp.minimum(low + 1, count - 1)
    # torch's nearest-exact
    fine = [
        jnp.floor((x + 0.5) * length / count).astype(jnp.int32) for x in (low, high)
    ]
    return (
        jnp.minimum(fine[0], length - 1),
        jnp.minimum(fine[1], length - 1),
        place - low,
    )


def drop_channels(image: Sample, kept: Bool[Array, " c"]) -> Sample:
    """Set channels to zero, as a sequence that was not acquired is read."""
    return jnp.where(kept.reshape((1,) * (image.ndim - 1) + (-1,)), image, 0)


def _kernel(sigma_vox: Float[Array, ""]) -> Float[Array, " t"]:
    offset = jnp.arange(-_REACH, _REACH + 1)
    reach = jnp.floor((6 * sigma_vox + 0.5) / 2)
    weights = jnp.exp(-0.5 * (offset / sigma_vox) ** 2)
    weights = jnp.where(jnp.abs(offset) <= reach, weights, 0)
    return weights / jnp.sum(weights)


def _reflected(x: Array, axis: int) -> Array:
    edges = [(_REACH, _REACH) if a == axis else (0, 0) for a in range(x.ndim)]
    return jnp.pad(x, edges, mode="reflect")


def _weighted(padded: Array, weights: Float[Array, " t"], axis: int) -> Array:
    """Sum of the neighbours along an axis, times their weights."""
    n = padded.shape[axis] - 2 * _REACH
    parts = [lax.slice_in_dim(padded, t, t + n, axis=axis) for t in range(_TAPS)]
    return sum(
        (w * x for w, x in zip(weights[1:], parts[1:], strict=True)),
        weights[0] * parts[0],
    )


def _by_channel(
    transform: Callable[..., Array],
    image: Sample,
    *values: Array,
    chosen: Bool[Array, " c"] | None = None,
) -> Sample:
    """`transform(channel, *values of the channel)`, for all channels or those chosen.

    A channel of its own lies in one piece, which a CPU is three times faster on.
    """
    if chosen is None:
        one = transform
    else:
        values = (chosen, *values)

        def one(x: Array, is_chosen: Array, *own: Array) -> Array:
            return lax.cond(is_chosen, transform, lambda x, *_: x, x, *own)

    changed = each(one, jnp.moveaxis(image, -1, 0), *values)
    return jnp.moveaxis(changed, 0, -1)


def _take(x: Array, index: Array, axis: int) -> Array:
    return x.at[(slice(None),) * axis + (index,)].get(mode="promise_in_bounds")
