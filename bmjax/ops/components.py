"""Connected components on the device: no list of lesions, no bound on their number."""

import math

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Int


def connected_components(mask: Bool[Array, "b *s k"]) -> Int[Array, "b *s k"]:
    """Number each voxel by its component, 0 outside the mask.

    Voxels that touch, if only by a corner, belong together (26 neighbours in 3-D, 8 in
    2-D). Samples and channels are separate. The number of a component is 1 + the index
    of its last voxel in the flattened space, so that it is the same on every device.

    Args:
      mask: whether a voxel belongs to any component.
    """
    _, *space, _ = mask.shape
    index = jnp.arange(1, 1 + math.prod(space), dtype=jnp.int32).reshape(1, *space, 1)
    numbers = jnp.where(mask, index, 0)

    def grow(state: tuple[Array, Array]) -> tuple[Array, Array]:
        numbers, _ = state
        grown = numbers
        for axis in range(1, numbers.ndim - 1):
            grown = _largest_neighbour(grown, axis)
        grown = jnp.where(mask, grown, 0)
        return grown, jnp.any(grown != numbers)

    return lax.while_loop(lambda state: state[1], grow, (numbers, jnp.any(mask)))[0]


def _largest_neighbour(x: Array, axis: int) -> Array:
    zeros = jnp.zeros_like(lax.slice_in_dim(x, 0, 1, axis=axis))
    size = x.shape[axis]
    before = jnp.concatenate([zeros, lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
    after = jnp.concatenate([lax.slice_in_dim(x, 1, size, axis=axis), zeros], axis)
    return jnp.maximum(x, jnp.maximum(before, after))
