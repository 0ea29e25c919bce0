"""Every measure of the 2-D study over a stream of batches, published and sound.

The published ones (`legacy_...`) are kept as its framework keeps them: values of a
batch are averaged over batches, accuracy over pixels, the loss over samples, and mean
IoU is that of one confusion matrix over all batches. The sound ones are taken from
voxel counts: of an exam, averaged over exams (`dice`), or of all together (`pooled_`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from bmjax.losses import one_hot
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
    probs: Float[Array, "b y x k"], labels: Int[Array, "b y x"]
) -> dict[str, Array]:
    """What one batch adds to every measure; a pure function for the device.

    Args:
      probs: probability of each class, background first.
      labels: the class of each pixel.
    """
    num_classes = probs.shape[-1]
    truth = one_hot(labels.astype(jnp.int32), num_classes)
    found = {name: of(probs, truth) for name, of in _BATCH_MEANS.items()}
    found["legacy_dice_of_class"] = jnp.stack(
        [
            pixel.legacy_dice_of_class(probs, truth, index=k)
            for k in range(1, num_classes)
        ]
    )
    # MeanIoU's confusion matrix of truncated probabilities and one-hot code: [1, 1],
    # sums of the two, and the number of entries
    said, true = probs.astype(jnp.int32), truth.astype(jnp.int32)
    found["keras_ones"] = jnp.stack([(said & true).sum(), said.sum(), true.sum()])
    predicted = probs.argmax(-1)
    found["num_right"] = (predicted == labels).sum()
    classes = jnp.arange(1, num_classes).reshape(1, 1, 1, -1)
    one = predicted[..., None] == classes
    other = labels[..., None] == classes
    one = jnp.concatenate([one.any(-1, keepdims=True), one], -1)  # b y x lesion+classes
    other = jnp.concatenate([other.any(-1, keepdims=True), other], -1)
    for name, mask in (
        ("tp", one & other),
        ("fp", one & ~other),
        ("fn", ~one & other),
        ("tn", ~one & ~other),
    ):
        found[name] = mask.sum((1, 2))  # b 1+classes
    return found


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
            "legacy_iou": _keras_mean_iou(*self._keras),
            "saturated": float(self._keras[1] / self._pixels),
        }
        by_class = np.mean(self._means["legacy_dice_of_class"], axis=0)
        for name, value in zip(self.classes, by_class, strict=True):
            result[f"legacy_dice_{name}"] = float(value)
        by_exam = np.stack(list(self._counts.values()))  # n 1+classes 4
        for i, name in enumerate((FOREGROUND, *self.classes)):
            end = "" if name == FOREGROUND else f"_{name}"
            of_exams = [sound(*counts) for counts in by_exam[:, i]]
            for measure in SOUND:
                result[measure + end] = _mean([own[measure] for own in of_exams])
            pooled = sound(*by_exam[:, i].sum(0))
            result |= {f"pooled_{m}{end}": pooled[m] for m in ("dice", "iou")}
        return result

    def by_exam(self) -> list[dict[str, Any]]:
        """Sound measures of each exam and class, one row each."""
        return [
            {"exam": exam, "class": name, **sound(*own)}
            for exam, counts in sorted(self._counts.items())
            for name, own in zip((FOREGROUND, *self.classes), counts, strict=True)
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
    kept = [value for value in values if not np.isnan(value)]
    return float(np.mean(kept)) if kept else float("nan")


def _ratio(numerator: int, denominator: int) -> float:
    return float(numerator / denominator) if denominator else float("nan")
