"""Flax: the same networks from its stock modules, trained by the very same step."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from benchmarks import bench_blocks, bench_compile, programs
from benchmarks.nets import NUM_CLASSES, Net
from benchmarks.timing import Work


def step(net: Net, *, setting: str, scratch: Path) -> Work:
    return programs.train_step(net, model=build(net), num_devices=1)


def forward(net: Net, *, setting: str, scratch: Path) -> Work:
    return programs.forward(net, model=build(net), num_devices=1)


def compile(case: bench_compile.Compiled, *, setting: str, scratch: Path) -> Work:
    return bench_compile.compiling(case, build(case.net), num_devices=1)


def blocks(block: bench_blocks.Block, *, setting: str, scratch: Path) -> Work:
    rank = len(block.size)
    names = ("N" + "DHW"[-rank:] + "C", "DHW"[-rank:] + "IO", "N" + "DHW"[-rank:] + "C")
    strides = (block.stride,) * rank
    padding = [((block.kernel - 1) // 2,) * 2] * rank

    def conv(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=names
        )

    def up(x: Array, kernel: Array) -> Array:
        return lax.conv_transpose(x, kernel, strides, "VALID", dimension_numbers=names)

    def norm(x: Array, scale_and_bias: Array) -> Array:
        scale, bias = scale_and_bias
        params = {"params": {"scale": scale, "bias": bias}}
        return nn.leaky_relu(nn.InstanceNorm(epsilon=1e-5).apply(params, x), 0.01)

    layers = {"conv": conv, "up": up, "norm": norm}
    return bench_blocks.timed(block, layers[block.layer])


def build(net: Net) -> nn.Module:
    """The network as a user of flax would write it."""
    dtype = net.dtype and jnp.dtype(net.dtype)
    if net.kind == "SegResNet":
        return StockSegResNet(net.features, net.num_blocks, dtype)
    if net.kind == "UNet2D":
        return StockUNet2D(net.features, dtype)
    return StockUNet(net.features, net.num_blocks, dtype)


def _conv(features: int, x: Array, *, stride: int = 1, **options: Any) -> nn.Conv:
    rank = x.ndim - 2
    strides, padding = (stride,) * rank, [(1, 1)] * rank
    return nn.Conv(features, (3,) * rank, strides, padding, **options)


def _point(features: int, x: Array, **options: Any) -> nn.Conv:
    return nn.Conv(features, (1,) * (x.ndim - 2), **options)


class StockUNet(nn.Module):
    """nnU-Net's U-Net; residual where `num_blocks` are given."""

    features: tuple[int, ...]
    num_blocks: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, is_training: bool = False) -> tuple[Array, ...]:
        """Logits, full resolution first."""
        skips = []
        if self.num_blocks:
            x = self._plain(x, self.features[0])
        for stage, features in enumerate(self.features):
            stride = 2 if stage else 1
            for i in range(self.num_blocks[stage] if self.num_blocks else 2):
                block = self._residual if self.num_blocks else self._plain
                x = block(x, features, 1 if i else stride)
            skips.append(x)
        outputs = []
        for skip in reversed(skips[:-1]):
            twos = (2,) * (x.ndim - 2)
            x = nn.ConvTranspose(skip.shape[-1], twos, twos, dtype=self.dtype)(x)
            x = jnp.concatenate([x, skip], -1)
            for _ in range(1 if self.num_blocks else 2):
                x = self._plain(x, skip.shape[-1])
            outputs.append(_point(NUM_CLASSES, x)(x.astype(jnp.float32)))
        return tuple(outputs[::-1])

    def _plain(self, x: Array, features: int, stride: int = 1) -> Array:
        x = _conv(features, x, stride=stride, dtype=self.dtype)(x)
        return nn.leaky_relu(nn.InstanceNorm(epsilon=1e-5, dtype=self.dtype)(x), 0.01)

    def _residual(self, x: Array, features: int, stride: int) -> Array:
        y = self._plain(x, features, stride)
        y = _conv(features, y, dtype=self.dtype)(y)
        y = nn.InstanceNorm(epsilon=1e-5, dtype=self.dtype)(y)
        if stride > 1:
            x = nn.avg_pool(x, (2,) * (x.ndim - 2), (2,) * (x.ndim - 2))
        if x.shape[-1] != features:
            x = _point(features, x, use_bias=False, dtype=self.dtype)(x)
            x = nn.InstanceNorm(epsilon=1e-5, dtype=self.dtype)(x)
        return nn.leaky_relu(x + y, 0.01)


class StockSegResNet(nn.Module):
    """MONAI's SegResNet."""

    features: tuple[int, ...]
    num_blocks: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, is_training: bool = False) -> tuple[Array, ...]:
        """Logits, full resolution first."""
        options = {"use_bias": False, "dtype": self.dtype}
        skips = []
        for level, features in enumerate(self.features):
            x = _conv(features, x, stride=2 if level else 1, **options)(x)
            for _ in range(self.num_blocks[level]):
                x = self._block(x)
            skips.append(x)
        for skip in reversed(skips[:-1]):
            x = _point(skip.shape[-1], x, **options)(x)
            x = jax.image.resize(x, skip.shape, "linear") + skip
            x = self._block(x)
        x = nn.relu(self._norm()(x))
        return (_point(NUM_CLASSES, x)(x.astype(jnp.float32)),)

    def _block(self, x: Array) -> Array:
        y = x
        for _ in range(2):
            y = nn.relu(self._norm()(y))
            y = _conv(x.shape[-1], y, use_bias=False, dtype=self.dtype)(y)
        return x + y

    def _norm(self) -> nn.GroupNorm:
        return nn.GroupNorm(8, epsilon=1e-5, dtype=self.dtype)


class StockUNet2D(nn.Module):
    """U-Net of convolution, ReLU and batch norm; dropout after each pool."""

    features: tuple[int, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, *, is_training: bool = False) -> tuple[Array, ...]:
        """Logits, full resolution first."""
        skips = []
        for features in self.features[:-1]:
            x = self._pair(x, features, is_training)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), (2, 2))
            x = nn.Dropout(0.2, deterministic=not is_training)(x)
        x = self._pair(x, self.features[-1], is_training)
        for skip in reversed(skips):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = jnp.concatenate([x, skip], -1)
            x = self._pair(x, skip.shape[-1], is_training)
        return (_point(NUM_CLASSES, x)(x.astype(jnp.float32)),)

    def _pair(self, x: Array, features: int, is_training: bool) -> Array:
        for _ in range(2):
            x = nn.relu(_conv(features, x, dtype=self.dtype)(x))
            options = {"momentum": 0.99, "epsilon": 1e-3, "dtype": self.dtype}
            x = nn.BatchNorm(use_running_average=not is_training, **options)(x)
        return x
