"""Why the paper has an IoU of 0.968 beside a Dice of 0.645, shown on own predictions.

For one mask IoU = Dice / (2 - Dice), so that the two cannot both be of the same thing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bmjax.study.scores2d import Tally, batch_sums
from bmjax.study.table4 import PUBLISHED

_NUM_CLASSES = 4  # of the published network


def finding_nothing(
    batches: Iterable[Mapping[str, Any]], *, classes: Sequence[str]
) -> dict[str, float]:
    """Every measure of a prediction that calls each pixel background, for certain."""
    tally = Tally(tuple(classes))
    for batch in batches:
        probs = np.zeros((*batch["labels"].shape, len(classes) + 1), np.float32)
        probs[..., 0] = 1
        sums = batch_sums(probs, batch["labels"])
        tally.add(sums, loss=math.nan, exams=batch["exams"])
    return tally.scores()


def iou_of_dice(dice: float) -> float:
    """IoU of the mask that has this Dice."""
    return dice / (2 - dice)


def saturation_for(mean_iou: float, *, num_classes: int = _NUM_CLASSES) -> float:
    """Share of pixels with a probability of exactly 1 that gives Keras' mean IoU.

    If all of them are right, the IoU of ones is the share s itself, and that of zeros
    (K - 1) / (K - s); their mean is solved for s.
    """
    half = num_classes / 2 + mean_iou
    return half - math.sqrt(half**2 - 2 * num_classes * mean_iou + num_classes - 1)


def explain(ours: Mapping[str, float], nothing: Mapping[str, float]) -> tuple[str, ...]:
    """The explanation, in paragraphs.

    Args:
      ours: measures of our U-Net on some set.
      nothing: measures of `finding_nothing` on the same set.
    """
    dice = PUBLISHED["unet2d", "train", "dice"]
    iou = PUBLISHED["unet2d", "train", "iou"]
    of_mask = iou_of_dice(dice)
    return (
        f"A mask with a Dice of {dice:.3f} has an IoU of {of_mask:.3f}, and the mean "
        f"of that and of a perfect background is {(1 + of_mask) / 2:.3f}. The "
        f"published {iou:.3f} is neither: it is the arithmetic of Keras' MeanIoU given "
        "probabilities. It cuts them to whole numbers, so that only a pixel with a "
        "softmax of exactly 1 counts, and compares ones with ones and zeros with "
        "zeros, in all channels together. "
        f"{saturation_for(iou):.1%} of such pixels, wherever they are, give "
        f"{iou:.3f}; before training, with none, it is "
        f"{(1 - 1 / _NUM_CLASSES) / 2:.3f}.",
        f"Our U-Net, measured the same way: {ours['saturated']:.1%} of the pixels "
        f"have a probability of exactly 1, and the legacy IoU is "
        f"{ours['legacy_iou']:.3f}. The sound IoU of lesion against background is "
        f"{ours['iou']:.3f}, its Dice {ours['dice']:.3f}. The legacy Dice, "
        f"{ours['legacy_dice']:.3f}, is a mean over classes with the background among "
        "them, in which a class that is not in a batch counts as nearly right if "
        "little of it is predicted.",
        "A prediction that finds no lesion at all, sure of background everywhere, "
        f"gets a legacy IoU of {nothing['legacy_iou']:.3f}, a legacy Dice of "
        f"{nothing['legacy_dice']:.3f}, precision and sensitivity of "
        f"{nothing['legacy_precision']:.4f} and {nothing['legacy_sensitivity']:.4f}, "
        f"and an accuracy of {nothing['accuracy']:.4f} on these slices. Its sound Dice "
        f"is {nothing['dice']:.3f}. So the legacy numbers can be compared with the "
        "paper, and with nothing else.",
    )
