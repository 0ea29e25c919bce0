"""Every measure of one case, from two label volumes on one grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from bmjax.metrics import challenge, detection, instances, lesions, overlap, surface
from bmjax.metrics.boxes import bounding_box, inner_box

Measures = dict[str, float | int]
TOLERANCES_MM = (1.0,)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All measures of one case.

    Attributes:
      measures: value of each metric (see `conventions`) by region.
      lesions: one dict per reference lesion or false positive: region, kind,
        volume_mm3, diameter_mm, size_bin, volume_bin, is_found, dice, centre_vox
        (z y x), and confidence where there are probabilities.
      confidences: of the lesions and false candidates, by region with probabilities.
    """

    measures: dict[str, Measures]
    lesions: tuple[dict[str, Any], ...]
    confidences: dict[str, detection.Confidences] = field(default_factory=dict)


def compare(
    prediction: Integer[np.ndarray, "z y x"],
    reference: Integer[np.ndarray, "z y x"],
    *,
    regions: Mapping[str, tuple[int, ...]],
    lesion_regions: tuple[str, ...],
    spacing_mm: tuple[float, float, float],
    probs: Mapping[str, Float[np.ndarray, "z y x"]] | None = None,
    both_empty: float = overlap.NAN,
    tolerances_mm: Sequence[float] = TOLERANCES_MM,
) -> Comparison:
    """Measure a prediction, in one pass over the box that holds both.

    Args:
      prediction: predicted labels, 0 is background.
      reference: reference labels, 0 is background.
      regions: label values of each region.
      lesion_regions: regions whose components are lesions.
      spacing_mm: voxel size, z y x [mm].
      probs: probability of each region, for those where it is known.
      both_empty: value of Dice, IoU, sensitivity, precision where both are empty.
      tolerances_mm: of the surface Dice [mm].
    """
    probs = probs or {}
    inside = (prediction > 0) | (reference > 0)
    box = bounding_box(inside)
    predicted, real = prediction[box], reference[box]
    num_labels = 1 + max(max(values) for values in regions.values())
    table = overlap.confusion(predicted, real, num_labels=num_labels)
    num_outside = inside.size - predicted.size
    measures: dict[str, Measures] = {}
    rows: list[dict[str, Any]] = []
    confidences: dict[str, detection.Confidences] = {}
    for name, values in regions.items():
        counts = overlap.region_counts(table, labels=values, num_outside=num_outside)
        masks = np.isin(predicted, values), np.isin(real, values)
        own = bounding_box(masks[0] | masks[1])
        within = masks[0][own], masks[1][own]
        measures[name] = {
            **_overlap_measures(counts, spacing_mm=spacing_mm, both_empty=both_empty),
            **_surface_measures(
                *within, spacing_mm=spacing_mm, tolerances_mm=tolerances_mm
            ),
        }
        if name not in lesion_regions:
            continue
        pair = lesions.pair(*within, spacing_mm=spacing_mm)
        matching = lesions.match(pair)
        measures[name] |= _lesion_measures(pair, matching)
        own = inner_box(box, own)
        own_rows = _lesion_rows(matching, start=[axis.start for axis in own])
        if name in probs:
            found = detection.confidences(probs[name], np.isin(reference, values))
            confidences[name] = found
            _add_confidence(own_rows, found, pair, matching, probs[name][own])
        rows += [{"region": name, **row} for row in own_rows]
    return Comparison(measures=measures, lesions=tuple(rows), confidences=confidences)


def _overlap_measures(
    counts: overlap.Counts,
    *,
    spacing_mm: tuple[float, float, float],
    both_empty: float,
) -> Measures:
    voxel_ml = float(np.prod(spacing_mm)) / 1000.0
    return {
        "dice": float(overlap.dice(counts, both_empty=both_empty)),
        "iou": float(overlap.iou(counts, both_empty=both_empty)),
        "sensitivity": float(overlap.sensitivity(counts, both_empty=both_empty)),
        "specificity": float(overlap.specificity(counts)),
        "precision": float(overlap.precision(counts, both_empty=both_empty)),
        "accuracy": float(overlap.accuracy(counts)),
        **counts._asdict(),
        "reference_ml": (counts.tp + counts.fn) * voxel_ml,
        "predicted_ml": (counts.tp + counts.fp) * voxel_ml,
    }


def _surface_measures(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
    tolerances_mm: Sequence[float],
) -> Measures:
    masks = prediction, reference
    surfels = surface.surfel_distances(*masks, spacing_mm=spacing_mm)
    voxels = surface.voxel_distances(*masks, spacing_mm=spacing_mm)
    kinds = {"surfel": surfels, "voxel": voxels}
    return {
        "hd_surfel": surface.hausdorff(surfels),
        "hd95_surfel": surface.weighted_hausdorff(surfels),
        "assd_surfel": surface.pooled_mean(surfels),
        "hd_voxel": surface.hausdorff(voxels),
        "hd95_monai": surface.larger_percentile(voxels),
        "hd95_panoptica": surface.pooled_percentile(voxels),
        "hd95_to_mask": surface.hd95_to_mask(*masks, spacing_mm=spacing_mm),
        "assd_monai": surface.pooled_mean(voxels),
        "assd_panoptica": surface.mean_of_means(voxels),
        **{
            f"nsd_{kind}_{mm:g}mm": surface.surface_dice(distances, tolerance_mm=mm)
            for mm in tolerances_mm
            for kind, distances in kinds.items()
        },
    }


def _lesion_measures(pair: lesions.Pair, matching: lesions.Matching) -> Measures:
    of_2023 = challenge.brats_mets_2023(pair)
    successor = challenge.brats_evaluation(pair)
    quality = instances.quality(pair)
    return {
        "reference_lesions": len(matching.matches),
        "found_lesions": sum(m.is_found for m in matching.matches),
        "false_positive_lesions": len(matching.false_positives),
        "lesionwise_dice_brats2023": of_2023.dice,
        "lesionwise_hd95_brats2023": of_2023.hd95_mm,
        "tp_brats2023": of_2023.num_true_positive,
        "fp_brats2023": of_2023.num_false_positive,
        "fn_brats2023": of_2023.num_false_negative,
        "lesionwise_dice_bratseval": successor.dice,
        "lesionwise_hd95_bratseval": successor.hd95_mm,
        "lesionwise_nsd_bratseval": successor.nsd,
        "tp_bratseval": successor.num_true_positive,
        "fp_bratseval": successor.num_false_positive,
        "fn_bratseval": successor.num_false_negative,
        "large_found_bratseval": successor.large.num_true_positive,
        "large_missed_bratseval": successor.large.num_false_negative,
        "small_found_bratseval": successor.small.num_true_positive,
        "small_missed_bratseval": successor.small.num_false_negative,
        "rq": quality.recognition,
        "sq": quality.segmentation,
        "pq": quality.panoptic,
    }


def _lesion_rows(
    matching: lesions.Matching, *, start: Sequence[int]
) -> list[dict[str, Any]]:
    """One row per reference lesion, then one per false positive."""
    return [
        {
            "kind": kind,
            "volume_mm3": lesion.volume_mm3,
            "diameter_mm": lesion.diameter_mm,
            "size_bin": lesions.size_bin(lesion.diameter_mm),
            "volume_bin": lesions.volume_bin(lesion.volume_mm3),
            "is_found": is_found,
            "dice": dice,
            "centre_vox": tuple(
                centre + first
                for centre, first in zip(lesion.centre_vox, start, strict=True)
            ),
        }
        for kind, lesion, is_found, dice in [
            *(("reference", m.lesion, m.is_found, m.dice) for m in matching.matches),
            *(("false positive", p, False, math.nan) for p in matching.false_positives),
        ]
    ]


def _add_confidence(
    rows: list[dict[str, Any]],
    found: detection.Confidences,
    pair: lesions.Pair,
    matching: lesions.Matching,
    probs: Float[np.ndarray, "z y x"],
) -> None:
    """Of each reference lesion that of its candidates, of the others their own."""
    numbers = [p.index for p in matching.false_positives]
    highest = ndimage.maximum(probs, pair.predicted_numbers, numbers) if numbers else ()
    for row, value in zip(rows, [*found.lesions, *highest], strict=True):
        row["confidence"] = float(value)
