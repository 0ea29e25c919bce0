"""The losses of the papers, as specs that can be called on logits and targets.

Each is called as `loss(logits, targets, valid=None, axis_name=None)` and returns a
float32 scalar. `DeepSupervision` lifts any of them to the outputs of several
resolutions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bmjax.losses.entropy import binary_cross_entropy, cross_entropy
from bmjax.losses.overlap import soft_dice, tversky
from bmjax.losses.targets import shrink_labels

Loss = Callable[..., Float[Array, ""]]


@dataclass(frozen=True, kw_only=True)
class DiceBCE:
    """Dice plus binary cross-entropy over independent regions (nnU-Net for regions).

    With an ignore label the cross-entropy is a mean over voxels and regions, as it is
    without one; nnU-Net then divides by the voxels alone (`bce_weight` = regions).

    Attributes:
      batch_dice: pool Dice over the batch; None takes it from the plan.
      bce_weight: weight of the cross-entropy beside Dice.
      smooth: keeps Dice defined where prediction and truth are empty.
    """

    batch_dice: bool | None = None
    bce_weight: float = 1.0
    smooth: float = 1e-5

    def __call__(
        self,
        logits: Float[Array, "b *s k"],
        targets: Float[Array, "b *s k"],
        *,
        valid: Float[Array, "b *s"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss, from about -1 at best."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        dice = soft_dice(
            jax.nn.sigmoid(logits),
            targets,
            valid=valid,
            batch_dice=bool(self.batch_dice),
            smooth=self.smooth,
            axis_name=axis_name,
        )
        entropy = binary_cross_entropy(
            logits, targets, valid=valid, axis_name=axis_name
        )
        return self.bce_weight * entropy - dice


@dataclass(frozen=True, kw_only=True)
class DiceCE:
    """Dice without background plus categorical cross-entropy (nnU-Net for labels).

    Attributes:
      batch_dice: pool Dice over the batch; None takes it from the plan.
      ce_weight: weight of the cross-entropy beside Dice.
      smooth: keeps Dice defined where prediction and truth are empty.
    """

    batch_dice: bool | None = None
    ce_weight: float = 1.0
    smooth: float = 1e-5

    def __call__(
        self,
        logits: Float[Array, "b *s k"],
        targets: Float[Array, "b *s k"],
        *,
        valid: Float[Array, "b *s"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss, from about -1 at best; the first channel is the background."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        dice = soft_dice(
            jax.nn.softmax(logits)[..., 1:],
            targets[..., 1:],
            valid=valid,
            batch_dice=bool(self.batch_dice),
            smooth=self.smooth,
            axis_name=axis_name,
        )
        entropy = cross_entropy(logits, targets, valid=valid, axis_name=axis_name)
        return self.ce_weight * entropy - dice


@dataclass(frozen=True, kw_only=True)
class TverskyBCE:
    """Tversky plus weighted binary cross-entropy (Luu et al. 2024).

    The authors' code multiplies each voxel's cross-entropy by `1 + 10 y`; their text
    says "pos_w=10". The code's reading is the default. The text's is
    `TverskyBCE(voxel_weight=0.0, positive_weight=10.0)`.

    Attributes:
      fp_weight: cost of a false positive voxel in the Tversky index.
      fn_weight: cost of a missed voxel in the Tversky index.
      voxel_weight: w in the factor `1 + w * y` of the cross-entropy.
      positive_weight: factor of the positive term alone (torch's `pos_weight`).
    """

    fp_weight: float = 0.3
    fn_weight: float = 0.7
    voxel_weight: float = 10.0
    positive_weight: float = 1.0

    def __call__(
        self,
        logits: Float[Array, "b *s k"],
        targets: Float[Array, "b *s k"],
        *,
        valid: Float[Array, "b *s"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss, 0 at best."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        probs = jax.nn.sigmoid(logits)
        if valid is not None:
            probs, targets = probs * valid[..., None], targets * valid[..., None]
        index = tversky(
            probs,
            targets,
            fp_weight=self.fp_weight,
            fn_weight=self.fn_weight,
            axis_name=axis_name,
        )
        entropy = binary_cross_entropy(
            logits,
            targets,
            positive_weight=self.positive_weight,
            voxel_weight=self.voxel_weight,
            valid=valid,
            axis_name=axis_name,
        )
        return 1 - index + entropy


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Categorical cross-entropy, as Keras' (the 2-D study of Kaur and Singh 2024)."""

    def __call__(
        self,
        logits: Float[Array, "b *s k"],
        targets: Float[Array, "b *s k"],
        *,
        valid: Float[Array, "b *s"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss, 0 at best; the first channel is the background."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return cross_entropy(logits, targets, valid=valid, axis_name=axis_name)


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """Binary cross-entropy over independent regions.

    Attributes:
      positive_weight: factor of the positive term alone (torch's `pos_weight`).
    """

    positive_weight: float = 1.0

    def __call__(
        self,
        logits: Float[Array, "b *s k"],
        targets: Float[Array, "b *s k"],
        *,
        valid: Float[Array, "b *s"] | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss, 0 at best."""
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return binary_cross_entropy(
            logits,
            targets,
            positive_weight=self.positive_weight,
            valid=valid,
            axis_name=axis_name,
        )


def deep_supervision_weights(num_outputs: int) -> tuple[float, ...]:
    """nnU-Net's weights: halved at each level, the coarsest 0, their sum 1."""
    if num_outputs == 1:
        return (1.0,)
    halves = 0.5 ** np.arange(num_outputs)
    halves[-1] = 0.0
    return tuple((halves / halves.sum()).tolist())


@dataclass(frozen=True, kw_only=True)
class DeepSupervision:
    """Weighted sum of one loss over a network's outputs, labels shrunk to each.

    Attributes:
      loss: the loss of one resolution.
      weights: one per output, full resolution first; None for nnU-Net's.
    """

    loss: Loss
    weights: tuple[float, ...] | None = None

    def __call__(
        self,
        outputs: Sequence[Float[Array, "b ... k"]],
        labels: Int[Array, "b *s"],
        targets_of: Callable[[Int[Array, "b *s"]], Float[Array, "b *s k"]],
        *,
        ignore_label: int | None = None,
        axis_name: str | None = None,
    ) -> Float[Array, ""]:
        """Loss over all outputs of non-zero weight.

        Args:
          outputs: logits, full resolution first.
          labels: label map at full resolution.
          targets_of: turns a label map into the channels of the logits.
          ignore_label: voxels of this label do not count.
          axis_name: axis of devices under `pmap`.

        Raises:
          ValueError: there are not as many weights as outputs.
        """
        weights = self.weights or deep_supervision_weights(len(outputs))
        if len(weights) != len(outputs):
            raise ValueError(
                f"{len(weights)} deep-supervision weights for {len(outputs)} outputs; "
                "give one weight per output, or None for nnU-Net's"
            )
        total = jnp.zeros((), jnp.promote_types(outputs[0].dtype, jnp.float32))
        for weight, logits in zip(weights, outputs, strict=True):
            if weight:
                coarse = shrink_labels(labels, logits.shape[1:-1])
                valid = None
                if ignore_label is not None:
                    valid = (coarse != ignore_label).astype(jnp.float32)
                total += weight * self.loss(
                    logits, targets_of(coarse), valid=valid, axis_name=axis_name
                )
        return total
