"""Minimal filtering F(4, 3) along y: six products for four rows instead of twelve.

Lavin and Gray 2016 (arXiv:1509.09308), one axis only, so that float32 stays within a
few times the rounding error of the direct sum.
"""

from collections.abc import Sequence

from jax import Array
from jax import numpy as jnp
from jaxtyping import Float

# Interpolation points 0, 1, -1, 2, -2 and infinity.
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


class Winograd:
    """A scheme of slabs whose kernels have three rows and whose height divides by 4."""

    num_products = 6
    tile = 4

    def __init__(self, kernel_size: tuple[int, int, int]):
        self.kernel_size = kernel_size
        self.copies = self.num_products / self.tile * kernel_size[2]

    def columns(self, rows: Float[Array, "b r w c"]) -> Float[Array, "p b t x n"]:
        """Combinations of six rows, then neighbours in x, `(kx c)`."""
        size_x = self.kernel_size[2]
        num_tiles, width = rows.shape[1] // 4, rows.shape[2] - size_x + 1
        views = [rows[:, i : i + 4 * num_tiles - 3 : 4] for i in range(6)]
        mixed = jnp.stack([_combine(weights, views) for weights in _INPUT])
        parts = [mixed[:, :, :, i : i + width] for i in range(size_x)]
        return jnp.concatenate(parts, -1)

    def matrices(self, kernel: Float[Array, "kz ky kx c f"]) -> Float[Array, "p n m"]:
        """Combinations of the kernel's rows, `(kx c) (kz f)`."""
        size_z, _, size_x, num_in, num_out = kernel.shape
        taps = [kernel[:, i].transpose(1, 2, 0, 3) for i in range(3)]  # kx c kz f
        mixed = jnp.stack([_combine(weights, taps) for weights in _KERNEL])
        return mixed.reshape(-1, size_x * num_in, size_z * num_out)

    def rows(self, products: Float[Array, "p b t x f"]) -> Float[Array, "b y x f"]:
        """Four output rows from each tile."""
        _, batch, num_tiles, *rest = products.shape
        rows = jnp.stack([_combine(weights, products) for weights in _OUTPUT], 2)
        return rows.reshape(batch, 4 * num_tiles, *rest)

    def spread(self, rows: Float[Array, "b y x f"]) -> Float[Array, "p b t x f"]:
        """Transpose of `rows`."""
        views = [rows[:, i::4] for i in range(4)]
        transposed = zip(*_OUTPUT, strict=True)
        return jnp.stack([_combine(weights, views) for weights in transposed])

    def kernel(self, products: Float[Array, "p n m"]) -> Float[Array, "kz ky kx c f"]:
        """Transpose of `matrices`."""
        size_z, _, size_x = self.kernel_size
        shape = (size_x, -1, size_z, products.shape[-1] // size_z)
        taps = [
            _combine(weights, products).reshape(shape).transpose(2, 0, 1, 3)
            for weights in zip(*_KERNEL, strict=True)
        ]
        return jnp.stack(taps, 1)


def _combine(weights: Sequence[float], terms: Sequence[Array] | Array) -> Array:
    """Weighted sum without the terms of weight zero."""
    parts = [
        terms[i] if weight == 1 else weight * terms[i]
        for i, weight in enumerate(weights)
        if weight
    ]
    return sum(parts[1:], parts[0])
