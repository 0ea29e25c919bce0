"""Stride-1 convolution and its kernel gradient on a CPU, slab by slab.

A slab is a block of rows of one depth slice, small enough for the caches. Its columns
(the neighbourhoods in y and x) are multiplied once by the kernels of all depth offsets;
the products are summed over the slices on the way down. So each voxel is copied
`ky * kx` times, not `kz * ky * kx` times, and all arithmetic is in matrix products.
The batch axis is never merged with a looped axis: it may be sharded over devices.
"""

from typing import Protocol, runtime_checkable

import jax
from jax import Array, lax
from jax import numpy as jnp
from jaxtyping import Float

# Columns of one slab [bytes]: about the second-level caches of two cores.
_SLAB_BYTES = 2_500_000


@runtime_checkable
class Scheme(Protocol):
    """How rows become columns, and products become rows.

    Attributes:
      kernel_size: z, y, x [vox], odd.
      num_products: matrix products per slab, the leading axis `p` of what follows.
      tile: output rows that one row of the products stands for.
      copies: columns per voxel and channel.
    """

    kernel_size: tuple[int, int, int]
    num_products: int
    tile: int
    copies: float

    def columns(self, rows: Float[Array, "b r w c"]) -> Float[Array, "p b t x n"]:
        """Columns of each product, from rows with their margins."""
        ...

    def matrices(self, kernel: Float[Array, "kz ky kx c f"]) -> Float[Array, "p n m"]:
        """Matrix of each product; its columns are `(kz f)`."""
        ...

    def rows(self, products: Float[Array, "p b t x f"]) -> Float[Array, "b y x f"]:
        """Output rows from the products."""
        ...

    def spread(self, rows: Float[Array, "b y x f"]) -> Float[Array, "p b t x f"]:
        """Transpose of `rows`."""
        ...

    def kernel(self, products: Float[Array, "p n m"]) -> Float[Array, "kz ky kx c f"]:
        """Transpose of `matrices`."""
        ...


def convolve(
    x: Float[Array, "b z y x c"], kernel: Float[Array, "kz ky kx c f"], scheme: Scheme
) -> Float[Array, "b z y x f"]:
    """Convolution of odd kernel and stride 1, same size out."""
    batch, depth, height, width, _ = x.shape
    num_offsets, num_out = kernel.shape[0], kernel.shape[-1]
    reach = num_offsets // 2
    num_rows = _num_rows(x, scheme)
    matrices = scheme.matrices(kernel)
    shape = (scheme.num_products, batch, num_rows // scheme.tile, width, num_out)
    zeros = jnp.zeros(shape, x.dtype)

    def put(out: Array, sums: Array, z: Array | int, y: Array) -> Array:
        rows = scheme.rows(sums)[:, None]  # b 1 y x f
        return lax.dynamic_update_slice(out, rows, (0, z, y, 0, 0))

    def convolve_rows(block: Array, out: Array) -> Array:
        y = block * num_rows

        def convolve_slice(
            z: Array, carry: tuple[Array, list[Array]]
        ) -> tuple[Array, list[Array]]:
            out, pending = carry  # sums of slices z - reach ... z + reach - 1
            columns = scheme.columns(_rows_with_margins(x, z, y, num_rows, scheme))
            products = lax.dot_general(columns, matrices, (((4,), (1,)), ((0,), (0,))))
            # Offset k of the kernel carries slice z to slice z + reach - k.
            parts = [
                products[..., k * num_out : (k + 1) * num_out]
                for k in reversed(range(num_offsets))
            ]
            sums = [a + b for a, b in zip(pending, parts[:-1], strict=True)]
            done, *pending = [*sums, parts[-1]]
            return put(out, done, jnp.maximum(z - reach, 0), y), pending

        start = (out, [zeros] * (2 * reach))
        out, pending = lax.fori_loop(0, depth, convolve_slice, start)
        for i in range(max(0, reach - depth), reach):
            out = put(out, pending[i], depth - reach + i, y)
        return out

    out = jnp.zeros((*x.shape[:-1], num_out), x.dtype)
    return lax.fori_loop(0, height // num_rows, convolve_rows, out)


def kernel_gradient(
    x: Float[Array, "b z y x c"], grads: Float[Array, "b z y x f"], scheme: Scheme
) -> Float[Array, "kz ky kx c f"]:
    """Gradient of `sum(convolve(x, kernel) * grads)` with respect to the kernel."""
    batch, depth, height, width, _ = x.shape
    num_offsets = scheme.kernel_size[0]
    reach = num_offsets // 2
    num_rows = _num_rows(x, scheme)
    num_voxels = num_rows // scheme.tile * width

    def products(i: Array) -> Float[Array, "p b n m"]:
        y, z = i // depth * num_rows, i % depth
        columns = scheme.columns(_rows_with_margins(x, z, y, num_rows, scheme))
        spread = []
        for k in range(num_offsets):
            other = z + reach - k
            rows = _rows(grads, jnp.clip(other, 0, depth - 1), y, num_rows)
            is_inside = (other >= 0) & (other < depth)
            spread.append(scheme.spread(jnp.where(is_inside, rows, 0)))
        joined = jnp.concatenate(spread, -1)
        left, right = (
            a.reshape(scheme.num_products, batch, num_voxels, -1)
            for a in (columns, joined)
        )
        return lax.dot_general(left, right, (((2,), (2,)), ((0, 1), (0, 1))))

    # Sums stay apart by sample: a sharded batch is then reduced once, after the loop.
    zeros = jnp.zeros(jax.eval_shape(products, 0).shape, x.dtype)
    num_slabs = height // num_rows * depth
    sums = lax.fori_loop(0, num_slabs, lambda i, sums: sums + products(i), zeros)
    return scheme.kernel(sums.sum(1))


def _num_rows(x: Array, scheme: Scheme) -> int:
    """Rows of a slab: the most that divide the height and keep its columns in cache."""
    batch, _, height, width, channels = x.shape
    row_bytes = batch * width * channels * scheme.copies * x.dtype.itemsize
    legal = [n for n in range(scheme.tile, height + 1, scheme.tile) if height % n == 0]
    return max([n for n in legal if n * row_bytes <= _SLAB_BYTES], default=legal[0])


def _rows(x: Array, z: Array, y: Array, num_rows: int) -> Array:
    batch, _, _, width, channels = x.shape
    size = (batch, 1, num_rows, width, channels)
    return lax.dynamic_slice(x, (0, z, y, 0, 0), size)[:, 0]


def _rows_with_margins(
    x: Array, z: Array, y: Array, num_rows: int, scheme: Scheme
) -> Array:
    """Rows y ... y + num_rows of slice z with the margins that the kernel reaches."""
    height = x.shape[2]
    _, reach_y, reach_x = (size // 2 for size in scheme.kernel_size)
    rows = [_rows(x, z, y, num_rows)]
    if num_rows < height:
        for i in range(reach_y):
            above, below = y - 1 - i, y + num_rows + i
            first = _rows(x, z, jnp.maximum(above, 0), 1)
            last = _rows(x, z, jnp.minimum(below, height - 1), 1)
            rows.insert(0, jnp.where(above >= 0, first, 0))
            rows.append(jnp.where(below < height, last, 0))
        reach_y = 0
    margins = [(0, 0), (reach_y, reach_y), (reach_x, reach_x), (0, 0)]
    return jnp.pad(jnp.concatenate(rows, 1), margins)


class Direct:
    """One product per slab; columns hold all neighbours in y and x."""

    num_products = 1
    tile = 1

    def __init__(self, kernel_size: tuple[int, int, int]):
        self.kernel_size = kernel_size
        self.copies = float(kernel_size[1] * kernel_size[2])

    def columns(self, rows: Float[Array, "b r w c"]) -> Float[Array, "p b t x n"]:
        """Neighbours of each voxel, `(ky kx c)`."""
        _, size_y, size_x = self.kernel_size
        height, width = rows.shape[1] - size_y + 1, rows.shape[2] - size_x + 1
        parts = [
            rows[:, j : j + height, i : i + width]
            for j in range(size_y)
            for i in range(size_x)
        ]
        return jnp.concatenate(parts, -1)[None]

    def matrices(self, kernel: Float[Array, "kz ky kx c f"]) -> Float[Array, "p n m"]:
        """Kernel as one matrix, `(ky kx c) (kz f)`."""
        size_z, _, _, _, num_out = kernel.shape
        return kernel.transpose(1, 2, 3, 0, 4).reshape(1, -1, size_z * num_out)

    def rows(self, products: Float[Array, "p b t x f"]) -> Float[Array, "b y x f"]:
        """The product itself."""
        return products[0]

    def spread(self, rows: Float[Array, "b y x f"]) -> Float[Array, "p b t x f"]:
        """The rows themselves."""
        return rows[None]

    def kernel(self, products: Float[Array, "p n m"]) -> Float[Array, "kz ky kx c f"]:
        """Matrix as a kernel."""
        size_z, size_y, size_x = self.kernel_size
        num_out = products.shape[-1] // size_z
        shape = (size_y, size_x, -1, size_z, num_out)
        return products[0].reshape(shape).transpose(3, 0, 1, 2, 4)
