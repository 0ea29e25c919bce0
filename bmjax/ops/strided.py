"""Strided convolution and its gradients on a CPU.

XLA's CPU backend runs the input gradient of a strided convolution as a naive dilated
one. Here it is a product per input phase: the voxels that share their place within a
stride see the same taps of the kernel.
"""

import itertools

from jax import Array, lax
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.ops.groups import num_groups
from bmjax.typing import Size

# Columns of one block [bytes]: about the second-level caches of two cores.
_BLOCK_BYTES = 2_500_000


def convolve(
    x: Float[Array, "b z y x c"],
    kernel: Float[Array, "kz ky kx c f"],
    *,
    strides: tuple[int, int, int],
) -> Float[Array, "b oz oy ox f"]:
    """Strided convolution of odd kernel, blocks of columns times one matrix."""
    sizes, num_out = kernel.shape[:3], kernel.shape[-1]
    padded = _pad(x, sizes)
    depth, height, width = _output_size(x, strides)
    num_rows = _num_rows(x, (height, width), sizes)
    matrix = kernel.reshape(-1, num_out)

    def convolve_rows(i: Array, out: Array) -> Array:
        z, y = i % depth, i // depth * num_rows
        columns = _columns(padded, z, y, (num_rows, width), sizes, strides)
        rows = jnp.matmul(columns, matrix)[:, None]  # b 1 y x f
        return lax.dynamic_update_slice(out, rows, (0, z, y, 0, 0))

    out = jnp.zeros((x.shape[0], depth, height, width, num_out), x.dtype)
    return lax.fori_loop(0, depth * (height // num_rows), convolve_rows, out)


def kernel_gradient(
    x: Float[Array, "b z y x c"],
    grads: Float[Array, "b oz oy ox f"],
    *,
    kernel_size: tuple[int, int, int],
    strides: tuple[int, int, int],
) -> Float[Array, "kz ky kx c f"]:
    """Gradient of `sum(convolve(x, kernel) * grads)` with respect to the kernel."""
    padded = _pad(x, kernel_size)
    batch, depth, height, width, num_out = grads.shape
    channels = x.shape[-1]
    num_rows = _num_rows(x, (height, width), kernel_size)
    groups = num_groups(batch)

    def add_rows(i: Array, total: Array) -> Array:
        z, y = i % depth, i // depth * num_rows
        columns = _columns(padded, z, y, (num_rows, width), kernel_size, strides)
        size = (batch, 1, num_rows, width, num_out)
        rows = lax.dynamic_slice(grads, (0, z, y, 0, 0), size)
        return total + lax.dot_general(
            columns.reshape(groups, -1, columns.shape[-1]),
            rows.reshape(groups, -1, num_out),
            (((1,), (1,)), ((0,), (0,))),
        )

    # Sums stay apart by group: a sharded batch is then reduced once, after the loop.
    num_columns = kernel_size[0] * kernel_size[1] * kernel_size[2] * channels
    total = jnp.zeros((groups, num_columns, num_out), x.dtype)
    total = lax.fori_loop(0, depth * (height // num_rows), add_rows, total)
    return total.sum(0).reshape(*kernel_size, channels, num_out)


def input_gradient(
    grads: Float[Array, "b oz oy ox f"],
    kernel: Float[Array, "kz ky kx c f"],
    *,
    strides: tuple[int, int, int],
) -> Float[Array, "b z y x c"]:
    """Gradient of `sum(convolve(x, kernel) * grads)` with respect to x.

    The size of x is that of the gradients times the strides.
    """
    batch, depth, height, width, num_out = grads.shape
    num_in = kernel.shape[-2]
    taps = [
        _taps(size, stride)
        for size, stride in zip(kernel.shape[:3], strides, strict=True)
    ]
    before, after = (
        [max([sign * tap[1] for phase in axis for tap in phase] + [0]) for axis in taps]
        for sign in (-1, 1)
    )
    margins = [(0, 0), *zip(before, after, strict=True), (0, 0)]
    padded = jnp.pad(grads, margins)
    phases = _phase_matrices(kernel, taps)
    num_rows = _num_rows(grads, (height, width), (2, 2, 2))

    def spread_rows(i: Array, out: Array) -> Array:
        z, y = i % depth, i // depth * num_rows
        size = (
            batch,
            1 + before[0] + after[0],
            num_rows + before[1] + after[1],
            width + before[2] + after[2],
            num_out,
        )
        block = lax.dynamic_slice(padded, (0, z, y, 0, 0), size)
        rows = []
        for offsets, matrix in phases:
            parts = []
            for offset in offsets:
                dz, dy, dx = (a + b for a, b in zip(offset, before, strict=True))
                parts.append(block[:, dz, dy : dy + num_rows, dx : dx + width])
            shape = (batch, num_rows, width, strides[2] * num_in)
            rows.append(
                jnp.matmul(jnp.concatenate(parts, -1), matrix)
                if matrix is not None
                else jnp.zeros(shape, grads.dtype)
            )
        fine = jnp.stack(rows).reshape(
            *strides[:2], batch, num_rows, width, strides[2], num_in
        )
        fine = fine.transpose(2, 0, 3, 1, 4, 5, 6).reshape(
            batch, strides[0], num_rows * strides[1], width * strides[2], num_in
        )
        start = (0, z * strides[0], y * strides[1], 0, 0)
        return lax.dynamic_update_slice(out, fine, start)

    space = (n * s for n, s in zip((depth, height, width), strides, strict=True))
    out = jnp.zeros((batch, *space, num_in), grads.dtype)
    return lax.fori_loop(0, depth * (height // num_rows), spread_rows, out)


def _taps(size: int, stride: int) -> list[list[tuple[int, int]]]:
    """For each place within a stride: pairs of kernel tap and output offset.

    Input `stride * q + place` meets output `q + offset` through tap
    `place + size // 2 - stride * offset`.
    """
    offsets = range(-size, size + 1)
    taps = [
        [(place + size // 2 - stride * offset, offset) for offset in offsets]
        for place in range(stride)
    ]
    return [[tap for tap in phase if 0 <= tap[0] < size] for phase in taps]


def _phase_matrices(
    kernel: Array, taps: list[list[list[tuple[int, int]]]]
) -> list[tuple[list[Size], Array | None]]:
    """For each place in z and y: output offsets and the matrix `(offset f) (sx c)`."""
    _, _, _, num_in, num_out = kernel.shape
    zeros = jnp.zeros((num_out, num_in), kernel.dtype)
    offsets_x = sorted({offset for phase in taps[2] for _, offset in phase})
    tap_by_offset = [{offset: tap for tap, offset in phase} for phase in taps[2]]
    phases = []
    for phase_z, phase_y in itertools.product(*taps[:2]):
        offsets, blocks = [], []
        for (kz, dz), (ky, dy), dx in itertools.product(phase_z, phase_y, offsets_x):
            offsets.append((dz, dy, dx))
            row = [
                kernel[kz, ky, by_offset[dx]].T if dx in by_offset else zeros
                for by_offset in tap_by_offset
            ]
            blocks.append(jnp.concatenate(row, 1))
        phases.append((offsets, jnp.concatenate(blocks) if blocks else None))
    return phases


def _output_size(x: Array, strides: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(x.shape[1:-1], strides, strict=True))


def _pad(x: Array, kernel_size: Size) -> Array:
    return jnp.pad(x, [(0, 0), *((n // 2, n // 2) for n in kernel_size), (0, 0)])


def _num_rows(x: Array, plane: tuple[int, int], kernel_size: Size) -> int:
    """Rows of a block: the most that divide the height and fit the caches."""
    height, width = plane
    num_columns = kernel_size[0] * kernel_size[1] * kernel_size[2] * x.shape[-1]
    row_bytes = x.shape[0] * width * num_columns * x.dtype.itemsize
    legal = [n for n in range(1, height + 1) if height % n == 0]
    return max(n for n in legal if n == 1 or n * row_bytes <= _BLOCK_BYTES)


def _columns(
    padded: Array,
    z: Array,
    y: Array,
    plane: tuple[int, int],
    kernel_size: Size,
    strides: tuple[int, int, int],
) -> Array:
    """Neighbourhoods of the output rows y ... y + rows of slice z, `b y x n`."""
    batch, channels = padded.shape[0], padded.shape[-1]
    spans = [
        (n - 1) * s + k
        for n, s, k in zip((1, *plane), strides, kernel_size, strict=True)
    ]
    start = (0, z * strides[0], y * strides[1], 0, 0)
    block = lax.dynamic_slice(padded, start, (batch, *spans, channels))
    ends = [(n - 1) * s + 1 for n, s in zip(plane, strides[1:], strict=True)]
    parts = [
        block[:, k, j : j + ends[0] : strides[1], i : i + ends[1] : strides[2]]
        for k, j, i in itertools.product(*(range(n) for n in kernel_size))
    ]
    return jnp.concatenate(parts, -1)
