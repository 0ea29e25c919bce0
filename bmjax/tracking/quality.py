"""Checks each scan, and each pair of scans that follow each other, before tracking."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bmjax.data import grids, nifti
from bmjax.tracking.motion import Movement
from bmjax.tracking.observation import Observation
from bmjax.tracking.timepoints import Timepoint

MAX_GAP_DAYS = 400
MAX_SPACING_MM = 1e-3  # two spacings are the same up to this
MOVED_MM, MIN_MOVED = 3.0, 3
Severity = Literal["blocking", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a scan or a pair of scans that a reader should know.

    Attributes:
      patient: whose scan.
      visit: which, or the later of a pair.
      earlier: the other one of a pair, empty for a single scan.
      check: name of the check.
      severity: a blocking one takes the scan out; the others do not.
      message: what was found, and what to do.
    """

    patient: str
    visit: str
    earlier: str = ""
    check: str
    severity: Severity
    message: str


def check_scan(
    point: Timepoint, scan: nifti.Scan, seen: Observation, *, min_volume_mm3: float
) -> list[Finding]:
    """What is odd about one scan."""
    findings = []

    def add(check: str, severity: Severity, message: str) -> None:
        findings.append(
            Finding(
                patient=point.patient,
                visit=point.visit,
                check=check,
                severity=severity,
                message=message,
            )
        )

    if not scan.array.any():
        add("empty", "warning", "holds no label at all")
    elif not seen.lesions:
        add("no lesion", "note", "holds no lesion of the region that is tracked")
    if seen.num_small:
        add(
            "small",
            "note",
            f"{seen.num_small} components below {min_volume_mm3:g} mm3 left out",
        )
    return findings


def check_pair(
    points: tuple[Timepoint, Timepoint],
    scans: tuple[nifti.Scan, nifti.Scan],
) -> list[Finding]:
    """What is odd about two scans that follow each other."""
    before, after = points
    findings = []

    def add(check: str, severity: Severity, message: str) -> None:
        findings.append(
            Finding(
                patient=after.patient,
                visit=after.visit,
                earlier=before.visit,
                check=check,
                severity=severity,
                message=message,
            )
        )

    first, second = scans
    by_world = "compared in world millimetres, so the scans must be registered"
    if first.array.shape != second.array.shape:
        sizes = f"{first.array.shape} and {second.array.shape} voxels (z, y, x)"
        add("size", "note", f"{sizes}; {by_world}")
    if not np.allclose(
        first.spacing_mm, second.spacing_mm, rtol=0, atol=MAX_SPACING_MM
    ):
        spacings = f"{_text(first.spacing_mm)} and {_text(second.spacing_mm)} mm"
        add("spacing", "note", f"{spacings}; {by_world}")
    grid, other = ((scan.array.shape, scan.affine) for scan in scans)
    if grid[0] == other[0] and not grids.is_one_grid(grid, other):
        add("place", "note", f"the affines differ; {by_world}")
    if np.array_equal(first.array, second.array) and first.array.any():
        add(
            "duplicate",
            "warning",
            f"every voxel is that of {before.path.name}; is it a copy?",
        )
    if before.day and after.day:
        days = (after.day - before.day).days
        if days > MAX_GAP_DAYS:
            add("gap", "warning", f"{days} days apart, more than {MAX_GAP_DAYS}")
        if _number(after.visit) < _number(before.visit):
            add(
                "order",
                "warning",
                f"dated later than visit {before.visit}, but numbered before it; the "
                "dates were followed",
            )
    return findings


def check_movement(
    points: tuple[Timepoint, Timepoint],
    moved_mm: list[tuple[float, float, float]],
    moved: Movement,
) -> list[Finding]:
    """Whether the lesions moved together, as they do where scans are not registered.

    Args:
      points: the earlier and the later scan.
      moved_mm: movement of each matched lesion, without that of the patient [mm].
      moved: movement of the patient that was allowed for.
    """
    before, after = points
    if not moved.is_still:
        severity = "note"
        text = f"the patient moved by {_text(moved.shift_mm)} mm (x, y, z)"
        if moved.angle_deg:
            text += f" and turned by {moved.angle_deg:.3g} degrees"
        message = f"{text}, by the lesions; that was allowed for"
    else:
        if len(moved_mm) < MIN_MOVED:
            return []
        together = np.median(moved_mm, axis=0)
        if np.linalg.norm(together) <= MOVED_MM:
            return []
        severity = "warning"
        message = (
            f"lesions moved together by {_text(together)} mm (x, y, z): are the scans "
            "registered? register them, or track with --motion-mm and --motion-deg"
        )
    return [
        Finding(
            patient=after.patient,
            visit=after.visit,
            earlier=before.visit,
            check="movement",
            severity=severity,
            message=message,
        )
    ]


def _text(values: tuple[float, ...] | np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _number(visit: str) -> int:
    return int(visit) if visit.isdecimal() else 0
