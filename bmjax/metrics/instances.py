"""Recognition, segmentation and panoptic quality of lesions as instances.

Kirillov et al. (2019), as panoptica's default computes it: couples of components are
taken in descending order of their IoU, each component once, down to an IoU of one half.
"""

import math
from dataclasses import dataclass

from bmjax.metrics.lesions import Pair

MIN_IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Instance metrics of one case and region.

    Attributes:
      num_true_positive: couples with an IoU of at least the limit.
      num_false_positive: predicted lesions in no couple.
      num_false_negative: reference lesions in no couple.
      recognition: RQ, tp / (tp + fp / 2 + fn / 2), which is the lesions' F1; NaN
        without any lesion.
      segmentation: SQ, mean IoU of the couples; NaN without any.
      panoptic: PQ = RQ x SQ, 0 where there are lesions and no couple; NaN without any
        lesion.
    """

    num_true_positive: int
    num_false_positive: int
    num_false_negative: int
    recognition: float
    segmentation: float
    panoptic: float


def quality(lesions: Pair, *, min_iou: float = MIN_IOU) -> Quality:
    """Measure lesions as instances.

    Args:
      lesions: predicted and reference lesions.
      min_iou: IoU from which on a couple is a match.
    """
    scored = []
    for real, predicted, common in lesions.overlaps.tolist():
        sizes = lesions.reference[real - 1], lesions.predicted[predicted - 1]
        union = sum(lesion.num_voxels for lesion in sizes) - common
        scored.append((common / union, real, predicted))
    taken_real, taken_predicted, ious = set(), set(), []
    for iou, real, predicted in sorted(scored, key=lambda couple: -couple[0]):
        if iou < min_iou:
            break
        if real not in taken_real and predicted not in taken_predicted:
            taken_real.add(real)
            taken_predicted.add(predicted)
            ious.append(iou)
    num = len(ious)
    total = (len(lesions.reference) + len(lesions.predicted)) / 2
    return Quality(
        num_true_positive=num,
        num_false_positive=len(lesions.predicted) - num,
        num_false_negative=len(lesions.reference) - num,
        recognition=num / total if total else math.nan,
        segmentation=sum(ious) / num if num else math.nan,
        panoptic=sum(ious) / total if total else math.nan,
    )
