"""Soft overlap of probabilities with targets: Dice and Tversky coefficients.

Dice follows nnU-Net (MemoryEfficientSoftDiceLoss): one coefficient per sample and
channel, or per channel over the whole batch. Tversky follows MONAI (TverskyLoss).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from bmjax import sharding


def _space(x: Array) -> tuple[int, ...]:
    return tuple(range(1, x.ndim - 1))


def soft_dice(
    probs: Float[Array, "b *s k"],
    targets: Float[Array, "b *s k"],
    *,
    valid: Float[Array, "b *s"] | None = None,
    batch_dice: bool = False,
    smooth: float = 1e-5,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean Dice coefficient, 1 at best: (2 |PT| + s) / (|P| + |T| + s).

    Args:
      probs: probabilities.
      targets: 0 or 1.
      valid: 1 where a voxel counts; all voxels if None.
      batch_dice: pool the sums over the batch before dividing.
      smooth: s, which makes two empty masks agree.
      axis_name: axis of devices under `pmap`.
    """
    if valid is not None:
        probs, targets = probs * valid[..., None], targets * valid[..., None]
    overlap = jnp.sum(probs * targets, _space(probs))  # b k
    total = jnp.sum(probs, _space(probs)) + jnp.sum(targets, _space(probs))  # b k
    if batch_dice:
        overlap = sharding.sum(overlap, (0,), axis_name=axis_name)[None]
        total = sharding.sum(total, (0,), axis_name=axis_name)[None]
    dice = (2 * overlap + smooth) / jnp.maximum(total + smooth, 1e-8)
    return sharding.mean(dice, (0, 1), axis_name=axis_name)


def tversky(
    probs: Float[Array, "b *s k"],
    targets: Float[Array, "b *s k"],
    *,
    fp_weight: float = 0.3,
    fn_weight: float = 0.7,
    smooth: float = 1e-5,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Mean Tversky index over samples and channels, 1 at best.

    Args:
      probs: probabilities.
      targets: 0 or 1.
      fp_weight: cost of a false positive voxel.
      fn_weight: cost of a missed voxel; larger favours sensitivity.
      smooth: makes two empty masks agree.
      axis_name: axis of devices under `pmap`.
    """
    tp = jnp.sum(probs * targets, _space(probs))  # b k
    fp = fp_weight * jnp.sum(probs * (1 - targets), _space(probs))
    fn = fn_weight * jnp.sum((1 - probs) * targets, _space(probs))
    index = (tp + smooth) / (tp + fp + fn + smooth)
    return sharding.mean(index, (0, 1), axis_name=axis_name)
