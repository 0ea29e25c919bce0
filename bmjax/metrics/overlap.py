"""Overlap of two masks, as ratios of four voxel counts.

One implementation serves numpy on the host and jax inside jit: a function takes its
array namespace from its argument. Every ratio whose denominator is zero is NaN, with
one exception that the caller chooses by name: `both_empty` is the value where
prediction and reference are both empty (NaN as in nnU-Net's summary, which leaves the
case out of the mean; 1 as in the BraTS 2023 evaluation).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer

NAN = math.nan


class Counts(NamedTuple):
    """Voxels by agreement of prediction and reference; a pytree of equal shapes.

    Attributes:
      tp: in both.
      fp: in the prediction only.
      fn: in the reference only.
      tn: in neither, over the whole volume.
    """

    tp: Any
    fp: Any
    fn: Any
    tn: Any


def count(
    prediction: Bool[Any, "*s"],
    reference: Bool[Any, "*s"],
    *,
    axis: int | tuple[int, ...] | None = None,
) -> Counts:
    """Count agreement of two masks, numpy or jax.

    Args:
      prediction: voxels said to be inside.
      reference: voxels that are inside.
      axis: axes to sum over; None sums over all.
    """
    return Counts(
        tp=(prediction & reference).sum(axis=axis),
        fp=(prediction & ~reference).sum(axis=axis),
        fn=(~prediction & reference).sum(axis=axis),
        tn=(~prediction & ~reference).sum(axis=axis),
    )


def confusion(
    prediction: Integer[np.ndarray, "*s"],
    reference: Integer[np.ndarray, "*s"],
    *,
    num_labels: int,
) -> Int[np.ndarray, "p r"]:
    """Table of voxel counts [predicted label, reference label] in one pass.

    Args:
      prediction: labels in 0..num_labels-1.
      reference: labels in 0..num_labels-1.
      num_labels: labels, background included.
    """
    code = prediction.astype(np.int32) * num_labels + reference.astype(np.int32)
    table = np.bincount(code.ravel(), minlength=num_labels**2)
    return table.reshape(num_labels, num_labels)


def region_counts(
    table: Int[np.ndarray, "p r"], *, labels: tuple[int, ...], num_outside: int = 0
) -> Counts:
    """Counts of a region, a union of labels, from a confusion table.

    Args:
      table: see `confusion`.
      labels: labels that make up the region.
      num_outside: background voxels of both masks that the table leaves out.
    """
    inside = np.isin(np.arange(table.shape[0]), labels)
    return Counts(
        tp=int(table[inside][:, inside].sum()),
        fp=int(table[inside][:, ~inside].sum()),
        fn=int(table[~inside][:, inside].sum()),
        tn=int(table[~inside][:, ~inside].sum()) + num_outside,
    )


def dice(counts: Counts, *, both_empty: float = NAN) -> Any:
    """Dice (1945), Sorensen (1948): 2 tp / (2 tp + fp + fn)."""
    overlap = 2 * counts.tp
    return _ratio(overlap, overlap + counts.fp + counts.fn, counts, both_empty)


def iou(counts: Counts, *, both_empty: float = NAN) -> Any:
    """Jaccard (1901), intersection over union: tp / (tp + fp + fn)."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, counts, both_empty)


def sensitivity(counts: Counts, *, both_empty: float = NAN) -> Any:
    """Recall: tp / (tp + fn); NaN where only the reference is empty."""
    return _ratio(counts.tp, counts.tp + counts.fn, counts, both_empty)


def precision(counts: Counts, *, both_empty: float = NAN) -> Any:
    """Positive predictive value: tp / (tp + fp); NaN where only the prediction is
    empty.
    """
    return _ratio(counts.tp, counts.tp + counts.fp, counts, both_empty)


def specificity(counts: Counts) -> Any:
    """True-negative rate, tn / (tn + fp), over the whole volume: close to 1 for any
    small region, hence a number to report and not to compare by.
    """
    return _ratio(counts.tn, counts.tn + counts.fp, counts, NAN)


def accuracy(counts: Counts) -> Any:
    """(tp + tn) / all voxels: dominated by background, as specificity is."""
    right = counts.tp + counts.tn
    return _ratio(right, right + counts.fp + counts.fn, counts, NAN)


def _ratio(numerator: Any, denominator: Any, counts: Counts, both_empty: float) -> Any:
    xp = _namespace(denominator)
    is_defined = denominator > 0
    is_both_empty = counts.tp + counts.fp + counts.fn == 0
    quotient = numerator / xp.where(is_defined, denominator, 1)
    empty = xp.where(is_both_empty, both_empty, NAN)
    return xp.where(is_defined, quotient, empty)[()]  # a numpy 0-d array -> scalar


def _namespace(x: Any) -> Any:
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np
