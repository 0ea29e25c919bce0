"""The outcome of tracking: its tables, and how they are written."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bmjax.data import streams
from bmjax.data.tables import write_csv
from bmjax.tracking.quality import Finding

CONVENTIONS = {
    "lesion": "a connected component of the region, unless it is too small",
    "track": "PATIENT_T0001: one lesion through time, numbered by appearance and size",
    "volume_mm3": "voxels times their size; 0 at visits where the lesion is not there",
    "centre_x_mm": "centre of mass in RAS+ world coordinates; y and z likewise",
    "matched": "one lesion is the other, by the largest sum of 1000 overlap_mm3 + "
    "10 dice + 1 / (1 + centre_mm + surface_mm / 2) over one-to-one couples; two are "
    "a couple where they overlap, their centres lie within max_centre_mm or "
    "their surfaces within max_surface_mm",
    "surface_mm": "smallest distance between voxels of the two; 0 where they overlap",
    "merged": "at least min_share of the earlier lesion lies in a later one that is "
    "matched to another",
    "split": "at least min_share of the later lesion lies in an earlier one that is "
    "matched to another; the piece begins a track",
    "reappeared": "matched across visits at which it was missing, at most max_gap",
    "resolved": "an earlier lesion that is none of these; new: a later one",
    "nadir_mm3": "smallest volume at any visit before; blank at the first",
    "is_above_nadir": "volume_mm3 >= ratio x nadir_mm3, and grown by min_increase_mm3",
    "is_progression": "the visit at which is_above_nadir begins",
    "sum of a patient": "of all lesions at a visit; its progression is by the same "
    "rule; a new lesion, which RANO-BM counts as well, has its own column",
    "days": "where only the month is known, from its first day",
}


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """What came out, as plain rows.

    Attributes:
      lesions: one dict per lesion and visit.
      matches: one dict per event between two visits.
      tracks: one dict per lesion through time.
      visits: one dict per scan, with the sum of its lesions.
      findings: of the quality control.
      settings: what it was made with: criteria, versions, files.
    """

    lesions: tuple[dict[str, Any], ...]
    matches: tuple[dict[str, Any], ...]
    tracks: tuple[dict[str, Any], ...]
    visits: tuple[dict[str, Any], ...]
    findings: tuple[Finding, ...]
    settings: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every scan could be used."""
        return not any(f.severity == "blocking" for f in self.findings)

    def write(self, out: Path) -> None:
        """Write all tables into a folder; each file appears complete."""
        for name in ("lesions", "matches", "tracks", "visits"):
            write_csv(out / f"{name}.csv", getattr(self, name))
        write_csv(out / "quality.csv", [asdict(finding) for finding in self.findings])
        for name, content in (
            ("tracking", self.settings),
            ("conventions", CONVENTIONS),
        ):
            text = json.dumps(content, indent=1)
            streams.write_pieces(out / f"{name}.json", [text.encode() + b"\n"])
