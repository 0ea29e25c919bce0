"""The 2-D study's networks: a Keras-kind U-Net with dropout and its two baselines.

Kaur and Singh 2024, section 6.4.1: per level twice convolution, ReLU, then batch norm
(in this order), max pool, dropout. Of the baselines the paper gives only the names, so
ConvNet and FCN are interpretations.
"""

from typing import Literal

import flax.linen as nn
from jax import Array
from jaxtyping import Float

from bmjax import ops
from bmjax.models.blocks import Heads, check_divisible
from bmjax.models.initializers import glorot_uniform
from bmjax.models.layers import (
    Conv,
    Dropout,
    OverlappingTransposedConv,
    ReluBatchNorm,
    UpsamplingConv,
)
from bmjax.typing import Image, Logits, Size


class UNet2D(nn.Module):
    """U-Net with batch norm, dropout after every pool and nearest upsampling.

    Attributes:
      num_classes: classes; None is taken from the plan.
      features: channels of each level and of the bottleneck.
      p_drop: dropout after each pool.
      skip: what the decoder concatenates: `before_pool`, the level's own last output;
        `after_pool`, the paper's literal step 7, the pooled output of the level above
        (the input image at full resolution).
      axis_name: axis of devices under pmap.
      dtype: type of the computation, such as `bfloat16`; parameters, moments and
        logits stay float32.
    """

    num_classes: int | None = None
    features: Size = (32, 64, 128, 256, 512)
    p_drop: float = 0.2
    skip: Literal["before_pool", "after_pool"] = "before_pool"
    axis_name: str | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits at full resolution."""
        outputs, pooled = PoolingEncoder(
            self.features, self.p_drop, self.axis_name, self.dtype, name="encoder"
        )(image, is_training)
        skips = outputs[:-1] if self.skip == "before_pool" else [image, *pooled[:-1]]
        x = UpsamplingDecoder(
            self.features[:-1], self.axis_name, self.dtype, name="decoder"
        )(outputs[-1], skips, is_training)
        return _heads(self, x)


class ConvNet(nn.Module):
    """UNet2D without its skips: the paper's 'traditional CNN', interpreted.

    Attributes:
      num_classes: classes; None is taken from the plan.
      features: channels of each level and of the bottleneck.
      p_drop: dropout after each pool.
      axis_name: axis of devices under pmap.
      dtype: type of the computation.
    """

    num_classes: int | None = None
    features: Size = (32, 64, 128, 256, 512)
    p_drop: float = 0.2
    axis_name: str | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits at full resolution."""
        outputs, _ = PoolingEncoder(
            self.features, self.p_drop, self.axis_name, self.dtype, name="encoder"
        )(image, is_training)
        x = UpsamplingDecoder(
            self.features[:-1], self.axis_name, self.dtype, name="decoder"
        )(outputs[-1], None, is_training)
        return _heads(self, x)


class FCN(nn.Module):
    """FCN-8s (Long et al. 2015) on the same encoder: the paper's 'FCN', interpreted.

    Scores after the third, fourth and fifth pool are summed, enlarged by transposed
    convolutions that start as linear interpolation.

    Attributes:
      num_classes: classes; None is taken from the plan.
      features: channels of each of the five levels.
      p_drop: dropout after each pool.
      axis_name: axis of devices under pmap.
      dtype: type of the computation.
    """

    num_classes: int | None = None
    features: Size = (32, 64, 128, 256, 512)
    p_drop: float = 0.2
    axis_name: str | None = None
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits at full resolution."""
        num_axes = image.ndim - 2
        check_divisible(image, (2 ** len(self.features),) * num_axes)
        _, pooled = PoolingEncoder(
            self.features,
            self.p_drop,
            self.axis_name,
            self.dtype,
            num_pools=len(self.features),
            name="encoder",
        )(image, is_training)
        stride_8, stride_16, stride_32 = _heads(self, *pooled[-3:])
        enlarge = (2,) * num_axes
        x = stride_16 + OverlappingTransposedConv(enlarge, name="up_32")(stride_32)
        x = stride_8 + OverlappingTransposedConv(enlarge, name="up_16")(x)
        rest = (2 ** (len(self.features) - 2),) * num_axes
        return (OverlappingTransposedConv(rest, name="up_8")(x),)


class PoolingEncoder(nn.Module):
    """Levels of two convolutions, max-pooled by 2 with dropout after each pool.

    Attributes:
      features: channels of each level.
      p_drop: dropout after each pool.
      axis_name: axis of devices under pmap.
      dtype: type of the computation.
      num_pools: levels that are pooled; None is all but the last.
    """

    features: Size
    p_drop: float
    axis_name: str | None
    dtype: str | None
    num_pools: int | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s c"], is_training: bool
    ) -> tuple[list[Float[Array, "b ..."]], list[Float[Array, "b ..."]]]:
        """Outputs before and after the pool of each level, full resolution first."""
        num_pools = len(self.features) - 1 if self.num_pools is None else self.num_pools
        check_divisible(x, (2**num_pools,) * (x.ndim - 2))
        outputs, pooled = [], []
        for level, features in enumerate(self.features):
            x = _ConvPair(features, self.axis_name, self.dtype, name=f"stage_{level}")(
                x, is_training
            )
            outputs.append(x)
            if level < num_pools:
                x = ops.max_pool(x, window=(2,) * (x.ndim - 2))
                x = Dropout(self.p_drop, self.axis_name, name=f"dropout_{level}")(
                    x, is_training
                )
                pooled.append(x)
        return outputs, pooled


class UpsamplingDecoder(nn.Module):
    """Nearest upsampling, skip if any, two convolutions per level.

    Attributes:
      features: channels of each level, full resolution first.
      axis_name: axis of devices under pmap.
      dtype: type of the computation.
    """

    features: Size
    axis_name: str | None
    dtype: str | None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *s c"],
        skips: list[Float[Array, "b ..."]] | None,
        is_training: bool,
    ) -> Float[Array, "b *o f"]:
        """Image at full resolution."""
        for level in reversed(range(len(self.features))):
            x = _ConvPair(
                self.features[level],
                self.axis_name,
                self.dtype,
                is_upsampling=True,
                name=f"stage_{level}",
            )(x, is_training, None if skips is None else skips[level])
        return x


class _ConvPair(nn.Module):
    features: int
    axis_name: str | None
    dtype: str | None
    is_upsampling: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *s c"],
        is_training: bool,
        skip: Float[Array, "b *o d"] | None = None,
    ) -> Float[Array, "b *o f"]:
        options = {"dtype": self.dtype, "kernel_init": glorot_uniform}
        size = (3,) * (x.ndim - 2)
        for i in range(2):
            if i == 0 and self.is_upsampling:
                x = UpsamplingConv(self.features, name="conv_0", **options)(x, skip)
            else:
                x = Conv(self.features, size, name=f"conv_{i}", **options)(x)
            x = ReluBatchNorm(axis_name=self.axis_name, name=f"norm_{i}")(
                x, is_training
            )
        return x


def _heads(net: UNet2D | ConvNet | FCN, *images: Array) -> tuple[Array, ...]:
    if net.num_classes is None:
        raise ValueError(
            f"{type(net).__name__} has num_classes=None; give it, or let "
            "Experiment.resolve(plan) fill it from a plan"
        )
    return Heads(net.num_classes, glorot_uniform, name="heads")(images)
