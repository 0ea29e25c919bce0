"""Cross-entropies from logits, safe at any magnitude."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bmjax import sharding


def _mean(
    voxels: Float[Array, "b *s k"],
    valid: Float[Array, "b *s"] | None,
    axis_name: str | None,
) -> Float[Array, ""]:
    axes = tuple(range(voxels.ndim))
    if valid is None:
        return sharding.mean(voxels, axes, axis_name=axis_name)
    total = sharding.sum(voxels * valid[..., None], axes, axis_name=axis_name)
    count = sharding.sum(valid, axes[:-1], axis_name=axis_name) * voxels.shape[-1]
    return total / jnp.maximum(count, 1e-8)


def binary_cross_entropy(
    logits: Float[Array, "b *s k"],
    targets: Float[Array, "b *s k"],
    *,
    positive_weight: float = 1.0,
    voxel_weight: float = 0.0,
    valid: Float[Array, "b *s"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean over voxels and channels of the Bernoulli negative log likelihood.

    Args:
      logits: one independent logit per channel.
      targets: 0 or 1.
      positive_weight: factor of the positive term alone (torch's `pos_weight`).
      voxel_weight: w in a factor `1 + w * target` of the whole term.
      valid: 1 where a voxel counts; all voxels if None.
      axis_name: axis of devices under `pmap`.
    """
    # log(1 + exp(-x)) weighted, and x for the negatives
    weight = 1 + (positive_weight - 1) * targets
    voxels = (1 - targets) * logits + weight * jax.nn.softplus(-logits)
    return _mean(voxels * (1 + voxel_weight * targets), valid, axis_name)


def cross_entropy(
    logits: Float[Array, "b *s k"],
    targets: Float[Array, "b *s k"],
    *,
    valid: Float[Array, "b *s"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean over voxels of the categorical negative log likelihood.

    Args:
      logits: one logit per class; a softmax over the last axis makes probabilities.
      targets: one-hot or soft classes.
      valid: 1 where a voxel counts; all voxels if None.
      axis_name: axis of devices under `pmap`.
    """
    voxels = -jnp.sum(targets * jax.nn.log_softmax(logits), -1, keepdims=True)
    return _mean(voxels, valid, axis_name)
