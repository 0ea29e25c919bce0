"""U-Nets of nnU-Net: plain or residual encoder, with deep-supervision heads.

Isensee et al., Nature Methods 2021 and MICCAI 2024; `dynamic-network-architectures`
fixes the arithmetic. Level 0 is the full resolution in encoder, decoder and heads.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
from jax import Array
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.models.blocks import ConvBlock, Heads, ResidualBlock, check_divisible
from bmjax.models.initializers import he_normal
from bmjax.models.layers import TransposedConv
from bmjax.typing import Image, Logits, Size

# nnU-Net's residual blocks per stage: 1, 3, 4, then 6 for every deeper stage.
_RESIDUAL_BLOCKS = (1, 3, 4)
_DEEP_RESIDUAL_BLOCKS = 6


class Stage(nn.Module):
    """Blocks at one resolution; the first one strides.

    Attributes:
      features: output channels.
      kernel_size: one entry per space axis [vox].
      strides: one entry per space axis.
      num_blocks: blocks in the stage.
      is_residual: residual blocks rather than plain ones.
      p_drop: dropout in each block.
      use_remat: recompute each block in the backward pass.
      dtype: type of the computation.
      axis_name: axis of devices under pmap.
    """

    features: int
    kernel_size: Size
    strides: Size
    num_blocks: int
    is_residual: bool
    p_drop: float
    use_remat: bool
    dtype: str | None
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool
    ) -> Float[Array, "b *o f"]:
        """Filtered image."""
        block = ResidualBlock if self.is_residual else ConvBlock
        if self.use_remat:
            block = nn.remat(block, static_argnums=(2,))
        for i in range(self.num_blocks):
            x = block(
                self.features,
                self.kernel_size,
                self.strides if i == 0 else None,
                p_drop=self.p_drop,
                axis_name=self.axis_name,
                dtype=self.dtype,
                name=f"block_{i}",
            )(x, is_training)
        return x


class Encoder(nn.Module):
    """Stages of falling resolution.

    Attributes:
      features: channels of each stage.
      strides: strides of each stage.
      kernel_sizes: kernel of each stage [vox].
      num_blocks: blocks of each stage.
      is_residual: a stem of one block, then residual stages.
      p_drop: dropout in each block.
      use_remat: recompute each block in the backward pass.
      dtype: type of the computation.
      axis_name: axis of devices under pmap.
    """

    features: Size
    strides: tuple[Size, ...]
    kernel_sizes: tuple[Size, ...]
    num_blocks: Size
    is_residual: bool
    p_drop: float
    use_remat: bool
    dtype: str | None
    axis_name: str | None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool
    ) -> list[Float[Array, "b ..."]]:
        """Output of each stage, full resolution first."""
        if self.is_residual:
            x = Stage(
                self.features[0],
                self.kernel_sizes[0],
                (1,) * (x.ndim - 2),
                1,
                False,
                self.p_drop,
                self.use_remat,
                self.dtype,
                self.axis_name,
                name="stem",
            )(x, is_training)
        outputs = []
        for i, num_blocks in enumerate(self.num_blocks):
            x = Stage(
                self.features[i],
                self.kernel_sizes[i],
                self.strides[i],
                num_blocks,
                self.is_residual,
                self.p_drop,
                self.use_remat,
                self.dtype,
                self.axis_name,
                name=f"stage_{i}",
            )(x, is_training)
            outputs.append(x)
        return outputs


class Decoder(nn.Module):
    """Learned upsampling and plain blocks on `(upsampled, skip)` channels.

    Attributes:
      kernel_sizes: kernel of each encoder stage [vox].
      strides: strides of each encoder stage.
      num_convs: convolutions per stage.
      p_drop: dropout in each block.
      use_remat: recompute each block in the backward pass.
      dtype: type of the computation.
      axis_name: axis of devices under pmap.
    """

    kernel_sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    num_convs: int
    p_drop: float
    use_remat: bool
    dtype: str | None
    axis_name: str | None

    @nn.compact
    def __call__(
        self, skips: Sequence[Float[Array, "b ..."]], is_training: bool
    ) -> list[Float[Array, "b ..."]]:
        """Output of each stage, full resolution first."""
        outputs = []
        x = skips[-1]
        for i in reversed(range(len(skips) - 1)):
            features = skips[i].shape[-1]
            x = TransposedConv(
                features, self.strides[i + 1], dtype=self.dtype, name=f"up_{i}"
            )(x)
            x = jnp.concatenate([x, skips[i]], axis=-1)
            x = Stage(
                features,
                self.kernel_sizes[i],
                (1,) * (x.ndim - 2),
                self.num_convs,
                False,
                self.p_drop,
                self.use_remat,
                self.dtype,
                self.axis_name,
                name=f"stage_{i}",
            )(x, is_training)
            outputs.append(x)
        return outputs[::-1]


class PlainUNet(nn.Module):
    """nnU-Net's plain U-Net.

    Attributes:
      features: channels of each stage; None is taken from the plan.
      strides: strides of each stage, one per space axis, the first all 1; None is 2
        from the second stage on.
      kernel_sizes: kernel of each stage, one entry per space axis [vox]; None is 3.
      num_classes: regions or classes; None is taken from the plan.
      num_convs: convolutions per encoder and decoder stage.
      p_drop: dropout after each convolution.
      use_remat: recompute each block in the backward pass to save memory.
      dtype: type of the computation, such as `bfloat16`; parameters, moments and
        logits stay float32.
      axis_name: axis of devices under pmap.
    """

    features: Size | None = None
    strides: tuple[Size, ...] | None = None
    kernel_sizes: tuple[Size, ...] | None = None
    num_classes: int | None = None
    num_convs: int = 2
    p_drop: float = 0.0
    use_remat: bool = False
    dtype: str | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits at every resolution but the lowest, full resolution first."""
        features, strides, kernel_sizes, num_classes = _topology(self, image)
        options = (self.p_drop, self.use_remat, self.dtype, self.axis_name)
        num_convs = (self.num_convs,) * len(features)
        skips = Encoder(
            features, strides, kernel_sizes, num_convs, False, *options, name="encoder"
        )(image, is_training)
        images = Decoder(
            kernel_sizes, strides, self.num_convs, *options, name="decoder"
        )(skips, is_training)
        return Heads(num_classes, he_normal, name="heads")(images)


class ResEncUNet(nn.Module):
    """nnU-Net's U-Net with residual encoder; its presets M, L and XL differ by plan.

    Attributes:
      features: channels of each stage; None is taken from the plan.
      strides: strides of each stage, one per space axis, the first all 1; None is 2
        from the second stage on.
      kernel_sizes: kernel of each stage, one entry per space axis [vox]; None is 3.
      num_classes: regions or classes; None is taken from the plan.
      num_blocks: residual blocks of each stage; None is 1, 3, 4, 6, 6, ...
      num_convs: convolutions per decoder stage.
      p_drop: dropout after the first convolution of each block.
      use_remat: recompute each block in the backward pass to save memory.
      dtype: type of the computation, such as `bfloat16`; parameters, moments and
        logits stay float32.
      axis_name: axis of devices under pmap.
    """

    features: Size | None = None
    strides: tuple[Size, ...] | None = None
    kernel_sizes: tuple[Size, ...] | None = None
    num_classes: int | None = None
    num_blocks: Size | None = None
    num_convs: int = 1
    p_drop: float = 0.0
    use_remat: bool = False
    dtype: str | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits at every resolution but the lowest, full resolution first."""
        features, strides, kernel_sizes, num_classes = _topology(self, image)
        options = (self.p_drop, self.use_remat, self.dtype, self.axis_name)
        num_blocks = self.num_blocks
        if num_blocks is None:
            deep = (_DEEP_RESIDUAL_BLOCKS,) * len(features)
            num_blocks = (*_RESIDUAL_BLOCKS, *deep)[: len(features)]
        skips = Encoder(
            features, strides, kernel_sizes, num_blocks, True, *options, name="encoder"
        )(image, is_training)
        images = Decoder(
            kernel_sizes, strides, self.num_convs, *options, name="decoder"
        )(skips, is_training)
        return Heads(num_classes, he_normal, name="heads")(images)


def _topology(
    net: PlainUNet | ResEncUNet, image: Array
) -> tuple[Size, tuple[Size, ...], tuple[Size, ...], int]:
    """Features, strides, kernels and classes of a net, checked against the image."""
    num_axes = image.ndim - 2
    if net.features is None or net.num_classes is None:
        raise ValueError(
            f"{type(net).__name__} has features={net.features} and "
            f"num_classes={net.num_classes}; give both, or let "
            "Experiment.resolve(plan) fill them from a plan"
        )
    num_stages = len(net.features)
    ones, twos, threes = ((n,) * num_axes for n in (1, 2, 3))
    strides = net.strides or (ones, *(twos,) * (num_stages - 1))
    kernel_sizes = net.kernel_sizes or (threes,) * num_stages
    if not num_stages == len(strides) == len(kernel_sizes):
        raise ValueError(
            f"{type(net).__name__}: {num_stages} features, {len(strides)} strides and "
            f"{len(kernel_sizes)} kernel_sizes; give one of each per stage"
        )
    check_divisible(image, tuple(math.prod(s) for s in zip(*strides, strict=True)))
    return net.features, strides, kernel_sizes, net.num_classes
