"""Stride-1 convolution and its kernel gradient on a CPU, slab by slab.

A slab is a block of rows of one depth slice, small enough for the caches. Its columns
(the neighbourhoods in y and x) are multiplied once by the kernels of all depth offsets;
the products are summed over the slices on the way down. So each voxel is copied
`ky * kx` times, not `kz * ky * kx` times, and all arithmetic is in matrix products.
The batch axis is never merged with a looped axis: it may be sharded over devices.
"""

from functools import partial

import jax
from jax import Array, lax
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.ops.groups import num_groups
from bmjax.ops.schemes import Scheme
from bmjax.typing import Size

# Columns of one slab [bytes]: about the second-level caches of two cores.
_SLAB_BYTES = 2_500_000


def convolve(
    x: Float[Array, "b *s c"], kernel: Float[Array, "kz ky kx c f"], scheme: Scheme
) -> Float[Array, "b *s f"]:
    """Convolution of odd kernel and stride 1, same size out; planes have no depth."""
    batch, depth, height, width = _grid(x)
    num_offsets, num_out = kernel.shape[0], kernel.shape[-1]
    reach = num_offsets // 2
    num_rows = _num_rows(x, scheme)
    matrices = _matrices(kernel, scheme)
    shape = (scheme.num_products, batch, num_rows // scheme.tile, width, num_out)
    zeros = jnp.zeros(shape, x.dtype)

    def put(out: Array, sums: Array, z: Array | int, y: Array) -> Array:
        rows = scheme.rows(sums)  # b y x f
        if x.ndim == 4:
            return lax.dynamic_update_slice(out, rows, (0, y, 0, 0))
        return lax.dynamic_update_slice(out, rows[:, None], (0, z, y, 0, 0))

    def convolve_rows(block: Array, out: Array) -> Array:
        y = block * num_rows

        def convolve_slice(
            z: Array, carry: tuple[Array, list[Array]]
        ) -> tuple[Array, list[Array]]:
            out, pending = carry  # sums of slices z - reach ... z + reach - 1
            columns = _columns(_rows_with_margins(x, z, y, num_rows, scheme), scheme)
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
    x: Float[Array, "b *s c"], grads: Float[Array, "b *s f"], scheme: Scheme
) -> Float[Array, "kz ky kx c f"]:
    """Gradient of `sum(convolve(x, kernel) * grads)` with respect to the kernel."""
    batch, depth, height, _ = _grid(x)
    num_offsets = scheme.kernel_size[0]
    reach = num_offsets // 2
    num_rows = _num_rows(x, scheme)
    groups = num_groups(batch)

    def products(i: Array) -> Float[Array, "p b n m"]:
        y, z = i // depth * num_rows, i % depth
        columns = _columns(_rows_with_margins(x, z, y, num_rows, scheme), scheme)
        spread = []
        for k in range(num_offsets):
            other = z + reach - k
            rows = _rows(grads, jnp.clip(other, 0, depth - 1), y, num_rows)
            is_inside = (other >= 0) & (other < depth)
            spread.append(scheme.spread(jnp.where(is_inside, rows, 0)))
        joined = jnp.concatenate(spread, -1)
        left, right = (
            a.reshape(scheme.num_products, groups, -1, a.shape[-1])
            for a in (columns, joined)
        )
        return lax.dot_general(left, right, (((2,), (2,)), ((0, 1), (0, 1))))

    # Groups are summed last: a sharded batch is then reduced once, and in small.
    zeros = jnp.zeros(jax.eval_shape(products, 0).shape, x.dtype)
    num_slabs = height // num_rows * depth
    sums = lax.fori_loop(0, num_slabs, lambda i, sums: sums + products(i), zeros)
    return jax.vmap(partial(_kernel, scheme=scheme), 1)(sums).sum(0)


def _columns(
    rows: Float[Array, "b r w c"], scheme: Scheme
) -> Float[Array, "p b t x n"]:
    """Neighbourhoods in y and x, `(ty kx c)`, from rows with their margins."""
    mixed = scheme.mix(rows)
    _, num_y, num_x = scheme.taps
    height, width = mixed.shape[2] - num_y + 1, mixed.shape[3] - num_x + 1
    parts = [
        mixed[:, :, j : j + height, i : i + width]
        for j in range(num_y)
        for i in range(num_x)
    ]
    return jnp.concatenate(parts, -1)


def _matrices(
    kernel: Float[Array, "kz ky kx c f"], scheme: Scheme
) -> Float[Array, "p n m"]:
    """The kernel as matrices, `(ty kx c) (kz f)`."""
    mixed = scheme.mix_kernel(kernel)
    size_z, num_out = kernel.shape[0], kernel.shape[-1]
    return mixed.transpose(0, 2, 3, 4, 1, 5).reshape(len(mixed), -1, size_z * num_out)


def _kernel(
    matrices: Float[Array, "p n m"], scheme: Scheme
) -> Float[Array, "kz ky kx c f"]:
    """Transpose of `_matrices`."""
    num_z, num_y, num_x = scheme.taps
    shape = (len(matrices), num_y, num_x, -1, num_z, matrices.shape[-1] // num_z)
    return scheme.unmix_kernel(matrices.reshape(shape).transpose(0, 4, 1, 2, 3, 5))


def _num_rows(x: Array, scheme: Scheme) -> int:
    """Rows of a slab: the most that divide the height and keep its columns in cache."""
    batch, _, height, width = _grid(x)
    copies = scheme.num_products * scheme.taps[1] * scheme.taps[2] / scheme.tile
    row_bytes = batch * width * x.shape[-1] * copies * x.dtype.itemsize
    legal = [n for n in range(scheme.tile, height + 1, scheme.tile) if height % n == 0]
    return max([n for n in legal if n * row_bytes <= _SLAB_BYTES], default=legal[0])


def _grid(x: Array) -> Size:
    """Batch, depth, height, width."""
    batch, *space = x.shape[:-1]
    return (batch, *(1,) * (3 - len(space)), *space)


def _rows(x: Array, z: Array, y: Array, num_rows: int) -> Array:
    batch, *_, width, channels = x.shape
    if x.ndim == 4:
        return lax.dynamic_slice(x, (0, y, 0, 0), (batch, num_rows, width, channels))
    size = (batch, 1, num_rows, width, channels)
    return lax.dynamic_slice(x, (0, z, y, 0, 0), size)[:, 0]


def _rows_with_margins(
    x: Array, z: Array, y: Array, num_rows: int, scheme: Scheme
) -> Array:
    """Rows y ... y + num_rows of slice z with the margins that the kernel reaches."""
    height = x.shape[-3]
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
