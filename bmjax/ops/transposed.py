"""Convolutions that enlarge: one on the coarse grid, and a rearrangement behind it."""

from jax import Array
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.ops.convolution import convolution
from bmjax.typing import Size


def depth_to_space(
    x: Float[Array, "b *s c"], *, factors: Size
) -> Float[Array, "b *o f"]:
    """Spread channel blocks over finer voxels; channels hold `(*factors, f)`."""
    num_axes = len(factors)
    batch, *space, _ = x.shape
    x = x.reshape(batch, *space, *factors, -1)
    pairs = [axis for a in range(num_axes) for axis in (1 + a, 1 + num_axes + a)]
    x = x.transpose(0, *pairs, 1 + 2 * num_axes)
    sizes = (n * f for n, f in zip(space, factors, strict=True))
    return x.reshape(batch, *sizes, -1)


def transposed_convolution(
    x: Float[Array, "b *s c"], kernel: Float[Array, "*k c f"]
) -> Float[Array, "b *o f"]:
    """Transposed convolution whose strides equal its kernel size: no overlap.

    `out[s * x + i] = sum_c x[c] * kernel[i, c]`, without the flip of some libraries.
    """
    *factors, num_in, _ = kernel.shape
    columns = jnp.moveaxis(kernel, -2, 0).reshape(num_in, -1)  # c (*k f)
    return depth_to_space(jnp.matmul(x, columns), factors=tuple(factors))


def overlapping_transposed_convolution(
    x: Float[Array, "b *s c"], kernel: Float[Array, "*k c f"]
) -> Float[Array, "b *o f"]:
    """Transposed convolution of even stride `k / 2`; output exactly `stride` times x.

    Each output voxel sees two inputs per axis: one convolution of kernel 3 whose output
    channels are the voxels of a stride, shifted by half a stride.
    """
    *sizes, num_in, num_out = kernel.shape
    num_axes = len(sizes)
    factors = tuple(size // 2 for size in sizes)
    # Output s * q + r takes input q + d through tap r + s // 2 - s * d, d in -1, 0, 1.
    for axis, factor in enumerate(factors):
        taps = jnp.moveaxis(kernel, axis, 0)
        margin = [(factor, factor), *[(0, 0)] * (taps.ndim - 1)]
        taps = jnp.pad(taps, margin)  # tap t is now at t + factor
        start = factor + factor // 2
        shifted = [
            taps[start - factor * d : start - factor * d + factor] for d in (-1, 0, 1)
        ]
        # A pair of axes (offset, place) in the position of the axis, place last.
        pair = jnp.stack(shifted)
        kernel = jnp.moveaxis(pair, (0, 1), (axis, kernel.ndim))
    taps = jnp.moveaxis(kernel, num_axes + 1, -1).reshape(*(3,) * num_axes, num_in, -1)
    return depth_to_space(convolution(x, taps), factors=factors)


def upsampled_convolution(
    x: Float[Array, "b *s c"], kernel: Float[Array, "*k c f"]
) -> Float[Array, "b *o f"]:
    """Convolution, kernel 3, of images enlarged to twice their size by repetition.

    Two of three neighbours on the fine grid are the same voxel of the coarse one, so
    this is a convolution of the coarse image whose output channels are the voxels of a
    stride: nothing is enlarged but the result.
    """
    num_axes = kernel.ndim - 2
    for axis in range(num_axes):
        first, middle, last = jnp.moveaxis(kernel, axis, 0)
        none = jnp.zeros_like(first)
        places = [
            jnp.stack([first, middle + last, none]),
            jnp.stack([none, first + middle, last]),
        ]
        # the tap where it was, the place within a stride last
        kernel = jnp.moveaxis(jnp.stack(places), (0, 1), (-1, axis))
    kernel = jnp.moveaxis(kernel, num_axes + 1, -1)  # *k c *places f
    kernel = kernel.reshape(*kernel.shape[: num_axes + 1], -1)
    return depth_to_space(convolution(x, kernel), factors=(2,) * num_axes)
