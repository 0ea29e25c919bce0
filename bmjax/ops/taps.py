"""Stride-1 convolution and both gradients on a CPU, one tap of the kernel at a time.

For coarse grids, where the kernel holds more numbers than the image. Each tap is one
product of the whole shifted image with its own matrix, so a kernel is never rearranged:
the input gradient multiplies by the same matrices transposed, and the kernel gradient
writes each matrix once. Along y the taps are those of a scheme (`schemes`).
"""

from math import prod

import jax
from jax import Array, lax
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.ops.groups import num_groups
from bmjax.ops.schemes import Scheme
from bmjax.typing import Size


def convolve(
    x: Float[Array, "b z y x c"], kernel: Float[Array, "kz ky kx c f"], scheme: Scheme
) -> Float[Array, "b z y x f"]:
    """Convolution of odd kernel and stride 1, same size out."""
    matrices = _matrices(kernel, scheme)
    mixed = scheme.mix(_padded(x, scheme))  # p b z t x c
    space, num_taps = _products_size(x, scheme), prod(scheme.taps)

    def add(i: Array, total: Array) -> Array:
        part = _shifted(mixed, i, space, scheme)
        matrix = lax.dynamic_index_in_dim(matrices, i, 1, keepdims=False)  # p c f
        return total + lax.dot_general(part, matrix, (((5,), (1,)), ((0,), (0,))))

    total = jnp.zeros((*mixed.shape[:2], *space, kernel.shape[-1]), x.dtype)
    return scheme.rows(lax.fori_loop(0, num_taps, add, total))


def input_gradient(
    grads: Float[Array, "b z y x f"],
    kernel: Float[Array, "kz ky kx c f"],
    scheme: Scheme,
) -> Float[Array, "b z y x c"]:
    """Gradient of `sum(convolve(x, kernel) * grads)` with respect to x."""
    # Taps are met in the opposite order; those that the scheme mixes are turned before.
    is_mixed = scheme.taps[1] < scheme.kernel_size[1]
    matrices = _matrices(jnp.flip(kernel, 1) if is_mixed else kernel, scheme)
    mixed = scheme.mix(_padded(grads, scheme))  # p b z t x f
    space, num_taps = _products_size(grads, scheme), prod(scheme.taps)

    def add(i: Array, total: Array) -> Array:
        part = _shifted(mixed, num_taps - 1 - i, space, scheme)
        matrix = lax.dynamic_index_in_dim(matrices, i, 1, keepdims=False)  # p c f
        return total + lax.dot_general(part, matrix, (((5,), (2,)), ((0,), (0,))))

    total = jnp.zeros((*mixed.shape[:2], *space, kernel.shape[-2]), grads.dtype)
    return scheme.rows(lax.fori_loop(0, num_taps, add, total))


def kernel_gradient(
    x: Float[Array, "b z y x c"], grads: Float[Array, "b z y x f"], scheme: Scheme
) -> Float[Array, "kz ky kx c f"]:
    """Gradient of `sum(convolve(x, kernel) * grads)` with respect to the kernel."""
    mixed = scheme.mix(_padded(x, scheme))  # p b z t x c
    spread = scheme.spread(grads)  # p b z t x f
    groups = num_groups(x.shape[0])
    flat = spread.reshape(len(spread), groups, -1, spread.shape[-1])
    space = _products_size(grads, scheme)

    def put(i: Array, out: Array) -> Array:
        part = _shifted(mixed, i, space, scheme)
        part = part.reshape(*flat.shape[:-1], -1)
        products = lax.dot_general(part, flat, (((2,), (2,)), ((0, 1), (0, 1))))
        return lax.dynamic_update_slice(out, products[None], (i, 0, 0, 0, 0))

    num_taps = prod(scheme.taps)
    shape = (num_taps, *flat.shape[:2], x.shape[-1], grads.shape[-1])
    out = lax.fori_loop(0, num_taps, put, jnp.zeros(shape, x.dtype))  # n p b c f
    matrices = out.reshape(*scheme.taps, *out.shape[1:]).transpose(4, 3, 0, 1, 2, 5, 6)
    # Groups are summed last: a sharded batch is then reduced once, and in small.
    return jax.vmap(scheme.unmix_kernel)(matrices).sum(0)


def _matrices(kernel: Array, scheme: Scheme) -> Float[Array, "p n c f"]:
    """The matrices of each tap, in the order in which a kernel holds them."""
    mixed = scheme.mix_kernel(kernel)  # p kz ty kx c f
    return mixed.reshape(len(mixed), -1, *mixed.shape[-2:])


def _shifted(mixed: Array, tap: Array, space: Size, scheme: Scheme) -> Array:
    """What a tap sees, `p b z t x c`; taps are counted along x first."""
    _, num_y, num_x = scheme.taps
    start = (0, 0, tap // (num_y * num_x), tap // num_x % num_y, tap % num_x, 0)
    size = (*mixed.shape[:2], *space, mixed.shape[-1])
    return lax.dynamic_slice(mixed, start, size)


def _products_size(x: Array, scheme: Scheme) -> Size:
    _, depth, height, width, _ = x.shape
    return depth, height // scheme.tile, width


def _padded(x: Array, scheme: Scheme) -> Array:
    margins = ((n // 2, n // 2) for n in scheme.kernel_size)
    return jnp.pad(x, [(0, 0), *margins, (0, 0)])
