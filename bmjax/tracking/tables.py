"""Turns scans and courses into rows: of lesions, events, tracks, visits, findings."""

import hashlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from bmjax.data import nifti
from bmjax.tracking import quality
from bmjax.tracking.course import Course, Event, Track, progression
from bmjax.tracking.motion import Movement
from bmjax.tracking.observation import Observation
from bmjax.tracking.quality import Finding
from bmjax.tracking.result import Tracking
from bmjax.tracking.timepoints import Timepoint


class Tables:
    """Collects the rows of all patients.

    Args:
      ratio: growth over the running nadir that is progression.
      min_increase_mm3: growth below this is none [mm3].
      drop_single: leave out lesions that are seen at one visit only.
    """

    def __init__(
        self, *, ratio: float, min_increase_mm3: float, drop_single: bool
    ) -> None:
        self._rule = {"ratio": ratio, "min_increase_mm3": min_increase_mm3}
        self._drop_single = drop_single
        self._lesions: list[dict[str, Any]] = []
        self._matches: list[dict[str, Any]] = []
        self._tracks: list[dict[str, Any]] = []
        self._visits: list[dict[str, Any]] = []
        self.findings: list[Finding] = []

    def result(self, settings: dict[str, Any]) -> Tracking:
        """Everything so far, with what it was made with."""
        return Tracking(
            lesions=tuple(self._lesions),
            matches=tuple(self._matches),
            tracks=tuple(self._tracks),
            visits=tuple(self._visits),
            findings=tuple(self.findings),
            settings=settings,
        )

    def read(self, points: Sequence[Timepoint]) -> dict[Path, nifti.Scan]:
        """The scans that can be read; the others become findings."""
        scans = {}
        for point in points:
            try:
                scan = nifti.read_labels(point.path)
            except (OSError, ValueError) as error:
                self.findings.append(
                    Finding(
                        patient=point.patient,
                        visit=point.visit,
                        check="readable",
                        severity="blocking",
                        message=f"left out: {error}",
                    )
                )
                continue
            labels = point.reading.map_labels(scan.array)
            scans[point.path] = nifti.Scan(
                labels, scan.affine, scan.spacing_mm, scan.path
            )
        return scans

    def add(
        self,
        points: Sequence[Timepoint],
        scans: Sequence[nifti.Scan],
        seen: Sequence[Observation],
        course: Course,
    ) -> None:
        """Add the rows of a patient."""
        for now, pair in enumerate(itertools.pairwise(points)):
            moved = course.movements[now]
            moved_mm = [
                _moved_mm(track, now, moved)
                for track in course.tracks
                if now in track.lesions and now + 1 in track.lesions
            ]
            self.findings += quality.check_pair(pair, (scans[now], scans[now + 1]))
            self.findings += quality.check_movement(pair, moved_mm, moved)
        tracks = [
            track
            for track in course.tracks
            if len(track.lesions) > 1 or not self._drop_single
        ]
        for track in tracks:
            self._add_track(points, track)
        kept = {track.number for track in tracks}
        events = [event for event in course.events if event.track in kept]
        self._matches += [_match_row(points, seen, event) for event in events]
        self._add_visits(points, scans, tracks, events)

    def _add_track(self, points: Sequence[Timepoint], track: Track) -> None:
        patient = points[0].patient
        volumes = track.volumes_mm3(len(points))
        course = progression(volumes, **self._rule)
        for offset, volume in enumerate(volumes):
            point = points[track.first + offset]
            days, before = None, math.nan
            if offset:
                days = _days(points[track.first + offset - 1], point)
                before = volumes[offset - 1]
            self._lesions.append(
                {
                    **_point_row(point),
                    "track": track_name(patient, track.number),
                    **_lesion_row(track, track.first + offset),
                    "volume_mm3": volume,
                    "volume_cm3": volume / 1000,
                    "days_since_previous": days,
                    "volume_change_mm3": volume - before,
                    "volume_change_share": (volume - before) / before
                    if before
                    else math.nan,
                    "nadir_mm3": course.nadirs_mm3[offset],
                    "is_above_nadir": course.is_above[offset],
                    "is_progression": course.is_onset[offset],
                    "is_new": offset == 0 and track.origin == "new",
                    "track_length": len(track.lesions),
                    "is_single": len(track.lesions) == 1,
                }
            )
        merged = track.merged_into
        onsets = [
            points[track.first + offset].visit
            for offset, is_onset in enumerate(course.is_onset)
            if is_onset
        ]
        if merged:
            fate = "merged"
        else:
            fate = "resolved" if track.last < len(points) - 1 else "present"
        self._tracks.append(
            {
                "patient": patient,
                "track": track_name(patient, track.number),
                "origin": track.origin,
                "parent": track_name(patient, track.parent) if track.parent else "",
                "fate": fate,
                "merged_into": track_name(patient, merged) if merged else "",
                "first_visit": points[track.first].visit,
                "last_visit": points[track.last].visit,
                "track_length": len(track.lesions),
                "baseline_mm3": volumes[0],
                "smallest_mm3": min(volumes),
                "largest_mm3": max(volumes),
                "last_mm3": volumes[-1],
                "progressions": " ".join(onsets),
            }
        )

    def _add_visits(
        self,
        points: Sequence[Timepoint],
        scans: Sequence[nifti.Scan],
        tracks: Sequence[Track],
        events: Sequence[Event],
    ) -> None:
        sums = [
            sum(t.lesions[visit].volume_mm3 for t in tracks if visit in t.lesions)
            for visit in range(len(points))
        ]
        course = progression(sums, **self._rule)
        for visit, (point, scan) in enumerate(zip(points, scans, strict=True)):
            kinds = [event.kind for event in events if event.visits[1] == visit]
            self._visits.append(
                {
                    **_point_row(point),
                    "days_since_first": _days(points[0], point),
                    "num_lesions": sum(visit in t.lesions for t in tracks),
                    "num_new": kinds.count("new"),
                    "num_split": kinds.count("split"),
                    "num_resolved": kinds.count("resolved"),
                    "num_merged": kinds.count("merged"),
                    "volume_mm3": sums[visit],
                    "nadir_mm3": course.nadirs_mm3[visit],
                    "is_above_nadir": course.is_above[visit],
                    "is_progression": course.is_onset[visit],
                    "has_new_lesion": "new" in kinds,
                    "size_zyx": " ".join(map(str, scan.array.shape)),
                    "spacing_zyx_mm": " ".join(f"{s:.6g}" for s in scan.spacing_mm),
                    "file": str(point.path),
                    "sha256": hashlib.sha256(point.path.read_bytes()).hexdigest(),
                }
            )


def track_name(patient: str, number: int) -> str:
    """What a track is called."""
    return f"{patient}_T{number:04d}"


def _point_row(point: Timepoint) -> dict[str, Any]:
    return {
        "patient": point.patient,
        "visit": point.visit,
        "date": point.day.isoformat() if point.day else "",
    }


def _lesion_row(track: Track, visit: int) -> dict[str, Any]:
    """Place and size of the lesion of a track at a visit; blank where it is missing."""
    lesion = track.lesions.get(visit)
    centre: Float[np.ndarray, " 3"] = np.full(3, math.nan)
    low = high = centre
    if lesion is not None:
        centre = lesion.centre_mm
        low, high = lesion.points_mm.min(axis=0), lesion.points_mm.max(axis=0)
    return {
        "lesion": lesion.index if lesion else None,
        "is_present": lesion is not None,
        "num_voxels": lesion.num_voxels if lesion else 0,
        "diameter_mm": lesion.diameter_mm if lesion else 0.0,
        **{
            f"{what}_{axis}_mm": float(values[i])
            for what, values in (("centre", centre), ("min", low), ("max", high))
            for i, axis in enumerate("xyz")
        },
    }


def _days(before: Timepoint, after: Timepoint) -> int | None:
    return (after.day - before.day).days if before.day and after.day else None


def _moved_mm(track: Track, now: int, moved: Movement) -> tuple[float, float, float]:
    """How far a lesion moved from where the patient's movement took it."""
    step = track.lesions[now + 1].centre_mm - moved(track.lesions[now].centre_mm)
    x, y, z = (float(v) for v in step)
    return x, y, z


def _match_row(
    points: Sequence[Timepoint], seen: Sequence[Observation], event: Event
) -> dict[str, Any]:
    before, after = event.visits
    first = seen[before].lesions[event.first - 1] if event.first else None
    second = seen[after].lesions[event.second - 1] if event.second else None
    couple = event.couple
    return {
        "patient": points[0].patient,
        "from_visit": points[before].visit,
        "to_visit": points[after].visit,
        "kind": event.kind,
        "track": track_name(points[0].patient, event.track),
        "from_lesion": event.first or None,
        "to_lesion": event.second or None,
        "from_volume_mm3": first.volume_mm3 if first else None,
        "to_volume_mm3": second.volume_mm3 if second else None,
        "overlap_mm3": couple.overlap_mm3 if couple else None,
        "dice": couple.dice if couple else None,
        "centre_mm": couple.centre_mm if couple else None,
        "surface_mm": couple.surface_mm if couple else None,
    }
