"""Parameterised layers: convolutions, norms and dropout, for any number of axes."""

from functools import partial

import flax.linen as nn
import jax
from jax import Array
from jax import numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, PRNGKeyArray

from bmjax import ops, sharding
from bmjax.models.initializers import (
    Initializer,
    he_normal,
    he_normal_transposed,
)
from bmjax.typing import Size


def torch_uniform_bias(fan_in: int) -> Initializer:
    """Torch's default for biases: uniform within 1 / sqrt(fan_in)."""

    def init(key: PRNGKeyArray, shape: Size, dtype=jnp.float32) -> Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Conv(nn.Module):
    """Convolution padded with `(k - 1) // 2` zeros on both sides.

    Attributes:
      features: output channels.
      kernel_size: one entry per space axis [vox].
      strides: one entry per space axis; None is 1 everywhere.
      use_bias: add a bias per output channel.
      is_bias_inert: hold the bias but do not add it, since a norm of each channel
        follows and takes out whatever is constant; its true gradient is zero.
      dtype: type of the computation; None follows input and parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    kernel_size: Size
    strides: Size | None = None
    use_bias: bool = True
    is_bias_inert: bool = False
    dtype: str | None = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *o f"]:
        """Filtered image."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        dtype = _compute_dtype(self.dtype, x, kernel)
        x = ops.convolution(x.astype(dtype), kernel.astype(dtype), strides=self.strides)
        x = checkpoint_name(x, "conv")
        if not self.use_bias:
            return x
        with_bias = _with_bias(self, x)
        return x if self.is_bias_inert else with_bias


class UpsamplingConv(nn.Module):
    """Convolution of kernel 3 over an image enlarged twice, and a skip beside it.

    It is `Conv` of `concatenate([upsample_nearest(x), skip])` with the same parameters,
    as the sum of two convolutions: neither the enlarged image nor the joined one is
    ever made.

    Attributes:
      features: output channels.
      dtype: type of the computation; None follows input and parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    dtype: str | None = None
    kernel_init: Initializer = he_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], skip: Float[Array, "b *o d"] | None = None
    ) -> Float[Array, "b *o f"]:
        """Filtered image on the fine grid."""
        width = x.shape[-1]
        size = (3,) * (x.ndim - 2)
        channels = width + (0 if skip is None else skip.shape[-1])
        kernel = self.param(
            "kernel", self.kernel_init, (*size, channels, self.features)
        )
        dtype = _compute_dtype(self.dtype, x, kernel)
        kernel = kernel.astype(dtype)
        y = ops.upsampled_convolution(x.astype(dtype), kernel[..., :width, :])
        if skip is not None:
            y = y + ops.convolution(skip.astype(dtype), kernel[..., width:, :])
        return _with_bias(self, checkpoint_name(y, "conv"))


class TransposedConv(nn.Module):
    """Learned upsampling: transposed convolution with kernel and stride equal.

    Attributes:
      features: output channels.
      factors: enlargement along each space axis.
      dtype: type of the computation; None follows input and parameters.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    factors: Size
    dtype: str | None = None
    kernel_init: Initializer = he_normal_transposed
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *o f"]:
        """Enlarged image."""
        shape = (*self.factors, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        dtype = _compute_dtype(self.dtype, x, kernel)
        x = ops.transposed_convolution(x.astype(dtype), kernel.astype(dtype))
        x = checkpoint_name(x, "conv")
        return _with_bias(self, x)


class OverlappingTransposedConv(nn.Module):
    """Transposed convolution of twice the stride, started as linear interpolation.

    Attributes:
      factors: enlargement along each space axis, even.
    """

    factors: Size

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *o c"]:
        """Enlarged image with the same channels."""
        shape = (*(2 * f for f in self.factors), x.shape[-1], x.shape[-1])
        kernel = self.param("kernel", _linear_interpolation, shape)
        return ops.overlapping_transposed_convolution(x, kernel)


class InstanceNorm(nn.Module):
    """Instance norm with scale and bias, then leaky ReLU; moments in float32 at least.

    Attributes:
      slope: slope of the leaky ReLU for negative values; 1 is none.
      epsilon: added to the variance (torch's default).
      scale_init: initializer of the scale; zeros silences a residual branch.
    """

    slope: float = 1.0
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
        """Normalised image."""
        scale, bias = _scale_and_bias(self, x, self.scale_init)
        wide = _at_least_float32(x)
        y = ops.instance_norm(wide, scale, bias, epsilon=self.epsilon, slope=self.slope)
        return y.astype(x.dtype) if wide.dtype != x.dtype else y


class GroupNorm(nn.Module):
    """Group norm with scale and bias, then leaky ReLU; moments in float32 at least.

    Attributes:
      num_groups: groups of neighbouring channels.
      slope: slope of the leaky ReLU for negative values; 1 is none.
      epsilon: added to the variance (torch's default, ten times flax's).
    """

    num_groups: int = 8
    slope: float = 1.0
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
        """Normalised image."""
        scale, bias = _scale_and_bias(self, x, nn.initializers.ones)
        wide = _at_least_float32(x)
        y = ops.group_norm(
            wide,
            scale,
            bias,
            num_groups=self.num_groups,
            epsilon=self.epsilon,
            slope=self.slope,
        )
        return y.astype(x.dtype) if wide.dtype != x.dtype else y


class ReluBatchNorm(nn.Module):
    """ReLU, then batch norm; its running moments in the collection `batch_stats`.

    Attributes:
      momentum: weight of the past in the running moments (Keras default).
      epsilon: added to the variance (Keras default).
      axis_name: axis of devices under pmap; None under jit.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool = False
    ) -> Float[Array, "b *s c"]:
        """Rectified image, normalised by the batch's moments or by the running ones."""
        scale, bias = _scale_and_bias(self, x, nn.initializers.ones)
        size = x.shape[-1:]
        past_mean = self.variable("batch_stats", "mean", jnp.zeros, size)
        past_variance = self.variable("batch_stats", "variance", jnp.ones, size)
        wide = _at_least_float32(x)
        if is_training:
            mean = partial(
                sharding.mean,
                axes=tuple(range(x.ndim - 1)),
                axis_name=self.axis_name,
            )
            y, first, second = ops.relu_batch_norm(
                wide, scale, bias, mean=mean, epsilon=self.epsilon
            )
            if not self.is_initializing():
                keep = self.momentum
                past_mean.value = keep * past_mean.value + (1 - keep) * first
                past_variance.value = keep * past_variance.value + (1 - keep) * second
        else:
            y = ops.normalize(
                nn.relu(wide),
                _row(past_mean.value, x.ndim),
                _row(past_variance.value, x.ndim),
                scale,
                bias,
                epsilon=self.epsilon,
            )
        return y.astype(x.dtype) if wide.dtype != x.dtype else y


class Dropout(nn.Module):
    """Dropout with one random key per sample, so that sharding does not change it.

    Attributes:
      p_drop: probability of each value to become zero.
      axis_name: axis of devices under pmap; None under jit.
    """

    p_drop: float
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool = False
    ) -> Float[Array, "b *s c"]:
        """Image with some values dropped and the others enlarged to keep the mean."""
        if not is_training or self.p_drop == 0:
            return x
        keys = sharding.sample_keys(
            self.make_rng("dropout"), x.shape[0], axis_name=self.axis_name
        )
        p_keep = 1 - self.p_drop
        is_kept = jax.vmap(lambda k: jax.random.bernoulli(k, p_keep, x.shape[1:]))(keys)
        is_kept = checkpoint_name(is_kept, "mask")
        return jnp.where(is_kept, x / p_keep, jnp.zeros_like(x))


def _linear_interpolation(key: PRNGKeyArray, shape: Size, dtype=jnp.float32) -> Array:
    """Kernel that interpolates each channel by itself (FCN's initialisation)."""
    del key
    kernel = jnp.eye(shape[-2], shape[-1], dtype=dtype)
    for size in reversed(shape[:-2]):
        place = jnp.arange(size, dtype=dtype)
        weights = 1 - jnp.abs(2 * place + 1 - size) / size
        kernel = weights.reshape(-1, *(1,) * kernel.ndim) * kernel[None]
    return kernel


def _scale_and_bias(
    layer: nn.Module, x: Array, scale_init: Initializer
) -> tuple[Array, Array]:
    size = x.shape[-1:]
    scale = layer.param("scale", scale_init, size)
    return scale, layer.param("bias", nn.initializers.zeros, size)


def _with_bias(layer: Conv | UpsamplingConv | TransposedConv, x: Array) -> Array:
    bias = layer.param("bias", layer.bias_init, x.shape[-1:])
    return x + _row(bias.astype(x.dtype), x.ndim)


def _compute_dtype(dtype: str | None, *arrays: Array) -> jnp.dtype:
    return jnp.dtype(dtype) if dtype is not None else jnp.result_type(*arrays)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _row(values: Array, ndim: int) -> Array:
    return values.reshape((1,) * (ndim - 1) + values.shape)
