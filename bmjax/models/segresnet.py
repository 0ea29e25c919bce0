"""SegResNet: residual encoder and additive decoder (Myronenko, BraTS 2018; MONAI)."""

import flax.linen as nn
from jax import Array
from jaxtyping import Float

from bmjax import ops
from bmjax.models.blocks import Heads, PreActivationBlock, check_divisible
from bmjax.models.initializers import torch_uniform
from bmjax.models.layers import Conv, GroupNorm, torch_uniform_bias
from bmjax.typing import Image, Logits, Size


class SegResNet(nn.Module):
    """MONAI's SegResNet: group norms, pre-activation, linear upsampling, sums.

    Attributes:
      num_classes: regions or classes; None is taken from the plan.
      num_features: channels at full resolution, doubled at each level.
      num_blocks_down: residual blocks of each encoder level.
      num_blocks_up: residual blocks of each decoder level, deepest first.
      num_groups: groups of the group norms.
      use_remat: recompute each block in the backward pass to save memory.
      dtype: type of the computation, such as `bfloat16`; parameters, moments and
        logits stay float32.
    """

    num_classes: int | None = None
    num_features: int = 32
    num_blocks_down: Size = (1, 2, 2, 4)
    num_blocks_up: Size = (1, 1, 1)
    num_groups: int = 8
    use_remat: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits at full resolution."""
        if self.num_classes is None:
            raise ValueError(
                "SegResNet has num_classes=None; give it, or let "
                "Experiment.resolve(plan) fill it from a plan"
            )
        options = (self.num_groups, self.use_remat, self.dtype)
        skips = ResidualEncoder(
            self.num_features, self.num_blocks_down, *options, name="encoder"
        )(image)
        x = AdditiveDecoder(self.num_blocks_up, *options, name="decoder")(skips)
        bias_init = torch_uniform_bias(self.num_features)
        return Heads(self.num_classes, torch_uniform, bias_init, name="heads")([x])


class ResidualEncoder(nn.Module):
    """Levels of pre-activation blocks, halved by strided convolutions.

    Attributes:
      num_features: channels at full resolution, doubled at each level.
      num_blocks: residual blocks of each level.
      num_groups: groups of the group norms.
      use_remat: recompute each block in the backward pass.
      dtype: type of the computation.
    """

    num_features: int
    num_blocks: Size
    num_groups: int
    use_remat: bool
    dtype: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> list[Float[Array, "b ..."]]:
        """Output of each level, full resolution first."""
        num_axes = x.ndim - 2
        check_divisible(x, (2 ** (len(self.num_blocks) - 1),) * num_axes)
        outputs = []
        for level, num_blocks in enumerate(self.num_blocks):
            x = Conv(
                self.num_features * 2**level,
                (3,) * num_axes,
                (2 if level else 1,) * num_axes,
                use_bias=False,
                dtype=self.dtype,
                kernel_init=torch_uniform,
                name=f"down_{level}" if level else "stem",
            )(x)
            x = _Level(
                num_blocks,
                self.num_groups,
                self.use_remat,
                self.dtype,
                name=f"stage_{level}",
            )(x)
            outputs.append(x)
        return outputs


class AdditiveDecoder(nn.Module):
    """Halve the channels, double the size, add the skip, then blocks; a last norm.

    Attributes:
      num_blocks: residual blocks of each level, deepest first.
      num_groups: groups of the group norms.
      use_remat: recompute each block in the backward pass.
      dtype: type of the computation.
    """

    num_blocks: Size
    num_groups: int
    use_remat: bool
    dtype: str | None

    @nn.compact
    def __call__(self, skips: list[Float[Array, "b ..."]]) -> Float[Array, "b *s c"]:
        """Image at full resolution."""
        x = skips[-1]
        levels = reversed(range(len(skips) - 1))
        for level, num_blocks in zip(levels, self.num_blocks, strict=True):
            x = Conv(
                skips[level].shape[-1],
                (1,) * (x.ndim - 2),
                use_bias=False,
                dtype=self.dtype,
                kernel_init=torch_uniform,
                name=f"up_{level}",
            )(x)
            x = ops.upsample_linear(x) + skips[level]
            x = _Level(
                num_blocks,
                self.num_groups,
                self.use_remat,
                self.dtype,
                name=f"stage_{level}",
            )(x)
        return GroupNorm(self.num_groups, slope=0.0, name="norm")(x)


class _Level(nn.Module):
    num_blocks: int
    num_groups: int
    use_remat: bool
    dtype: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
        block = nn.remat(PreActivationBlock) if self.use_remat else PreActivationBlock
        for i in range(self.num_blocks):
            x = block(
                (3,) * (x.ndim - 2), self.num_groups, self.dtype, name=f"block_{i}"
            )(x)
        return x
