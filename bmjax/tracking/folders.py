"""The door of the room: from label files to the lesions of every patient in time."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np

import bmjax
from bmjax.data import nifti
from bmjax.planning.labels import BRATS_METS, LabelScheme
from bmjax.tracking import quality
from bmjax.tracking.course import Course, follow
from bmjax.tracking.matching import DEFAULT, Criteria
from bmjax.tracking.observation import Observation, observe
from bmjax.tracking.result import Tracking
from bmjax.tracking.tables import Tables
from bmjax.tracking.timepoints import Timepoint, find_timepoints

MIN_VOLUME_MM3 = 20.0  # as in BrainMetaSeg's scripts: a sphere of 3.4 mm
Progress = Callable[[int, int, str], None]


def track(
    timepoints: str | Path,
    *,
    out: str | Path | None = None,
    region: str = "TC",
    scheme: LabelScheme = BRATS_METS,
    min_volume_mm3: float = MIN_VOLUME_MM3,
    connectivity: Literal[6, 18, 26] = 26,
    criteria: Criteria = DEFAULT,
    max_gap: int = 0,
    motion_mm: float = 0.0,
    motion_deg: float = 0.0,
    ratio: float = 1.4,
    min_increase_mm3: float = 0.0,
    drop_single: bool = False,
    with_maps: bool = False,
    progress: Progress | None = None,
) -> Tracking:
    """Follow every lesion of every patient through all of the patient's scans.

    Args:
      timepoints: manifest or folder of label files, see `find_timepoints`.
      out: folder for lesions.csv, matches.csv, tracks.csv, visits.csv, quality.csv,
        tracking.json and conventions.json.
      region: whose components are lesions; oedema would join neighbours, so not WT.
      scheme: what the labels mean.
      min_volume_mm3: smaller components are left out [mm3].
      connectivity: neighbours that belong together: 6, 18 or 26.
      criteria: when two lesions may be the same.
      max_gap: visits in a row at which a lesion may be missing and still be the same.
      motion_mm: longest movement of the patient that is looked for; 0: registered.
      motion_deg: widest rotation that is looked for with it, from three lesions on.
      ratio: growth over the running nadir that is progression.
      min_increase_mm3: growth below this is none [mm3].
      drop_single: leave out lesions that are seen at one visit only.
      with_maps: also write OUT/maps/PATIENT-VISIT.nii.gz, labelled by track.
      progress: called with patients done, patients in all, and the patient just done.

    Raises:
      FileNotFoundError: there is no label file.
      ValueError: the region is unknown, or a file's name says too little.
    """
    members = dict(scheme.regions).get(region)
    if members is None:
        names = ", ".join(name for name, _ in scheme.regions)
        raise ValueError(f"no region {region!r} to track; the labels have {names}")
    if motion_deg > 0 and motion_mm <= 0:
        raise ValueError(
            f"motion_deg {motion_deg:g} needs a motion_mm above 0: who turns is "
            "shifted, too; give the longest movement that is to be looked for"
        )
    if ratio <= 1:
        raise ValueError(f"ratio {ratio} must be greater than 1: growth is progression")
    by_patient = find_timepoints(timepoints)
    tables = Tables(
        ratio=ratio, min_increase_mm3=min_increase_mm3, drop_single=drop_single
    )
    for done, (patient, points) in enumerate(by_patient.items(), start=1):
        scans = tables.read(points)
        kept = [point for point in points if point.path in scans]
        seen = [
            observe(
                np.isin(scans[point.path].array, members),
                scans[point.path].affine,
                min_volume_mm3=min_volume_mm3,
                connectivity=connectivity,
            )
            for point in kept
        ]
        for point, own in zip(kept, seen, strict=True):
            tables.findings += quality.check_scan(
                point, scans[point.path], own, min_volume_mm3=min_volume_mm3
            )
        course = follow(
            seen,
            criteria=criteria,
            max_gap=max_gap,
            motion_mm=motion_mm,
            motion_deg=motion_deg,
        )
        tables.add(kept, [scans[point.path] for point in kept], seen, course)
        if out is not None and with_maps:
            _write_maps(Path(out) / "maps", kept, seen, course)
        if progress is not None:
            progress(done, len(by_patient), patient)
    result = tables.result(
        {
            "bmjax": bmjax.__version__,
            "region": region,
            "labels": list(members),
            "min_volume_mm3": min_volume_mm3,
            "connectivity": connectivity,
            "criteria": asdict(criteria),
            "max_gap": max_gap,
            "motion_mm": motion_mm,
            "motion_deg": motion_deg,
            "ratio": ratio,
            "min_increase_mm3": min_increase_mm3,
            "drop_single": drop_single,
        }
    )
    if out is not None:
        result.write(Path(out))
    return result


def _write_maps(
    folder: Path,
    points: Sequence[Timepoint],
    seen: Sequence[Observation],
    course: Course,
) -> None:
    """Label maps whose values are the numbers of the tracks."""
    for visit, (point, own) in enumerate(zip(points, seen, strict=True)):
        number_of = np.zeros(len(own.lesions) + 1, np.uint16)
        for track in course.tracks:
            if visit in track.lesions:
                number_of[track.lesions[visit].index] = track.number
        path = folder / f"{point.patient}-{point.visit}.nii.gz"
        nifti.write_like(path, number_of[own.numbers], source=point.path)
