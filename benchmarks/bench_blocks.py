"""Single layers in the shapes of our networks: forward and each gradient by itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.timing import Work

PEERS = ("torch", "flax")
Part = Literal["forward", "input gradient", "kernel gradient"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One layer, and which of its three computations.

    Attributes:
      layer: a convolution, a learned upsampling (kernel and stride equal), or an
        instance norm with its leaky ReLU.
      part: forward, or the gradient of one operand; of a norm `input gradient` is that
        of all operands.
      size: of the input [vox].
      batch_size: samples.
      channels: of the input.
      features: of the output.
      kernel: along each axis [vox].
      stride: along each axis.
    """

    layer: Literal["conv", "up", "norm"]
    part: Part = "forward"
    size: tuple[int, ...]
    batch_size: int = 2
    channels: int
    features: int
    kernel: int = 3
    stride: int = 1

    @property
    def name(self) -> str:
        """Such as `conv3 64x64x64 32>64 /2 forward`."""
        size = "x".join(map(str, self.size))
        kernel = "" if self.layer == "norm" else str(self.kernel)
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return (
            f"{self.layer}{kernel} {size} b{self.batch_size} "
            f"{self.channels}>{self.features}{stride} {self.part}"
        )

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Our order: space, input channels, output channels."""
        return (*(self.kernel,) * len(self.size), self.channels, self.features)

    @property
    def output_size(self) -> tuple[int, ...]:
        """Size of the output [vox]."""
        if self.layer == "up":
            return tuple(n * self.stride for n in self.size)
        return tuple(n // self.stride for n in self.size)

    @property
    def multiply_adds(self) -> int:
        """Counted by hand: taps that hit the image, over all outputs and channels."""
        if self.layer == "up":  # every voxel is multiplied with every tap once
            taps = prod(self.size) * self.kernel ** len(self.size)
        else:
            taps = prod(_taps(n, self.kernel, self.stride) for n in self.size)
        return self.batch_size * taps * self.channels * self.features


def _taps(size: int, kernel: int, stride: int) -> int:
    """Pairs of an output and a tap on a voxel of the image, along one axis."""
    pad = (kernel - 1) // 2
    return sum(
        0 <= out * stride + tap - pad < size
        for out in range(size // stride)
        for tap in range(kernel)
    )


def _all_parts(*blocks: Block) -> dict[str, Block]:
    parts: dict[str, tuple[Part, ...]] = {
        "conv": ("forward", "input gradient", "kernel gradient"),
        "up": ("forward", "input gradient", "kernel gradient"),
        "norm": ("forward", "input gradient"),
    }
    all_of = [replace(b, part=part) for b in blocks for part in parts[b.layer]]
    return {block.name: block for block in all_of}


def _conv(
    size: int, channels: int, features: int, *, rank: int = 3, **options: Any
) -> Block:
    shape = {"size": (size,) * rank, "channels": channels, "features": features}
    return Block(**{"layer": "conv", **shape, **options})


CASES = _all_parts(
    *(_conv(64, 32, 32), _conv(64, 64, 32), _conv(32, 64, 64)),
    *(_conv(16, 128, 128), _conv(8, 256, 256), _conv(64, 32, 64, stride=2)),
    _conv(32, 64, 32, layer="up", kernel=2, stride=2),
    _conv(64, 32, 32, layer="norm"),
    _conv(256, 32, 32, rank=2, batch_size=8),
)
QUICK = _all_parts(
    _conv(8, 4, 4),
    _conv(4, 4, 4, layer="up", kernel=2, stride=2),
    _conv(8, 4, 4, layer="norm"),
)


def ours(block: Block, *, scratch: Path) -> Work:
    from bmjax import ops

    strides = (block.stride,) * len(block.size)
    layers = {
        "conv": lambda x, k: ops.convolution(x, k, strides=strides),
        "up": ops.transposed_convolution,
        "norm": lambda x, k: ops.instance_norm(x, k[0], k[1], slope=0.01),
    }
    return timed(block, layers[block.layer])


def timed(block: Block, layer: Callable[[Any, Any], Any]) -> Work:
    """The part of a layer `(image, kernel) -> image` that is asked for, compiled."""
    import jax

    from benchmarks.programs import compiled, gflop

    is_norm = block.layer == "norm"
    rng = np.random.default_rng(0)
    x, kernel, grads = (
        jax.device_put(rng.standard_normal(shape, np.float32))
        for shape in (
            (block.batch_size, *block.size, block.channels),
            (2, block.features) if is_norm else block.kernel_shape,
            (block.batch_size, *block.output_size, block.features),
        )
    )

    def part(x: Any, kernel: Any, grads: Any) -> Any:
        if block.part == "forward":
            return layer(x, kernel)
        both = jax.vjp(layer, x, kernel)[1](grads)
        return both if is_norm else both[block.part == "kernel gradient"]

    program, compile_s = compiled(jax.jit(part), x, kernel, grads)
    return Work(
        call=lambda: jax.block_until_ready(program(x, kernel, grads)),
        compile_s=compile_s,
        gflop=None if is_norm else gflop(part, x, kernel, grads),
    )
