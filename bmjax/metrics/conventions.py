"""What each column of an evaluation means, in words: conventions.json."""

from collections.abc import Sequence

_SURFELS = "surface elements at voxel corners, weighted by area (DeepMind)"
_VOXELS = "border voxels (6-connected), unweighted"
_ONE_EMPTY = "inf where one mask is empty, undefined where both are"
OVERLAP = {
    "dice": "2 tp / (2 tp + fp + fn), voxels of the region in the case",
    "iou": "tp / (tp + fp + fn)",
    "sensitivity": "tp / (tp + fn); undefined where the reference is empty",
    "specificity": "tn / (tn + fp) over the whole volume, background included",
    "precision": "tp / (tp + fp); undefined where the prediction is empty",
    "accuracy": "(tp + tn) / all voxels of the volume, background included",
}
COUNTS = {
    "tp": "voxels in prediction and reference",
    "fp": "voxels in the prediction only",
    "fn": "voxels in the reference only",
    "tn": "voxels in neither, of the whole volume",
}
VOLUMES = {
    "reference_ml": "reference volume: voxels x voxel volume [ml]",
    "predicted_ml": "predicted volume: voxels x voxel volume [ml]",
}
SURFACE = {
    "hd_surfel": f"Hausdorff distance [mm]: largest distance between {_SURFELS}; "
    f"{_ONE_EMPTY}",
    "hd95_surfel": f"95 % Hausdorff distance [mm] between {_SURFELS}: per direction "
    "the first distance within which 95 % of the area lies, then the larger; "
    "DeepMind's robust Hausdorff, BraTS 2023, and the transfer study's table; "
    f"{_ONE_EMPTY}",
    "assd_surfel": f"average symmetric surface distance [mm] between {_SURFELS}: mean "
    f"over both surfaces together; {_ONE_EMPTY}",
    "hd_voxel": f"Hausdorff distance [mm] between {_VOXELS}; {_ONE_EMPTY}",
    "hd95_monai": f"95 % Hausdorff distance [mm] between {_VOXELS}: larger of the "
    f"interpolated percentiles of the two directions, as MONAI; {_ONE_EMPTY}",
    "hd95_panoptica": f"95 % Hausdorff distance [mm] between {_VOXELS}: interpolated "
    f"percentile of both directions pooled, as panoptica and medpy; {_ONE_EMPTY}",
    "hd95_to_mask": "95 % Hausdorff distance [mm] from border voxels (26-connected) to "
    "the other mask, 0 inside it, larger of the two interpolated percentiles, as "
    "BrainMetaSeg's later script; undefined where one mask is empty, 0 where both are",
    "assd_monai": f"average symmetric surface distance [mm] between {_VOXELS}: mean "
    f"over both surfaces together, as MONAI; {_ONE_EMPTY}",
    "assd_panoptica": f"average symmetric surface distance [mm] between {_VOXELS}: "
    f"mean of the two directions' means, as panoptica; {_ONE_EMPTY}",
}
_NSD_SURFEL = (
    "normalised surface distance (surface Dice) at {} mm of "
    f"{_SURFELS}: share of both surfaces together within it of the other; 0 where one "
    "mask is empty, undefined where both are"
)
_NSD_VOXEL = (
    "normalised surface distance (surface Dice) at {} mm of "
    f"{_VOXELS}, as MONAI; 0 where one mask is empty, undefined where both are"
)
LESIONS = {
    "reference_lesions": "26-connected components of the reference region",
    "found_lesions": "reference lesions of which at least one voxel is predicted",
    "false_positive_lesions": "predicted 26-connected components that hold no "
    "reference voxel, whatever their size",
    "lesionwise_dice_brats2023": "BraTS-METS 2023: near reference lesions merged by an "
    "18-connected dilation of one voxel, each scored with the predicted components "
    "that meet its dilation; sum of Dice / (lesions above 2 mm3 + false positives); "
    "1 where there is neither",
    "lesionwise_hd95_brats2023": "BraTS-METS 2023: the same for hd95_surfel [mm], "
    "374 mm for each missed lesion above 2 mm3 and each false positive; 0 where there "
    "is neither",
    "tp_brats2023": "merged reference lesions above 2 mm3 that a component meets",
    "fp_brats2023": "predicted components that meet no lesion, whatever their size",
    "fn_brats2023": "merged reference lesions above 2 mm3 that no component meets",
    "lesionwise_dice_bratseval": "brats-evaluation 0.0.10: components matched one to "
    "one for the largest sum of Dice; mean over reference lesions of 20 mm3 or more "
    "and all false positives, 0 for those without a match; undefined without such a "
    "lesion",
    "lesionwise_hd95_bratseval": "brats-evaluation: the same for hd95_panoptica [mm], "
    "373 mm for those without a match",
    "lesionwise_nsd_bratseval": "brats-evaluation: the same for panoptica's NSD at the "
    "smallest voxel size (mean of the two surfaces' shares), 0 without a match",
    "tp_bratseval": "brats-evaluation: matched couples, whatever their size and Dice",
    "fp_bratseval": "brats-evaluation: predicted components without a match",
    "fn_bratseval": "brats-evaluation: reference components without a match",
    "large_found_bratseval": "brats-evaluation: reference lesions of 20 mm3 or more "
    "whose match has a Dice of 0.1 or more",
    "large_missed_bratseval": "brats-evaluation: the other ones of 20 mm3 or more",
    "small_found_bratseval": "brats-evaluation: the same for lesions below 20 mm3",
    "small_missed_bratseval": "brats-evaluation: the other ones below 20 mm3",
    "rq": "recognition quality of lesions as instances, tp / (tp + fp/2 + fn/2), which "
    "is their F1; couples of IoU >= 0.5, best first, each component once, as "
    "panoptica's default; undefined without any lesion",
    "sq": "segmentation quality: mean IoU of those couples; undefined without any",
    "pq": "panoptic quality rq x sq; 0 with lesions and no couple, undefined without "
    "any lesion",
}
TABLES = {
    "is_prediction_empty": "1 where no voxel of any label is predicted",
    "lesions.csv": "one row per reference lesion and region: volume [mm3], diameter of "
    "the sphere of that volume [mm], centre in RAS+ world coordinates [mm], found (any "
    "common voxel), Dice with the union of the predicted components that touch it; and "
    "one row per false-positive component (kind = false positive). confidence (where "
    "there are probabilities): of a reference lesion the highest probability of the "
    "candidates that touch it, 0 without; of a false positive its highest probability",
    "size bins": "by equivalent diameter; a bin holds its lower end",
    "detection": "share of reference lesions with any common voxel; false positives "
    "per case and per patient hold no reference voxel",
    "froc": "candidates: 26-connected components of probability >= 0.1, with their "
    "highest probability as confidence; a lesion is found by a candidate that shares a "
    "voxel; rate: false candidates per case; score: mean sensitivity at 1/4, 1/2, 1, "
    "2, 4, 8 of them, linear between operating points; area: under the curve up to 8, "
    "over 8",
    "agreement": "of predicted_ml and reference_ml over cases: Bland-Altman bias "
    "(predicted - reference) with 95 % confidence interval (Student) and limits of "
    "agreement (bias +- 1.96 sd); icc: two-way, absolute agreement, single "
    "measurement, ICC(A,1) = ICC(2,1), with 95 % confidence interval",
    "n": "cases in which the metric is a finite number; mean, sd, median, ci95 are of "
    "these",
    "n_infinite": "cases in which a distance is infinite because one of the masks is "
    "empty: no mean of distances holds them",
    "sd": "n - 1 in the denominator",
    "ci95": "95 % confidence interval of the mean by Student's t over cases, not "
    "clipped to the range of the quantity",
}


def nsd_names(tolerances_mm: Sequence[float]) -> dict[str, str]:
    """The surface Dice columns at these tolerances, with their definitions."""
    return {
        f"nsd_{kind}_{tolerance:g}mm": text.format(f"{tolerance:g}")
        for tolerance in tolerances_mm
        for kind, text in (("surfel", _NSD_SURFEL), ("voxel", _NSD_VOXEL))
    }


def metric_names(tolerances_mm: Sequence[float]) -> tuple[str, ...]:
    """Every metric of a case and region, in the order of the tables."""
    groups = (OVERLAP, COUNTS, VOLUMES, SURFACE, nsd_names(tolerances_mm), LESIONS)
    return tuple(name for group in groups for name in group)


def definitions(tolerances_mm: Sequence[float]) -> dict[str, str]:
    """The definition of every column."""
    measured = OVERLAP | COUNTS | VOLUMES | SURFACE | nsd_names(tolerances_mm) | LESIONS
    return measured | TABLES
