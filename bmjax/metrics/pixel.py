"""The metrics of the 2-D slice study (Kaur and Singh 2024), sound and legacy.

The study's code is of the Keras BraTS2020 notebooks, whose metrics pool all pixels of a
batch over all one-hot channels, background included. Those are here under `legacy_...`
names, so that the published table can be reproduced; they say little about lesions and
compare with nothing else. The sound ones stand beside them.

Everything takes numpy or jax and works inside jit. A background channel comes first.
"""

from typing import Any

from jaxtyping import Float, Integer, Num

EPSILON = 1e-7  # keras.backend.epsilon()


def accuracy(probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"]) -> Any:
    """Share of pixels whose likeliest class is right, background included: sound, but
    near 1 for any small lesion.
    """
    return (probs.argmax(-1) == onehot.argmax(-1)).mean()


def iou_by_class(
    labels: Integer[Any, "*s"], truth: Integer[Any, "*s"], *, k: int
) -> Any:
    """IoU of each class, background first; NaN for a class that occurs in neither.

    Args:
      labels: predicted class of each pixel.
      truth: its class.
      k: number of classes.
    """
    xp = _namespace(labels)
    ious = []
    for value in range(k):
        one, other = labels == value, truth == value
        ious.append(_ratio((one & other).sum(), (one | other).sum(), xp))
    return xp.stack(ious)


def mean_iou(labels: Integer[Any, "*s"], truth: Integer[Any, "*s"], *, k: int) -> Any:
    """Mean IoU over the classes that occur, background included: what Keras' MeanIoU
    gives for class numbers.
    """
    return _namespace(labels).nanmean(iou_by_class(labels, truth, k=k))


def mean_iou_foreground(
    labels: Integer[Any, "*s"], truth: Integer[Any, "*s"], *, k: int
) -> Any:
    """Mean IoU over the lesion classes that occur; NaN where there are none."""
    ious = iou_by_class(labels, truth, k=k)[1:]
    xp = _namespace(labels)
    is_there = ~xp.isnan(ious)
    return _ratio(xp.where(is_there, ious, 0).sum(), is_there.sum(), xp)


def iou_foreground(labels: Integer[Any, "*s"], truth: Integer[Any, "*s"]) -> Any:
    """IoU of lesion against background, all lesion classes as one."""
    one, other = labels > 0, truth > 0
    return _ratio((one & other).sum(), (one | other).sum(), _namespace(labels))


def dice_foreground(labels: Integer[Any, "*s"], truth: Integer[Any, "*s"]) -> Any:
    """Dice of lesion against background, all lesion classes as one; NaN for neither."""
    one, other = labels > 0, truth > 0
    both = 2 * (one & other).sum()
    return _ratio(both, one.sum() + other.sum(), _namespace(labels))


def legacy_dice(probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"]) -> Any:
    """The notebooks' `dice_coef`: soft, smoothed by 1, pooled over the batch, mean over
    the channels with background.
    """
    axes = tuple(range(probs.ndim - 1))
    both = (probs * onehot).sum(axes)
    return ((2 * both + 1) / (probs.sum(axes) + onehot.sum(axes) + 1)).mean()


def legacy_dice_of_class(
    probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"], *, index: int
) -> Any:
    """The notebooks' Dice of one class: soft, over squared sums, epsilon 1e-6 below."""
    one, other = probs[..., index], onehot[..., index]
    squares = (one**2).sum() + (other**2).sum()
    return 2 * abs(one * other).sum() / (squares + 1e-6)


def legacy_precision(probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"]) -> Any:
    """The notebooks' precision: of all one-hot entries, background's among them."""
    hits = (probs * onehot).clip(0, 1).round().sum()
    return hits / (probs.clip(0, 1).round().sum() + EPSILON)


def legacy_sensitivity(probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"]) -> Any:
    """The notebooks' sensitivity: of all one-hot entries, background's among them."""
    hits = (probs * onehot).clip(0, 1).round().sum()
    return hits / (onehot.clip(0, 1).round().sum() + EPSILON)


def legacy_specificity(probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"]) -> Any:
    """The notebooks' specificity: of all zeros of the one-hot code."""
    right = ((1 - probs) * (1 - onehot)).clip(0, 1).round().sum()
    return right / ((1 - onehot).clip(0, 1).round().sum() + EPSILON)


def legacy_mean_iou(probs: Float[Any, "*s k"], onehot: Num[Any, "*s k"]) -> Any:
    """`tf.keras.metrics.MeanIoU(k)` given probabilities and one-hot targets.

    It casts both to whole numbers, so that only a probability of exactly 1 counts as
    one, and compares zeros and ones instead of classes: a measure of saturation
    (tensorflow issues 39173 and 55565). It begins at 0.375 for four classes.
    """
    xp = _namespace(probs)
    said, true = probs.astype("int32"), onehot.astype("int32")
    ious = []
    for value in (0, 1):
        one, other = said == value, true == value
        ious.append(_ratio((one & other).sum(), (one | other).sum(), xp))
    return xp.nanmean(xp.stack(ious))


def _ratio(numerator: Any, denominator: Any, xp: Any) -> Any:
    is_defined = denominator > 0
    quotient = numerator / xp.where(is_defined, denominator, 1)
    return xp.where(is_defined, quotient, xp.nan)


def _namespace(x: Any) -> Any:
    return x.__array_namespace__()
