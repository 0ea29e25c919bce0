"""Random starts of the public networks' kernels and biases.

Numbers are drawn as one flat vector and shaped afterwards: XLA compiles that several
times faster on a CPU than a draw of five axes.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PRNGKeyArray

from bmjax.typing import Size

Initializer = Callable[..., Array]
Fan = Literal["in", "out", "mean"]


def scaled_normal(scale: float, *, fan: Fan = "in") -> Initializer:
    """Normal values of variance `scale / fan`, not truncated.

    Args:
      scale: variance times fan.
      fan: inputs of an output voxel, outputs of an input voxel, or their mean.
    """

    def init(key: PRNGKeyArray, shape: Size, dtype=jnp.float32) -> Array:
        std = math.sqrt(scale / _fan(shape, fan))
        return std * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return init


def scaled_uniform(scale: float, *, fan: Fan = "in") -> Initializer:
    """Uniform values of variance `scale / fan`, centred on zero.

    Args:
      scale: variance times fan.
      fan: inputs of an output voxel, outputs of an input voxel, or their mean.
    """

    def init(key: PRNGKeyArray, shape: Size, dtype=jnp.float32) -> Array:
        bound = math.sqrt(3 * scale / _fan(shape, fan))
        flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
        return flat.reshape(shape)

    return init


def _fan(shape: Size, fan: Fan) -> float:
    """Fan of a kernel `*k c f`."""
    taps = math.prod(shape[:-2])
    fans = {"in": shape[-2], "out": shape[-1], "mean": (shape[-2] + shape[-1]) / 2}
    return float(taps * fans[fan])


# He et al. for leaky ReLU of slope 0.01 (nnU-Net default).
he_normal = scaled_normal(2 / (1 + 0.01**2))
# torch counts the fan of a transposed convolution on its output channels.
he_normal_transposed = scaled_normal(2 / (1 + 0.01**2), fan="out")
# torch's default for convolutions: uniform within 1 / sqrt(fan_in).
torch_uniform = scaled_uniform(1 / 3)
# Keras's default.
glorot_uniform = scaled_uniform(1.0, fan="mean")
