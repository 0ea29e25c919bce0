"""Label maps as what a loss compares with: regions, classes, coarser grids."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int


def region_targets(
    labels: Int[Array, "b *s"], regions: Sequence[tuple[str, tuple[int, ...]]]
) -> Float[Array, "b *s k"]:
    """One channel per region, 1 where the label belongs to it; regions may overlap.

    Args:
      labels: label map.
      regions: name and labels of each region, such as `("TC", (1, 3))`.
    """
    members = [jnp.isin(labels, jnp.asarray(values)) for _, values in regions]
    return jnp.stack(members, axis=-1).astype(jnp.float32)


def one_hot(
    labels: Int[Array, "b *s"], num_classes: int
) -> Float[Array, "b *s {num_classes}"]:
    """One channel per class, background first; a label outside is all zero."""
    classes = jnp.arange(num_classes, dtype=labels.dtype)
    classes = classes.reshape((1,) * labels.ndim + (num_classes,))
    return (labels[..., None] == classes).astype(jnp.float32)


def shrink_labels(labels: Int[Array, "b *s"], size: tuple[int, ...]) -> Array:
    """Labels on a coarser grid by the nearest voxel centre, as torch's nearest-exact.

    Args:
      labels: label map.
      size: number of voxels along each spatial axis of the result.
    """
    for axis, (new, old) in enumerate(zip(size, labels.shape[1:], strict=True), 1):
        if new != old:
            nearest = np.floor((np.arange(new) + 0.5) * old / new).astype(np.int32)
            labels = jnp.take(labels, nearest, axis=axis)
    return labels
