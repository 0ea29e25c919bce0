"""Losses in which each lesion counts alike, however small: the blob loss.

Kofler et al. 2023 (arXiv:2205.08209). Each connected component of the truth is judged
as if it were the only one: the voxels of all others are left out, the background stays.
Here all components are judged at once by sums over their voxels, whatever their number.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from bmjax import sharding
from bmjax.losses.compound import DiceBCE
from bmjax.ops import connected_components


def blob_loss(
    logits: Float[Array, "b *s k"],
    targets: Float[Array, "b *s k"],
    *,
    bce_weight: float = 1.0,
    smooth: float = 1e-5,
    valid: Float[Array, "b *s"] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Cross-entropy minus Dice of each component, averaged over components first.

    The mean is taken over the components of a sample and channel, then over the samples
    and channels that have any; 0 if none has.

    Args:
      logits: one independent logit per channel.
      targets: 0 or 1.
      bce_weight: weight of the cross-entropy beside Dice.
      smooth: keeps Dice defined where prediction and truth are empty.
      valid: 1 where a voxel counts; all voxels if None.
      axis_name: axis of devices under `pmap`.
    """
    counts = jnp.ones_like(targets)
    if valid is not None:
        counts = counts * valid[..., None]
    is_lesion = (targets > 0.5) & (counts > 0)
    numbers = connected_components(is_lesion)
    probs = jax.nn.sigmoid(logits)
    entropy = (1 - targets) * logits + jax.nn.softplus(-logits)
    voxels = jnp.stack([counts, probs * counts, entropy * counts], -1)
    sums = _sums_by_number(voxels, numbers)  # b k n 3, of which n = 0 is the background
    outside, inside = sums[:, :, :1], sums[:, :, 1:]
    size, found, cost = (inside[..., i] for i in range(3))
    dice = (2 * found + smooth) / (found + outside[..., 1] + size + smooth)
    mean_entropy = (cost + outside[..., 2]) / jnp.maximum(size + outside[..., 0], 1)
    is_used = size > 0
    values = jnp.where(is_used, bce_weight * mean_entropy - dice, 0)
    num_blobs = is_used.sum(-1)  # b k
    means = values.sum(-1) / jnp.maximum(num_blobs, 1)
    total = sharding.sum(means, (0, 1), axis_name=axis_name)
    has_any = (num_blobs > 0).astype(means.dtype)
    return total / jnp.maximum(sharding.sum(has_any, (0, 1), axis_name=axis_name), 1)


def _sums_by_number(
    voxels: Float[Array, "b *s k q"], numbers: Int[Array, "b *s k"]
) -> Float[Array, "b k n q"]:
    """Sum of the voxels of each component, the background first."""
    batch, num_channels, num_sums = voxels.shape[0], *voxels.shape[-2:]
    flat = voxels.reshape(batch, -1, num_channels, num_sums)
    num_segments = flat.shape[1] + 1

    def sums(values: Array, segments: Array) -> Array:
        return jax.ops.segment_sum(values, segments, num_segments)

    over_channels = jax.vmap(sums, (1, 1))
    return jax.vmap(over_channels)(flat, numbers.reshape(batch, -1, num_channels))


@dataclass(frozen=True, kw_only=True)
class BlobDiceBCE:
    """Dice and cross-entropy of the whole, and of each lesion by itself (blob loss).

    Attributes:
      batch_dice: pool the Dice of the whole over the batch; None is the plan's.
      bce_weight: weight of the cross-entropy beside Dice, in both parts.
      smooth: keeps Dice defined where prediction and truth are empty.
      global_weight: weight of the whole.
      blob_weight: weight of the lesions.
    """

    batch_dice: bool | None = None
    bce_weight: float = 1.0
    smooth: float = 1e-5
    global_weight: float = 2.0
    blob_weight: float = 1.0

    def __call__(
        self,
        logits: Float[Array, "b *s k"],
        targets: Float[Array, "b *s k"],
        *,
        valid: Float[Array, "b *s"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss, from about minus the sum of both weights at best."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        whole = DiceBCE(
            batch_dice=self.batch_dice, bce_weight=self.bce_weight, smooth=self.smooth
        )(logits, targets, valid=valid, axis_name=axis_name)
        each = blob_loss(
            logits,
            targets,
            bce_weight=self.bce_weight,
            smooth=self.smooth,
            valid=valid,
            axis_name=axis_name,
        )
        return self.global_weight * whole + self.blob_weight * each
