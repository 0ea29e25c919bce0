"""Which affine a NIfTI header gives: its sform, else its qform, else its voxel size.

The qform is the standard's method 2, the sform its method 3
(https://nifti.nimh.nih.gov/nifti-1).
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bmjax.data.grids import max_shift_vox
from bmjax.data.streams import fault

Affine = Float[np.ndarray, "4 4"]
MAX_COSINE = 1e-3  # of the angle between two axes; headers round to about 1e-6
_MAX_EXCESS = 1e-6  # of a unit quaternion's length, for the same reason
_MAX_MM = 1e9  # a thousand kilometres; beyond it is no scanner


def affine_of(
    path: Path, fields: Any, size: tuple[int, int, int]
) -> tuple[Affine, tuple[str, ...]]:
    """The affine of a header, and what is odd about it.

    Args:
      path: the file, for the error.
      fields: of the header, by name.
      size: voxels along z, y, x.

    Raises:
      ValueError: it gives no place to the voxels.
    """
    remarks: tuple[str, ...] = ()
    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    qform = qform_of(fields) if has_qform else None
    if has_sform:
        affine = np.eye(4)
        affine[:3] = [fields[f"srow_{axis}"] for axis in "xyz"]
    elif qform is not None:
        affine = qform
    elif has_qform:
        raise fault(
            path,
            "its qform is no rotation, and it has no sform, so that left and right are "
            "not known",
            "correct the header",
        )
    else:
        affine = _affine_of_voxels(fields, size)
        remarks += ("neither sform nor qform; orientation assumed from the voxel size",)
    _require_volume(path, affine)
    if has_sform and has_qform and qform is None:
        remarks += ("its qform is no rotation and is not used",)
    if qform is not None and max_shift_vox(affine, qform, size) > 0.1:
        remarks += (
            f"sform {_rows(affine)} and qform {_rows(qform)} differ; the sform is used",
        )
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine > MAX_COSINE:
        angle_deg = np.degrees(np.arccos(min(cosine, 1.0)))
        remarks += (
            f"sheared: two of its axes meet at {angle_deg:.4g} degrees; its voxels are "
            "taken as rectangular",
        )
    return affine, remarks


def qform_of(fields: Any) -> Affine | None:
    """The qform of a header; None where its numbers are no rotation."""
    quaternion = [float(fields[f"quatern_{part}"]) for part in "bcd"]
    fac, *voxel_mm = (float(value) for value in fields["pixdim"][:4])
    origin_mm = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
    numbers = np.array([*quaternion, *voxel_mm, *origin_mm])
    is_sound = np.isfinite(numbers).all() and np.abs(numbers).max() < _MAX_MM
    if not is_sound or min(voxel_mm) < 0:
        return None
    rest = 1 - np.square(quaternion).sum()
    if rest < -_MAX_EXCESS:
        return None
    a, b, c, d = np.array([np.sqrt(max(rest, 0.0)), *quaternion])
    affine = np.eye(4)
    affine[:3, :3] = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ]
    voxel_mm[2] *= -1 if fac < 0 else 1  # 0 stands for 1, and so does what is odd
    affine[:3, :3] *= voxel_mm
    affine[:3, 3] = origin_mm
    return affine


def _affine_of_voxels(fields: Any, size: tuple[int, int, int]) -> Affine:
    """Of the voxel size alone: x to the left, the volume about the origin (nibabel)."""
    x, y, z = (float(value) for value in fields["pixdim"][1:4])
    step_mm = np.array([-x, y, z if int(fields["dim"][0]) > 2 else 1.0])
    if not np.isfinite(step_mm).all():
        return np.full((4, 4), np.nan)
    affine = np.diag([*step_mm, 1.0])
    affine[:3, 3] = -(np.array(size[::-1]) - 1) / 2 * step_mm
    return affine


def _require_volume(path: Path, affine: Affine) -> None:
    if not np.abs(affine).max() < _MAX_MM:  # nor is it where there is a NaN
        raise fault(path, f"impossible affine {_rows(affine)}", "correct the header")
    scale = np.linalg.norm(affine[:3, :3], axis=0)
    if not (scale > 0).all() or abs(np.linalg.det(affine[:3, :3] / scale)) < 1e-4:
        raise fault(path, f"singular affine {_rows(affine)}", "correct the header")


def _rows(affine: Affine) -> str:
    return np.array2string(affine[:3], precision=4).replace("\n", "")
