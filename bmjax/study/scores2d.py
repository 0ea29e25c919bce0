"""Every measure of the 2-D study over a stream of batches, published and sound.

The published ones (`legacy_...`) are kept as its framework keeps them: values of a
batch are averaged over batches, accuracy over pixels, the loss over samples, and mean
IoU is that of one confusion matrix over all batches. The sound ones are taken from
voxel counts: of an exam, averaged over exams (`dice`), or of all together (`pooled_`).
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from bmjax.metrics import pixel

FOREGROUND = "lesion"
SOUND = ("dice", "iou", "precision", "sensitivity", "specificity")
_COUNTS = ("tp", "fp", "fn", "tn")
_BATCH_MEANS = {
    "legacy_dice": pixel.legacy_dice,
    "legacy_precision": pixel.legacy_precision,
    "legacy_sensitivity": pixel.legacy_sensitivity,
    "legacy_specificity": pixel.legacy_specificity,
}


def batch_sums(
    probs: Float[Any, "b y x k"], labels: Integer[Any, "b y x"]
) -> dict[str, Any]:
    """What one batch adds to every measure: a pure function of numpy or JAX arrays.

    Args:
      probs: probability of each class, background first.
      labels: the class of each pixel.
    """
    xp = probs.__array_namespace__()
    values = xp.arange(probs.shape[-1], dtype=labels.dtype).reshape(1, 1, 1, -1)
    is_true = labels[..., None] == values
    truth = is_true.astype(probs.dtype)
    found = {name: of(probs, truth) for name, of in _BATCH_MEANS.items()}
    of_classes = [
        pixel.legacy_dice_of_class(probs, truth, index=index)
        for index in range(1, probs.shape[-1])
    ]
    found["legacy_dice_of_class"] = xp.stack(of_classes)
    # MeanIoU cuts probabilities to whole numbers: what is 1 of both, of each
    is_sure = probs.astype("int32") == 1
    found["keras_ones"] = xp.stack(
        [(is_sure & is_true).sum(), is_sure.sum(), is_true.sum()]
    )
    predicted = probs.argmax(-1)
    found["num_right"] = (predicted == labels).sum()
    one = _with_foreground(predicted[..., None] == values, xp)
    other = _with_foreground(is_true, xp)
    for name, mask in (
        ("tp", one & other),
        ("fp", one & ~other),
        ("fn", ~one & other),
        ("tn", ~one & ~other),
    ):
        found[name] = mask.sum((1, 2))  # b 1+classes
    return found


def _with_foreground(masks: Any, xp: Any) -> Any:
    """The masks of the classes, and before them that of all together."""
    classes = masks[..., 1:]
    return xp.concatenate([classes.any(-1)[..., None], classes], -1)


@dataclass
class Tally:
    """Adds up batches.

    Attributes:
      classes: names of the classes without background.
    """

    classes: tuple[str, ...]
    _means: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    _losses: list[float] = field(default_factory=list)
    _num_samples: list[int] = field(default_factory=list)
    _keras: Any = 0
    _right: int = 0
    _pixels: int = 0
    _counts: dict[str, Any] = field(default_factory=dict)

    def add(
        self, sums: Mapping[str, Any], *, loss: float, exams: Sequence[str]
    ) -> None:
        """Take one batch.

        Args:
          sums: from `batch_sums`.
          loss: its mean loss.
          exams: the exam of each of its samples.
        """
        for name in (*_BATCH_MEANS, "legacy_dice_of_class"):
            self._means[name].append(np.asarray(sums[name], np.float64))
        self._losses.append(loss)
        self._num_samples.append(len(exams))
        counts = np.stack([np.asarray(sums[name], np.int64) for name in _COUNTS], -1)
        pixels = int(counts[:, 0].sum())
        ones = np.asarray(sums["keras_ones"], np.int64)
        self._keras = self._keras + np.append(ones, pixels * (len(self.classes) + 1))
        self._right += int(sums["num_right"])
        self._pixels += pixels
        for exam, own in zip(exams, counts, strict=True):
            self._counts[exam] = self._counts.get(exam, 0) + own

    def scores(self) -> dict[str, float]:
        """Every measure by name; NaN where it is not defined.

        `loss` and `accuracy` mean the same in both definitions. A sound measure is
        `NAME` for lesion against background and `NAME_CLASS` for one class.
        `saturated` is the share of pixels with a probability of exactly 1.
        """
        samples = np.asarray(self._num_samples)
        result = {
            "loss": float(np.average(self._losses, weights=samples)),
            "accuracy": self._right / self._pixels,
            **{name: float(np.mean(self._means[name])) for name in _BATCH_MEANS},
            "legacy_iou": _keras_mean_iou(*self._keras.tolist()),
            "saturated": float(self._keras[1] / self._pixels),
        }
        by_class = np.mean(self._means["legacy_dice_of_class"], axis=0)
        for name, value in zip(self.classes, by_class, strict=True):
            result[f"legacy_dice_{name}"] = float(value)
        by_exam = np.stack(list(self._counts.values()))  # n 1+classes 4
        for i, name in enumerate((FOREGROUND, *self.classes)):
            end = "" if name == FOREGROUND else f"_{name}"
            of_exams = [sound(*counts) for counts in by_exam[:, i].tolist()]
            for measure in SOUND:
                result[measure + end] = _mean([own[measure] for own in of_exams])
            pooled = sound(*by_exam[:, i].sum(0).tolist())
            result |= {f"pooled_{m}{end}": pooled[m] for m in ("dice", "iou")}
        return result

    def by_exam(self) -> list[dict[str, Any]]:
        """Sound measures of each exam and class, one row each."""
        return [
            {"exam": exam, "class": name, **sound(*own)}
            for exam, counts in sorted(self._counts.items())
            for name, own in zip(
                (FOREGROUND, *self.classes), counts.tolist(), strict=True
            )
        ]


def sound(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """The usual measures of one mask; NaN where nothing is there to measure by."""
    return {
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "iou": _ratio(tp, tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def _keras_mean_iou(hits: int, said: int, true: int, total: int) -> float:
    """Mean of the IoU of ones and that of zeros, those without entries left out."""
    ones = _ratio(hits, said + true - hits)
    zeros = _ratio(total - said - true + hits, total - hits)
    return _mean([ones, zeros])


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return statistics.fmean(kept) if kept else math.nan


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else math.nan
