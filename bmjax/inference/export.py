"""From logits on the network's grid to a label file on the scanner's grid.

As nnU-Net: logits are resampled linearly, then thresholded. A sigmoid is above one
half where its logit is above zero, so no sigmoid is taken. One slice at a time, so that
nothing of full size but the labels is made.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from bmjax.data import nifti
from bmjax.data.geometry import Geometry, restore_axes, slices_on_grid, uncrop
from bmjax.planning.plan import Plan


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


def native_labels(
    logits: Float[np.ndarray, "z y x k"], geometry: Geometry, plan: Plan
) -> UInt8[np.ndarray, "_ _ _"]:
    """Label map on the whole grid of the source image, turned as it was read."""
    if logits.shape[-1] != len(plan.paint):
        raise ValueError(
            f"{geometry.source}: {logits.shape[-1]} channels of logits do not fit the "
            f"plan's {len(plan.paint)} regions {[name for name, _ in plan.regions]}"
        )
    labels = np.empty(geometry.size_after_crop, np.uint8)
    for z, plane in enumerate(slices_on_grid(logits, geometry)):
        labels[z] = paint(plane, plan, threshold=0)
    return uncrop(restore_axes(labels, geometry), geometry)


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
    logits: Float[np.ndarray, "z y x k"], geometry: Geometry, plan: Plan, path: Path
) -> dict[str, float]:
    """Write the label file of a case, complete or not at all.

    Args:
      logits: of the preprocessed case.
      geometry: how the case was preprocessed.
      plan: the regions and their labels.
      path: the file to write; it gets exactly the source's shape, affine and codes.

    Returns:
      The volume of each region [ml].
    """
    labels = native_labels(logits, geometry, plan)
    nifti.write_like(
        path, labels, source=Path(geometry.source), orientation=geometry.orientation
    )
    voxel_mm3 = float(abs(np.linalg.det(np.array(geometry.affine)[:3, :3])))
    return region_volumes_ml(labels, plan, voxel_mm3=voxel_mm3)
