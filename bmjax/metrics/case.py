"""Every measure of one case, from two label volumes on one grid."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from bmjax.metrics import lesions, overlap

CONVENTIONS = {
    "dice": "2 tp / (2 tp + fp + fn), voxels of the region in the case",
    "iou": "tp / (tp + fp + fn)",
    "sensitivity": "tp / (tp + fn); undefined where the reference is empty",
    "specificity": "tn / (tn + fp) over the whole volume, background included",
    "precision": "tp / (tp + fp); undefined where the prediction is empty",
    "accuracy": "(tp + tn) / all voxels of the volume, background included",
    "reference_ml": "reference volume: voxels x voxel volume [ml]",
    "predicted_ml": "predicted volume: voxels x voxel volume [ml]",
    "reference_lesions": "26-connected components of the reference region",
    "found_lesions": "reference lesions of which at least one voxel is predicted",
    "false_positive_lesions": "predicted 26-connected components that hold no "
    "reference voxel, whatever their size",
    "lesionwise_dice_brats2023": "BraTS-METS 2023: near reference lesions merged by an "
    "18-connected dilation of one voxel, each scored with the predicted components "
    "that meet its dilation; sum of Dice / (lesions above 2 mm3 + false positives); "
    "1 where there is neither",
    "lesions.csv": "one row per reference lesion and region: volume [mm3], diameter of "
    "the sphere of that volume [mm], centre in RAS+ world coordinates [mm], found (any "
    "common voxel), Dice with the union of the predicted components that touch it; and "
    "one row per false-positive component (kind = false positive)",
    "size bins": "by equivalent diameter; a bin holds its lower end",
    "sd": "n - 1 in the denominator",
    "ci95": "95 % confidence interval of the mean by Student's t over cases, not "
    "clipped to the range of the quantity",
}
OVERLAP_COLUMNS = ("dice", "iou", "sensitivity", "specificity", "precision", "accuracy")
VOLUME_COLUMNS = ("reference_ml", "predicted_ml")
LESION_COLUMNS = (
    "reference_lesions",
    "found_lesions",
    "false_positive_lesions",
    "lesionwise_dice_brats2023",
)
METRICS = (*OVERLAP_COLUMNS, *VOLUME_COLUMNS, *LESION_COLUMNS)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All measures of one case.

    Attributes:
      measures: value of each metric (see `CONVENTIONS`) by region.
      lesions: one dict per reference lesion or false positive: region, kind,
        volume_mm3, diameter_mm, size_bin, is_found, dice, centre_vox (z y x).
    """

    measures: dict[str, dict[str, float | int]]
    lesions: tuple[dict[str, Any], ...]


def compare(
    prediction: Integer[np.ndarray, "z y x"],
    reference: Integer[np.ndarray, "z y x"],
    *,
    regions: Mapping[str, tuple[int, ...]],
    lesion_regions: tuple[str, ...],
    spacing_mm: tuple[float, float, float],
    both_empty: float = overlap.NAN,
) -> Comparison:
    """Measure a prediction, in one pass over the box that holds both.

    Args:
      prediction: predicted labels, 0 is background.
      reference: reference labels, 0 is background.
      regions: label values of each region.
      lesion_regions: regions whose components are lesions.
      spacing_mm: voxel size, z y x [mm].
      both_empty: value of Dice, IoU, sensitivity, precision where both are empty.
    """
    inside = (prediction > 0) | (reference > 0)
    box = bounding_box(inside)
    predicted, real = prediction[box], reference[box]
    num_labels = 1 + max(max(values) for values in regions.values())
    table = overlap.confusion(predicted, real, num_labels=num_labels)
    num_outside = inside.size - predicted.size
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    measures: dict[str, dict[str, float | int]] = {}
    rows = []
    for name, values in regions.items():
        counts = overlap.region_counts(table, labels=values, num_outside=num_outside)
        measures[name] = {
            "dice": float(overlap.dice(counts, both_empty=both_empty)),
            "iou": float(overlap.iou(counts, both_empty=both_empty)),
            "sensitivity": float(overlap.sensitivity(counts, both_empty=both_empty)),
            "specificity": float(overlap.specificity(counts)),
            "precision": float(overlap.precision(counts, both_empty=both_empty)),
            "accuracy": float(overlap.accuracy(counts)),
            "reference_ml": (counts.tp + counts.fn) * voxel_ml,
            "predicted_ml": (counts.tp + counts.fp) * voxel_ml,
        }
        if name in lesion_regions:
            masks = np.isin(predicted, values), np.isin(real, values)
            matching = lesions.match(*masks, spacing_mm=spacing_mm)
            challenge = lesions.brats_mets_2023(*masks, spacing_mm=spacing_mm)
            measures[name] |= {
                "reference_lesions": len(matching.matches),
                "found_lesions": sum(m.is_found for m in matching.matches),
                "false_positive_lesions": len(matching.false_positives),
                "lesionwise_dice_brats2023": challenge.dice,
            }
            rows += [{"region": name, **row} for row in _lesion_rows(matching, box)]
    return Comparison(measures=measures, lesions=tuple(rows))


def bounding_box(inside: Bool[np.ndarray, "z y x"]) -> tuple[slice, slice, slice]:
    """Smallest box around the voxels inside, with a margin of one voxel."""
    slices = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(inside.any(axis=others))
        low, high = (where[0], where[-1]) if where.size else (0, 0)
        slices.append(slice(max(int(low) - 1, 0), int(high) + 2))
    z, y, x = slices
    return z, y, x


def _lesion_rows(
    matching: lesions.Matching, box: tuple[slice, slice, slice]
) -> list[dict[str, Any]]:
    rows = []
    for kind, lesion, is_found, dice in [
        *(("reference", m.lesion, m.is_found, m.dice) for m in matching.matches),
        *(("false positive", p, False, math.nan) for p in matching.false_positives),
    ]:
        rows.append(
            {
                "kind": kind,
                "volume_mm3": lesion.volume_mm3,
                "diameter_mm": lesion.diameter_mm,
                "size_bin": lesions.size_bin(lesion.diameter_mm),
                "is_found": is_found,
                "dice": dice,
                "centre_vox": tuple(
                    centre + axis.start
                    for centre, axis in zip(lesion.centre_vox, box, strict=True)
                ),
            }
        )
    return rows
