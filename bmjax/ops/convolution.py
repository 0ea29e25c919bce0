"""Convolution over two or three space axes, by the best algorithm of the platform.

On a CPU forward, input gradient and kernel gradient are each blocked matrix products
(`slabs`, `taps`, `strided`); elsewhere all three are the vendor's convolutions. The
choice is made when the program is lowered, by a static rule on shapes, or as it was
found by timing (`choices`).
"""

from functools import partial
from math import prod
from types import ModuleType

import jax
from jax import Array, lax
from jax import numpy as jnp
from jaxtyping import Float

from bmjax.ops import choices, slabs, strided, taps
from bmjax.ops.choices import Call
from bmjax.ops.schemes import Direct, Scheme, Winograd
from bmjax.typing import Size

_AXES = "zyx"

# Voxels of a sample up to which its kernel outweighs it, and from which on Winograd's
# larger kernel pays (`bmjax bench blocks`).
_COARSE = 1024
_MIXED = 256


def convolution(
    x: Float[Array, "b *s c"],
    kernel: Float[Array, "*k c f"],
    *,
    strides: Size | None = None,
) -> Float[Array, "b *o f"]:
    """Cross-correlation with `(k - 1) // 2` voxels of zeros on both sides.

    Args:
      x: images of two or three space axes.
      kernel: one entry per space axis, input channels, output channels.
      strides: one per space axis; None is 1 everywhere.
    """
    strides = (1,) * (x.ndim - 2) if strides is None else strides
    call = Call(x.shape, kernel.shape)
    if _is_blocked(x, kernel.shape, strides) and max(strides) == 1 < max(call.size):
        choices.note(call)
    return _convolution(x, kernel, strides, choices.of(call))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolution(
    x: Array, kernel: Array, strides: Size, chosen: choices.Chosen
) -> Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_forward_on_cpu, strides=strides, algorithm=chosen.forward),
        default=partial(_vendor, strides=strides),
    )


def _forward(
    x: Array, kernel: Array, strides: Size, chosen: choices.Chosen
) -> tuple[Array, tuple]:
    return _convolution(x, kernel, strides, chosen), (x, kernel)


def _backward(
    strides: Size, chosen: choices.Chosen, saved: tuple, grads: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    x_grads = lax.platform_dependent(
        grads,
        kernel,
        cpu=partial(
            _input_gradient_on_cpu,
            shape=x.shape,
            strides=strides,
            algorithm=chosen.input_gradient,
        ),
        default=partial(_vendor_input_gradient, shape=x.shape, strides=strides),
    )
    kernel_grads = lax.platform_dependent(
        x,
        grads,
        cpu=partial(
            _kernel_gradient_on_cpu,
            shape=kernel.shape,
            strides=strides,
            algorithm=chosen.kernel_gradient,
        ),
        default=partial(_vendor_kernel_gradient, shape=kernel.shape, strides=strides),
    )
    return x_grads, kernel_grads


_convolution.defvjp(_forward, _backward)


def _vendor(x: Array, kernel: Array, *, strides: Size) -> Array:
    space = _AXES[-len(strides) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=strides,
        padding=[((k - 1) // 2, (k - 1) // 2) for k in kernel.shape[:-2]],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )


def _vendor_input_gradient(
    grads: Array, kernel: Array, *, shape: Size, strides: Size
) -> Array:
    x = jax.ShapeDtypeStruct(shape, grads.dtype)
    function = partial(_vendor, kernel=kernel, strides=strides)
    return jax.linear_transpose(function, x)(grads)[0]


def _vendor_kernel_gradient(
    x: Array, grads: Array, *, shape: Size, strides: Size
) -> Array:
    kernel = jax.ShapeDtypeStruct(shape, grads.dtype)
    function = partial(_vendor, x, strides=strides)
    return jax.linear_transpose(function, kernel)(grads)[0]


@partial(jax.jit, static_argnames=("strides", "algorithm"))
def _forward_on_cpu(
    x: Array, kernel: Array, *, strides: Size, algorithm: str | None
) -> Array:
    if not _is_blocked(x, kernel.shape, strides):
        return _vendor(x, kernel, strides=strides)
    if max(kernel.shape[:-2]) == max(strides) == 1:
        return jnp.matmul(x, kernel.reshape(kernel.shape[-2:]))
    deep = _deep(kernel)
    if max(strides) > 1:
        out = strided.convolve(_with_depth(x), deep, strides=_three(strides))
        return out if x.ndim == 5 else out[:, 0]
    room, scheme = _ways(x, _three(deep.shape[:3]), algorithm)
    if room is slabs:
        return slabs.convolve(x, deep, scheme)
    return taps.convolve(_with_depth(x), deep, scheme).reshape(*x.shape[:-1], -1)


@partial(jax.jit, static_argnames=("shape", "strides", "algorithm"))
def _input_gradient_on_cpu(
    grads: Array,
    kernel: Array,
    *,
    shape: Size,
    strides: Size,
    algorithm: str | None,
) -> Array:
    if not _is_blocked(grads, kernel.shape, strides) or any(
        n % s for n, s in zip(shape[1:-1], strides, strict=True)
    ):
        return _vendor_input_gradient(grads, kernel, shape=shape, strides=strides)
    image = _with_depth(grads)
    if max(strides) == 1:
        room, scheme = _ways(grads, _three(kernel.shape[:-2]), algorithm)
        if room is taps and max(kernel.shape[:-2]) > 1:
            return taps.input_gradient(image, _deep(kernel), scheme).reshape(shape)
        axes = tuple(range(kernel.ndim - 2))
        turned = jnp.flip(kernel, axes).swapaxes(-1, -2)
        return _forward_on_cpu(grads, turned, strides=strides, algorithm=algorithm)
    x_grads = strided.input_gradient(image, _deep(kernel), strides=_three(strides))
    return x_grads.reshape(shape)


@partial(jax.jit, static_argnames=("shape", "strides", "algorithm"))
def _kernel_gradient_on_cpu(
    x: Array,
    grads: Array,
    *,
    shape: Size,
    strides: Size,
    algorithm: str | None,
) -> Array:
    if not _is_blocked(x, shape, strides):
        return _vendor_kernel_gradient(x, grads, shape=shape, strides=strides)
    size = _three(shape[:-2])
    room, scheme = _ways(x, size, algorithm)
    if room is slabs and max(strides) == 1:
        return slabs.kernel_gradient(x, grads, scheme).reshape(shape)
    x, grads = _with_depth(x), _with_depth(grads)
    if max(strides) == 1:
        return taps.kernel_gradient(x, grads, scheme).reshape(shape)
    gradient = strided.kernel_gradient(
        x, grads, kernel_size=size, strides=_three(strides)
    )
    return gradient.reshape(shape)


def _is_blocked(x: Array, kernel_shape: Size, strides: Size) -> bool:
    """Whether the algorithms of this room apply: odd kernels, full precision."""
    return (
        x.ndim in (4, 5)
        and x.dtype in (jnp.float32, jnp.float64)
        and all(k % 2 for k in kernel_shape[:-2])
        and all(s in (1, 2) for s in strides)
    )


def _ways(
    image: Array, size: tuple[int, int, int], algorithm: str | None
) -> tuple[ModuleType, Scheme]:
    """How a stride-1 convolution is computed: coarse grids tap by tap by the rule."""
    voxels = prod(image.shape[1:-1])
    if algorithm is None:
        is_coarse, is_mixed = voxels <= _COARSE, voxels >= _MIXED
    else:
        is_coarse, is_mixed = algorithm.startswith("taps"), "winograd" in algorithm
    fits = size[1] == 3 and image.shape[-3] % Winograd.tile == 0
    return taps if is_coarse else slabs, (Winograd if is_mixed and fits else Direct)(
        size
    )


def _with_depth(x: Array) -> Array:
    """Images with a depth axis of one slice in front, if there is none."""
    return x if x.ndim == 5 else x[:, None]


def _deep(kernel: Array) -> Array:
    """A kernel with a depth axis of one in front, if there is none."""
    return kernel if kernel.ndim == 5 else kernel[None]


def _three(sizes: Size) -> tuple[int, int, int]:
    """Sizes or strides along z, y, x; 1 along z for two axes."""
    z, y, x = (1, *sizes)[-3:]
    return z, y, x
