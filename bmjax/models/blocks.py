"""Blocks that the networks are stacked from, for images of two or three axes."""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array
from jax import numpy as jnp
from jaxtyping import Float

from bmjax import ops
from bmjax.models.initializers import torch_uniform
from bmjax.models.layers import Conv, Dropout, GroupNorm, InstanceNorm
from bmjax.typing import Size


class ConvBlock(nn.Module):
    """Convolution, dropout if any, instance norm, leaky ReLU.

    Attributes:
      features: output channels.
      kernel_size: one entry per space axis [vox].
      strides: one entry per space axis.
      p_drop: dropout between convolution and norm.
      axis_name: axis of devices under pmap.
      dtype: type of the computation.
    """

    features: int
    kernel_size: Size
    strides: Size | None = None
    p_drop: float = 0.0
    axis_name: str | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool = False
    ) -> Float[Array, "b *o f"]:
        """Filtered image."""
        x = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            is_bias_inert=self.p_drop == 0,
            dtype=self.dtype,
            name="conv",
        )(x)
        x = Dropout(self.p_drop, self.axis_name, name="dropout")(x, is_training)
        return InstanceNorm(slope=0.01, name="norm")(x)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut: the `D` variant of ResNet, instance norms.

    The shortcut pools where the block strides and projects where channels change; the
    last norm starts at zero, so the block starts as its shortcut (nnU-Net default).

    Attributes:
      features: output channels.
      kernel_size: one entry per space axis [vox].
      strides: one entry per space axis.
      p_drop: dropout after the first convolution.
      axis_name: axis of devices under pmap.
      dtype: type of the computation.
    """

    features: int
    kernel_size: Size
    strides: Size | None = None
    p_drop: float = 0.0
    axis_name: str | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool = False
    ) -> Float[Array, "b *o f"]:
        """Filtered image."""
        y = Conv(
            self.features,
            self.kernel_size,
            self.strides,
            is_bias_inert=self.p_drop == 0,
            dtype=self.dtype,
            name="conv_1",
        )(x)
        y = Dropout(self.p_drop, self.axis_name, name="dropout")(y, is_training)
        y = InstanceNorm(slope=0.01, name="norm_1")(y)
        y = Conv(
            self.features,
            self.kernel_size,
            is_bias_inert=True,
            dtype=self.dtype,
            name="conv_2",
        )(y)
        y = InstanceNorm(scale_init=nn.initializers.zeros, name="norm_2")(y)
        return nn.leaky_relu(y + self._shortcut(x), 0.01)

    def _shortcut(self, x: Array) -> Array:
        if self.strides is not None and any(s > 1 for s in self.strides):
            x = ops.average_pool(x, window=self.strides)
        if x.shape[-1] == self.features:
            return x
        pointwise = (1,) * (x.ndim - 2)
        x = Conv(
            self.features, pointwise, use_bias=False, dtype=self.dtype, name="skip_conv"
        )(x)
        return InstanceNorm(name="skip_norm")(x)


class PreActivationBlock(nn.Module):
    """Norm, ReLU, convolution, twice, around an identity (SegResNet).

    Attributes:
      kernel_size: one entry per space axis [vox].
      num_groups: groups of the group norms.
      dtype: type of the computation.
    """

    kernel_size: Size
    num_groups: int = 8
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
        """Filtered image."""
        y = x
        for i in (1, 2):
            y = GroupNorm(self.num_groups, slope=0.0, name=f"norm_{i}")(y)
            y = Conv(
                x.shape[-1],
                self.kernel_size,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=torch_uniform,
                name=f"conv_{i}",
            )(y)
        return x + y


class Heads(nn.Module):
    """One voxel-wise linear classifier per resolution, in float32 at least.

    Attributes:
      num_classes: output channels of each head.
      kernel_init: initializer of the kernels.
      bias_init: initializer of the biases.
    """

    num_classes: int
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, images: Sequence[Float[Array, "b ..."]]
    ) -> tuple[Float[Array, "b ..."], ...]:
        """Logits of each image, in the given order."""
        return tuple(
            Conv(
                self.num_classes,
                (1,) * (x.ndim - 2),
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                name=f"level_{level}",
            )(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
            for level, x in enumerate(images)
        )


def check_divisible(image: Array, total_strides: Size) -> None:
    """Refuse an image that the strides of a network do not divide.

    Raises:
      ValueError: names the sizes and the nearest legal ones.
    """
    sizes = image.shape[1:-1]
    if len(sizes) != len(total_strides):
        raise ValueError(
            f"image of shape {image.shape} has {len(sizes)} space axes, the network "
            f"{len(total_strides)}; arrays are (batch, *space, channel)"
        )
    if any(n % s for n, s in zip(sizes, total_strides, strict=True)):
        legal = tuple(-(-n // s) * s for n, s in zip(sizes, total_strides, strict=True))
        raise ValueError(
            f"image size {sizes} is not divisible by the network's total strides "
            f"{total_strides}; the nearest larger legal size is {legal}"
        )
