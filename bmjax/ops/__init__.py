"""Numerical kernels in pure JAX, chosen by platform at lowering."""

from bmjax.ops.components import connected_components
from bmjax.ops.convolution import convolution
from bmjax.ops.normalization import (
    group_norm,
    instance_norm,
    normalize,
    relu_batch_norm,
)
from bmjax.ops.pooling import average_pool, max_pool
from bmjax.ops.resample import upsample_linear, upsample_nearest
from bmjax.ops.transposed import (
    depth_to_space,
    overlapping_transposed_convolution,
    transposed_convolution,
    upsampled_convolution,
)

__all__ = [
    "average_pool",
    "connected_components",
    "convolution",
    "depth_to_space",
    "group_norm",
    "instance_norm",
    "max_pool",
    "normalize",
    "overlapping_transposed_convolution",
    "relu_batch_norm",
    "transposed_convolution",
    "upsample_linear",
    "upsample_nearest",
    "upsampled_convolution",
]
