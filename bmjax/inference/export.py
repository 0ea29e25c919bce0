"""From logits on the network's grid to files on the scanner's grid.

As nnU-Net: logits are resampled linearly, then thresholded. One slice at a time, so
that of full size there is never more than the labels, or one map.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from scipy.ndimage import gaussian_filter

from bmjax.data import nifti
from bmjax.data.geometry import Geometry, restore_axes, slices_on_grid, uncrop
from bmjax.inference import slicer, uncertainty
from bmjax.inference.lesion_table import lesion_rows, write_lesions
from bmjax.inference.outputs import Map, Outputs
from bmjax.metrics.lesions import components, measure
from bmjax.planning.plan import Plan

LABELS_ALONE = Outputs()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written for a case.

    Attributes:
      volumes_ml: volume of each region [ml].
      files: those beside the label file.
      remarks: what was changed about the prediction, in words.
    """

    volumes_ml: dict[str, float]
    files: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()


def paint(
    probs: Float[np.ndarray, "*s k"], plan: Plan, *, threshold: float = 0.5
) -> UInt8[np.ndarray, "*s"]:
    """Label map of the predicted regions; later regions overwrite earlier ones.

    Args:
      probs: probability of each region of the plan, in order.
      plan: the label painted for each region.
      threshold: a region is predicted above it; 0 for logits.
    """
    if probs.shape[-1] != len(plan.paint):
        raise ValueError(
            f"{probs.shape[-1]} channels of probabilities do not fit the plan's "
            f"{len(plan.paint)} regions {[name for name, _ in plan.regions]}"
        )
    labels = np.zeros(probs.shape[:-1], np.uint8)
    for channel, value in enumerate(plan.paint):
        labels[probs[..., channel] > threshold] = value
    return labels


def cropped_labels(
    logits: Float[np.ndarray, "f z y x k"],
    geometry: Geometry,
    plan: Plan,
    *,
    outputs: Outputs = LABELS_ALONE,
) -> UInt8[np.ndarray, "u v w"]:
    """Label map of the cropped native grid, in the plan's axes.

    Args:
      logits: of each fold, or their mean.
      geometry: how the case was preprocessed.
      plan: the regions and their labels.
      outputs: how folds are averaged.
    """
    if logits.shape[-1] != len(plan.paint):
        raise ValueError(
            f"{geometry.source}: {logits.shape[-1]} channels of logits do not fit the "
            f"plan's {len(plan.paint)} regions {[name for name, _ in plan.regions]}"
        )
    labels = np.empty(geometry.size_after_crop, np.uint8)
    is_logit = outputs.average == "logits" or len(logits) == 1
    for z, planes in enumerate(_fold_planes(logits, geometry)):
        # a sigmoid is above one half where its logit is above zero
        if is_logit:
            scores = planes[0] if len(planes) == 1 else planes.mean(0)
        else:
            scores = uncertainty.sigmoid(planes).mean(0)
        labels[z] = paint(scores, plan, threshold=0 if is_logit else 0.5)
    return labels


def region_volumes_ml(
    labels: UInt8[np.ndarray, "z y x"], plan: Plan, *, voxel_mm3: float
) -> dict[str, float]:
    """Volume of each region of a label map [ml]."""
    voxels = np.bincount(labels[labels > 0], minlength=256)
    return {
        name: float(voxels[list(members)].sum() * voxel_mm3 / 1000)
        for name, members in plan.regions
    }


def export_case(
    logits: Float[np.ndarray, "f z y x k"],
    geometry: Geometry,
    plan: Plan,
    path: Path,
    *,
    outputs: Outputs = LABELS_ALONE,
) -> Exported:
    """Write the files of a case, each complete or not at all, the label file last.

    Args:
      logits: of the preprocessed case, of each fold or their mean.
      geometry: how the case was preprocessed.
      plan: the regions and their labels.
      path: the label file; it gets exactly the source's shape, affine and codes.
      outputs: what else is written.
    """
    if outputs.smooth_mm:
        logits = _smoothed(logits, geometry, outputs.smooth_mm)
    labels = cropped_labels(logits, geometry, plan, outputs=outputs)
    remarks: tuple[str, ...] = ()
    if outputs.min_volume_mm3:
        remarks = remove_small(labels, geometry, outputs.min_volume_mm3)
    files = outputs.files(path, [name for name, _ in plan.regions])
    remaining = iter(files)
    for kind in outputs.maps:
        for channel in range(len(plan.regions)):
            volume = _map(kind, logits[..., channel : channel + 1], geometry, outputs)
            _write(next(remaining), volume, geometry)
    if outputs.lesions == "csv":
        rows = lesion_rows(
            labels,
            geometry,
            plan,
            probability=lambda channel: (
                uncertainty.mean_probability(planes, average=outputs.average)
                for planes in _region_planes(logits, geometry, channel)
            ),
        )
        write_lesions(next(remaining), rows)
    whole = uncrop(restore_axes(labels, geometry), geometry)
    if outputs.slicer == "seg.nrrd":
        slicer.write_segmentation(
            next(remaining),
            whole,
            affine=np.array(geometry.affine),
            labels=plan.labels,
        )
    elif outputs.slicer == "colours":
        slicer.write_colours(path.with_name("labels.ctbl"), plan.labels)
    _write(path, whole, geometry)
    return Exported(
        volumes_ml=region_volumes_ml(whole, plan, voxel_mm3=_voxel_mm3(geometry)),
        files=files,
        remarks=remarks,
    )


def remove_small(
    labels: UInt8[np.ndarray, "z y x"], geometry: Geometry, min_volume_mm3: float
) -> tuple[str, ...]:
    """Set predicted lesions below a volume to background, and say what that was.

    Args:
      labels: cropped label map, in the plan's axes; changed in place.
      geometry: its voxel size.
      min_volume_mm3: of a 26-connected component of all labels together [mm3].
    """
    numbered = components(labels > 0)
    found = measure(numbered, spacing_mm=geometry.spacing_mm)
    small = [lesion for lesion in found if lesion.volume_mm3 < min_volume_mm3]
    for lesion in small:
        labels[lesion.box][numbered[lesion.box] == lesion.index] = 0
    if not small:
        return ()
    total_mm3 = sum(lesion.volume_mm3 for lesion in small)
    return (
        f"{len(small)} of {len(found)} predicted lesions were below "
        f"{min_volume_mm3:g} mm3 and were removed, {total_mm3:.4g} mm3 in all",
    )


def _fold_planes(
    logits: Float[np.ndarray, "f z y x k"], geometry: Geometry
) -> Iterator[Float[np.ndarray, "f v w k"]]:
    folds = [slices_on_grid(fold, geometry) for fold in logits]
    for planes in zip(*folds, strict=True):
        first, *others = planes
        yield np.stack(planes) if others else first[None]


def _region_planes(
    logits: Float[np.ndarray, "f z y x k"], geometry: Geometry, channel: int
) -> Iterator[Float[np.ndarray, "f v w"]]:
    for planes in _fold_planes(logits[..., channel : channel + 1], geometry):
        yield planes[..., 0]


def _map(
    kind: Map,
    logits: Float[np.ndarray, "f z y x 1"],
    geometry: Geometry,
    outputs: Outputs,
) -> Float[np.ndarray, "_ _ _"]:
    """One map on the whole native grid; 0 outside the crop, where nothing was seen."""

    def probability(planes: Float[np.ndarray, "f v w"]) -> Float[np.ndarray, "v w"]:
        return uncertainty.mean_probability(planes, average=outputs.average)

    value: dict[Map, Callable[[np.ndarray], np.ndarray]] = {
        "probability": probability,
        "entropy": lambda planes: uncertainty.entropy_bits(probability(planes)),
        "disagreement": uncertainty.disagreement,
    }
    volume = np.empty(geometry.size_after_crop, np.float32)
    for z, planes in enumerate(_region_planes(logits, geometry, 0)):
        volume[z] = value[kind](planes)
    return uncrop(restore_axes(volume, geometry), geometry)


def _smoothed(
    logits: Float[np.ndarray, "f z y x k"], geometry: Geometry, sigma_mm: float
) -> Float[np.ndarray, "f z y x k"]:
    sigma = [sigma_mm / spacing for spacing in geometry.new_spacing_mm]
    return gaussian_filter(logits, (0, *sigma, 0))


def _write(path: Path, volume: Shaped[np.ndarray, "z y x"], geometry: Geometry) -> None:
    nifti.write_like(
        path, volume, source=Path(geometry.source), orientation=geometry.orientation
    )


def _voxel_mm3(geometry: Geometry) -> float:
    return float(abs(np.linalg.det(np.array(geometry.affine)[:3, :3])))
