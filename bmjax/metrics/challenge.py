"""Lesion-wise scores by the rules of the BraTS metastasis challenges, re-derived.

`brats_mets_2023` is the rule of the 2023 challenge (BraTS-2023-Metrics, metrics.py),
`brats_evaluation` that of its successor, the package brats-evaluation 0.0.10 (panoptica
2.1.7 underneath). They merge, match, weigh and penalise differently.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy.optimize import linear_sum_assignment

from bmjax.metrics import surface
from bmjax.metrics.boxes import grown, union
from bmjax.metrics.lesions import Lesion, Pair, components, measure

MIN_VOLUME_MM3 = 2.0
PENALTY_2023_MM = 374.0
PENALTY_MM = 373.0  # brats-evaluation: the diagonal of its atlas
LARGE_MM3 = 20.0
MIN_DICE = 0.1


@dataclass(frozen=True, kw_only=True)
class LesionWise:
    """Result of the BraTS-METS 2023 rule; see `brats_mets_2023`.

    Attributes:
      dice: the lesion-wise Dice, 1 where there is neither lesion nor false positive.
      hd95_mm: the lesion-wise HD95 [mm], 0 where there is neither.
      num_true_positive: reference lesions above the volume limit that are matched.
      num_false_negative: reference lesions above the volume limit that are not.
      num_false_positive: predicted components, of any size, that match nothing.
    """

    dice: float
    hd95_mm: float
    num_true_positive: int
    num_false_negative: int
    num_false_positive: int


@dataclass(frozen=True, kw_only=True)
class Detected:
    """Reference lesions of one size class by the rule of brats-evaluation.

    Attributes:
      num_true_positive: matched with a Dice of at least 0.1.
      num_false_negative: the others.
    """

    num_true_positive: int
    num_false_negative: int


@dataclass(frozen=True, kw_only=True)
class BratsEvaluation:
    """Result of the rule of brats-evaluation; see `brats_evaluation`.

    Attributes:
      dice: mean over large reference lesions and all false positives; NaN where there
        is no large lesion, as the next two.
      hd95_mm: the same for panoptica's HD95 [mm].
      nsd: the same for panoptica's NSD at the smallest voxel size.
      num_true_positive: matched couples, whatever their size and Dice.
      num_false_negative: reference lesions without a match.
      num_false_positive: predicted lesions without a match.
      large: reference lesions of at least 20 mm3.
      small: the smaller ones.
    """

    dice: float
    hd95_mm: float
    nsd: float
    num_true_positive: int
    num_false_negative: int
    num_false_positive: int
    large: Detected
    small: Detected


def brats_mets_2023(
    lesions: Pair, *, min_volume_mm3: float = MIN_VOLUME_MM3
) -> LesionWise:
    """Lesion-wise Dice and HD95 of the BraTS-METS 2023 challenge.

    Reference voxels whose 18-connected dilations (one voxel) meet are one lesion. The
    predicted components that meet a lesion's dilation match it, whole; its Dice and
    HD95 (surfels) are those of their union and the undilated lesion, 0 and 374 mm
    without a match. Lesions of at most `min_volume_mm3` are left out, false positives
    of any size are not. The sums, with 374 mm for each false positive, are divided by
    lesions kept + false positives.

    Args:
      lesions: predicted and reference lesions.
      min_volume_mm3: lesions up to this volume do not count [mm3].
    """
    reference, predicted = lesions.reference_numbers > 0, lesions.predicted_numbers
    merged = np.where(reference, components(dilate_18(reference)), 0)
    sizes = np.array([0, *(lesion.num_voxels for lesion in lesions.predicted)])
    dices, distances, is_found, matched = [], [], [], set()
    for lesion in measure(merged, spacing_mm=lesions.spacing_mm):
        box = grown(lesion.box, merged.shape)
        own = merged[box] == lesion.index
        near = np.unique(predicted[box][dilate_18(own)])
        near = near[near > 0]
        matched.update(near.tolist())
        if lesion.volume_mm3 <= min_volume_mm3:
            continue
        overlap = int(np.isin(predicted[box][own], near).sum())
        dices.append(2 * overlap / (lesion.num_voxels + int(sizes[near].sum())))
        is_found.append(bool(near.size))
        if not near.size:
            distances.append(PENALTY_2023_MM)
            continue
        wide = union(lesion.box, *(lesions.predicted[i - 1].box for i in near))
        between = surface.surfel_distances(
            np.isin(predicted[wide], near),
            merged[wide] == lesion.index,
            spacing_mm=lesions.spacing_mm,
        )
        distances.append(surface.weighted_hausdorff(between))
    num_false_positive = len(lesions.predicted) - len(matched)
    num_counted = len(dices) + num_false_positive
    penalties = PENALTY_2023_MM * num_false_positive
    return LesionWise(
        dice=sum(dices) / num_counted if num_counted else 1.0,
        hd95_mm=(sum(distances) + penalties) / num_counted if num_counted else 0.0,
        num_true_positive=sum(is_found),
        num_false_negative=len(is_found) - sum(is_found),
        num_false_positive=num_false_positive,
    )


def brats_evaluation(lesions: Pair) -> BratsEvaluation:
    """Lesion-wise scores of the package brats-evaluation, its `mets` configuration.

    Predicted and reference components are matched one to one so that the sum of their
    Dice is largest. Each large reference lesion (at least 20 mm3) counts with the Dice,
    HD95 and NSD of its match, or with 0, 373 mm and 0; each false positive of any size
    does so, too. A lesion is detected if its match has a Dice of at least 0.1.
    """
    matched = best_matches(lesions)
    num_false_positive = len(lesions.predicted) - len(matched)
    dices, distances, shares = [], [], []
    found: dict[bool, list[bool]] = {True: [], False: []}
    for lesion in lesions.reference:
        is_large = lesion.volume_mm3 >= LARGE_MM3
        number, dice = matched.get(lesion.index, (0, 0.0))
        found[is_large].append(dice >= MIN_DICE)
        if is_large:
            dices.append(dice)
            hd95_mm, share = PENALTY_MM, 0.0
            if number:
                hd95_mm, share = _voxel_scores(
                    lesions, lesion, lesions.predicted[number - 1]
                )
            distances.append(hd95_mm)
            shares.append(share)
    count = len(dices) + num_false_positive if dices else 0
    penalties = PENALTY_MM * num_false_positive
    large, small = (
        Detected(num_true_positive=sum(f), num_false_negative=len(f) - sum(f))
        for f in (found[True], found[False])
    )
    return BratsEvaluation(
        dice=sum(dices) / count if count else math.nan,
        hd95_mm=(sum(distances) + penalties) / count if count else math.nan,
        nsd=sum(shares) / count if count else math.nan,
        num_true_positive=len(matched),
        num_false_negative=len(lesions.reference) - len(matched),
        num_false_positive=num_false_positive,
        large=large,
        small=small,
    )


def best_matches(lesions: Pair) -> dict[int, tuple[int, float]]:
    """Predicted number and Dice by reference number, one to one, of largest sum."""
    if not len(lesions.overlaps):
        return {}
    # only lesions that overlap anything can be matched
    rows, at_row = np.unique(lesions.overlaps[:, 0], return_inverse=True)
    columns, at_column = np.unique(lesions.overlaps[:, 1], return_inverse=True)
    dices = np.zeros((len(rows), len(columns)))
    for i, j, (real, predicted, common) in zip(
        at_row, at_column, lesions.overlaps, strict=True
    ):
        sizes = lesions.reference[real - 1], lesions.predicted[predicted - 1]
        dices[i, j] = 2 * common / sum(lesion.num_voxels for lesion in sizes)
    # the package's costs, so that ties fall as there
    cost = np.where(dices >= 1e-6, 1.0 - dices, 1.0 + 1e-6)
    return {
        int(rows[i]): (int(columns[j]), float(dices[i, j]))
        for i, j in zip(*linear_sum_assignment(cost), strict=True)
        if cost[i, j] < 1.0
    }


def dilate_18(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Grow a mask by its 18 neighbours (faces and edges, not corners)."""
    along = [_dilate_line(mask, axis) for axis in range(3)]
    larger = _dilate_line(along[0], 1)  # the three coordinate squares, joined
    larger |= _dilate_line(along[1], 2)
    larger |= _dilate_line(along[2], 0)
    return larger


def _voxel_scores(
    lesions: Pair, real: Lesion, predicted: Lesion
) -> tuple[float, float]:
    """HD95 [mm] and NSD of two lesions as panoptica measures them."""
    box = union(real.box, predicted.box)
    between = surface.voxel_distances(
        lesions.predicted_numbers[box] == predicted.index,
        lesions.reference_numbers[box] == real.index,
        spacing_mm=lesions.spacing_mm,
    )
    tolerance_mm = min(lesions.spacing_mm)
    return (
        surface.pooled_percentile(between),
        surface.mean_surface_share(between, tolerance_mm=tolerance_mm),
    )


def _dilate_line(mask: np.ndarray, axis: int) -> np.ndarray:
    larger = mask.copy()
    source, target = np.moveaxis(mask, axis, 0), np.moveaxis(larger, axis, 0)
    target[1:] |= source[:-1]
    target[:-1] |= source[1:]
    return larger
