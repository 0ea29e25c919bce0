"""How a convolution along y becomes matrix products: as it stands, or by Winograd.

The direct scheme has one product for each tap. Minimal filtering F(4, 3) has six for
four rows instead of twelve (Lavin and Gray 2016, arXiv:1509.09308), along one axis
only, so that float32 stays within a few times the rounding error of the direct sum.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Protocol, runtime_checkable

from jax import Array, lax
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


@runtime_checkable
class Scheme(Protocol):
    """What happens along y; z and x keep their taps.

    Attributes:
      kernel_size: z, y, x [vox], odd.
      taps: shifts along z, y, x that are left to sum over.
      num_products: matrix products of each tap, the leading axis `p` of what follows.
      tile: output rows that one row of the products stands for.
    """

    kernel_size: tuple[int, int, int]
    taps: tuple[int, int, int]
    num_products: int
    tile: int

    def mix(self, rows: Float[Array, "*b r w c"]) -> Float[Array, "p *b t w c"]:
        """Factors of the products, from rows with their margins."""
        ...

    def mix_kernel(
        self, kernel: Float[Array, "kz ky kx c f"]
    ) -> Float[Array, "p kz ty kx c f"]:
        """Matrices of the products."""
        ...

    def rows(self, products: Float[Array, "p *b t x f"]) -> Float[Array, "*b y x f"]:
        """Output rows from the products."""
        ...

    def spread(self, rows: Float[Array, "*b y x f"]) -> Float[Array, "p *b t x f"]:
        """Transpose of `rows`."""
        ...

    def unmix_kernel(
        self, matrices: Float[Array, "p kz ty kx c f"]
    ) -> Float[Array, "kz ky kx c f"]:
        """Transpose of `mix_kernel`."""
        ...


class Direct:
    """One product per tap."""

    num_products = 1
    tile = 1

    def __init__(self, kernel_size: tuple[int, int, int]):
        self.kernel_size = self.taps = kernel_size

    def mix(self, rows: Float[Array, "*b r w c"]) -> Float[Array, "p *b r w c"]:
        """The rows themselves."""
        return rows[None]

    def mix_kernel(
        self, kernel: Float[Array, "kz ky kx c f"]
    ) -> Float[Array, "p kz ky kx c f"]:
        """The kernel itself."""
        return kernel[None]

    def rows(self, products: Float[Array, "p *b y x f"]) -> Float[Array, "*b y x f"]:
        """The product itself."""
        return products[0]

    def spread(self, rows: Float[Array, "*b y x f"]) -> Float[Array, "p *b y x f"]:
        """The rows themselves."""
        return rows[None]

    def unmix_kernel(
        self, matrices: Float[Array, "p kz ky kx c f"]
    ) -> Float[Array, "kz ky kx c f"]:
        """The matrices themselves."""
        return matrices[0]


class Winograd:
    """F(4, 3): kernels of three rows, images whose height divides by four."""

    num_products = 6
    tile = 4

    def __init__(self, kernel_size: tuple[int, int, int]):
        self.kernel_size = kernel_size
        self.taps: tuple[int, int, int] = (kernel_size[0], 1, kernel_size[2])

    def mix(self, rows: Float[Array, "*b r w c"]) -> Float[Array, "p *b t w c"]:
        """Combinations of six neighbouring rows, from every fourth row on."""
        reach = 4 * (rows.shape[-3] // 4)
        views = [lax.slice_in_dim(rows, i, i + reach - 3, 4, axis=-3) for i in range(6)]
        return jnp.stack([_combine(weights, views) for weights in _INPUT])

    def mix_kernel(
        self, kernel: Float[Array, "kz ky kx c f"]
    ) -> Float[Array, "p kz ty kx c f"]:
        """Combinations of the kernel's three rows."""
        taps = [lax.slice_in_dim(kernel, i, i + 1, axis=1) for i in range(3)]
        return jnp.stack([_combine(weights, taps) for weights in _KERNEL])

    def rows(self, products: Float[Array, "p *b t x f"]) -> Float[Array, "*b y x f"]:
        """Four output rows from each row of the products."""
        *batch, num_tiles, width, num_out = products.shape[1:]
        terms = _parts(products)
        rows = jnp.stack([_combine(weights, terms) for weights in _OUTPUT], -3)
        return rows.reshape(*batch, 4 * num_tiles, width, num_out)

    def spread(self, rows: Float[Array, "*b y x f"]) -> Float[Array, "p *b t x f"]:
        """Transpose of `rows`."""
        views = [
            lax.slice_in_dim(rows, i, rows.shape[-3], 4, axis=-3) for i in range(4)
        ]
        transposed = zip(*_OUTPUT, strict=True)
        return jnp.stack([_combine(weights, views) for weights in transposed])

    def unmix_kernel(
        self, matrices: Float[Array, "p kz ty kx c f"]
    ) -> Float[Array, "kz ky kx c f"]:
        """Transpose of `mix_kernel`."""
        transposed = zip(*_KERNEL, strict=True)
        terms = _parts(matrices)
        rows = [_combine(weights, terms) for weights in transposed]
        return jnp.concatenate(rows, 1)


def _parts(products: Array) -> list[Array]:
    return [lax.index_in_dim(products, i, keepdims=False) for i in range(len(products))]


def _combine(weights: Sequence[float], terms: Sequence[Array]) -> Array:
    """Weighted sum without the terms of weight zero.

    In primitives: thousands of these are traced for one network.
    """
    parts = [
        term if weight == 1 else lax.mul(term, lax.full_like(term, weight))
        for weight, term in zip(weights, terms, strict=True)
        if weight
    ]
    return reduce(lax.add, parts)
