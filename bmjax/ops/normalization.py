"""Normalization, with the ReLU beside it, by two passes over the voxels.

Its gradient is written out: it keeps only the input and the moments, where automatic
differentiation would keep three more images and read them ten times.
"""

from collections.abc import Callable
from functools import partial

import jax
from jax import Array, lax
from jax import numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

Mean = Callable[[Array], Array]


def normalize(
    x: Float[Array, "b *s c"],
    mean: Float[Array, "..."],
    variance: Float[Array, "..."],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    epsilon: float,
) -> Float[Array, "b *s c"]:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, the moments broadcast."""
    factor = lax.rsqrt(variance + epsilon) * _row(scale, x.ndim)
    return (x - mean) * factor + _row(bias, x.ndim)


def instance_norm(
    x: Float[Array, "b *s c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    epsilon: float = 1e-5,
    slope: float = 1.0,
) -> Float[Array, "b *s c"]:
    """Zero mean and unit variance in each sample and channel (biased variance).

    Args:
      x: images.
      scale: factor of each channel, after the division by the standard deviation.
      bias: offset of each channel.
      epsilon: added to the variance.
      slope: slope for negative values of the leaky ReLU that follows; 1 is none.
    """
    return _norm(x, scale, bias, x.shape[-1], epsilon, slope)


def group_norm(
    x: Float[Array, "b *s c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    slope: float = 1.0,
) -> Float[Array, "b *s c"]:
    """Zero mean and unit variance in each sample and group of neighbouring channels.

    Args:
      x: images.
      scale: factor of each channel, after the division by the standard deviation.
      bias: offset of each channel.
      num_groups: groups; divides the channels.
      epsilon: added to the variance.
      slope: slope for negative values of the leaky ReLU that follows; 1 is none.
    """
    return _norm(x, scale, bias, num_groups, epsilon, slope)


def relu_batch_norm(
    x: Float[Array, "b *s c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    *,
    mean: Mean,
    epsilon: float = 1e-3,
) -> tuple[Float[Array, "b *s c"], Float[Array, " c"], Float[Array, " c"]]:
    """ReLU, then zero mean and unit variance of each channel over all samples.

    Args:
      x: images.
      scale: factor of each channel, after the division by the standard deviation.
      bias: offset of each channel.
      mean: of an image over samples and space, on all devices.
      epsilon: added to the variance.

    Returns:
      Image, and the mean and variance of each channel behind the ReLU, which pass on no
      gradient.
    """
    return _relu_batch_norm(x, scale, bias, mean, epsilon)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _relu_batch_norm(
    x: Array, scale: Array, bias: Array, mean: Mean, epsilon: float
) -> tuple[Array, Array, Array]:
    return _batch_forward(x, scale, bias, mean, epsilon)[0]


def _batch_forward(
    x: Array, scale: Array, bias: Array, mean: Mean, epsilon: float
) -> tuple[tuple[Array, Array, Array], tuple]:
    first = checkpoint_name(mean(jax.nn.relu(x)), "moments")
    centred = jax.nn.relu(x) - _row(first, x.ndim)
    second = checkpoint_name(mean(jnp.square(centred)), "moments")
    factor = lax.rsqrt(second + epsilon) * scale
    y = centred * _row(factor, x.ndim) + _row(bias, x.ndim)
    return (y, first, second), (x, first, second, scale)


def _batch_backward(
    mean: Mean, epsilon: float, saved: tuple, grads: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    x, first, second, scale = saved
    y_grads = grads[0]
    rate = lax.rsqrt(second + epsilon)
    normal = (jax.nn.relu(x) - _row(first, x.ndim)) * _row(rate, x.ndim)
    axes = tuple(range(x.ndim - 1))
    constant, linear = mean(y_grads), mean(y_grads * normal)
    passed = y_grads - _row(constant, x.ndim) - normal * _row(linear, x.ndim)
    x_grads = jnp.where(x > 0, passed * _row(rate * scale, x.ndim), 0)
    return x_grads, (y_grads * normal).sum(axes), y_grads.sum(axes)


_relu_batch_norm.defvjp(_batch_forward, _batch_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _norm(
    x: Array, scale: Array, bias: Array, num_groups: int, epsilon: float, slope: float
) -> Array:
    return _forward(x, scale, bias, num_groups, epsilon, slope)[0]


def _forward(
    x: Array, scale: Array, bias: Array, num_groups: int, epsilon: float, slope: float
) -> tuple[Array, tuple]:
    mean = _mean_over_groups(_mean_over_space(x), num_groups)
    squares = _mean_over_space(jnp.square(x - mean))
    rate = lax.rsqrt(_mean_over_groups(squares, num_groups) + epsilon)
    mean, rate = (checkpoint_name(moment, "moments") for moment in (mean, rate))
    y = _activated(x, mean, rate, scale, bias)
    if slope != 1:
        y = jnp.where(y > 0, y, slope * y)
    return y, (x, mean, rate, scale, bias)


def _backward(
    num_groups: int, epsilon: float, slope: float, saved: tuple, grads: Array
) -> tuple[Array, Array, Array]:
    del epsilon
    x, mean, rate, scale, bias = saved
    if slope != 1:
        y = _activated(x, mean, rate, scale, bias)
        grads = jnp.where(y > 0, grads, slope * grads)
    mean_grad = _mean_over_space(grads)
    mean_product = _mean_over_space(grads * (x - mean)) * rate
    row = _row(scale, x.ndim)
    # Both moments of the gradient that the normalised image can not pass on.
    constant = _mean_over_groups(mean_grad * row, num_groups)
    linear = _mean_over_groups(mean_product * row, num_groups) * rate
    x_grads = rate * (grads * row - constant - (x - mean) * linear)
    num_voxels = x.size / (x.shape[0] * x.shape[-1])
    axes = tuple(range(x.ndim - 1))
    scale_grads = mean_product.sum(axes) * num_voxels
    return x_grads, scale_grads, mean_grad.sum(axes) * num_voxels


_norm.defvjp(_forward, _backward)


def _activated(x: Array, mean: Array, rate: Array, scale: Array, bias: Array) -> Array:
    return (x - mean) * (rate * _row(scale, x.ndim)) + _row(bias, x.ndim)


def _mean_over_space(x: Float[Array, "b *s c"]) -> Float[Array, "b ... c"]:
    return x.mean(tuple(range(1, x.ndim - 1)), keepdims=True)


def _mean_over_groups(moments: Array, num_groups: int) -> Array:
    """Mean within each group of channels, for every channel of it."""
    channels = moments.shape[-1]
    if num_groups == channels:
        return moments
    grouped = moments.reshape(*moments.shape[:-1], num_groups, -1)
    means = jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape)
    return means.reshape(moments.shape)


def _row(values: Array, ndim: int) -> Array:
    return values.reshape((1,) * (ndim - 1) + values.shape)
