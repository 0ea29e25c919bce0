"""The page of lesions through time: patients, lesions, progression, quality."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax.report import provenance
from bmjax.report.course_charts import lesion_chart, patient_chart
from bmjax.report.page import (
    Block,
    Cell,
    Details,
    Facts,
    Figure,
    Grid,
    Headline,
    Number,
    Page,
    Section,
    Table,
    Text,
)
from bmjax.report.sources import flat, read_csv, read_json
from bmjax.report.tables import DASH, number

TABLES = ("visits", "tracks", "lesions", "matches", "quality")
MAX_PATIENTS, MAX_LESIONS = 24, 60
Rows = Sequence[Mapping[str, Any]]
KEY = (
    "Ring: progression begins, at {ratio:g} times the smallest volume so far (dashed "
    "in the plots of single lesions). Cross: the lesion is not there. Wide grey line: "
    "all lesions together."
)


def write_tracking_report(
    folder: str | Path, out: str | Path, *, figures: Path | None = None
) -> Path:
    """Write one self-contained page of tracked lesions.

    Args:
      folder: folder made by `bmjax track --out`.
      out: the page.
      figures: folder for the plot of every patient and lesion as PNG and PDF.

    Raises:
      FileNotFoundError: it is no such folder.
    """
    folder = Path(folder)
    for name in TABLES:
        if not (folder / f"{name}.csv").is_file():
            raise FileNotFoundError(
                f"{folder}: has no {name}.csv; make it with `bmjax track TIMEPOINTS "
                f"--out {folder}`"
            )
    rows = {name: read_csv(folder / f"{name}.csv") for name in TABLES}
    settings = read_json(folder / "tracking.json")
    ratio = settings["ratio"]
    by_patient = _grouped(rows["visits"], "patient")
    charts = _patient_charts(rows, by_patient)
    lesion_charts = _lesion_charts(rows, by_patient, ratio=ratio)
    if figures is not None:
        for figure in (*charts, *lesion_charts):
            figure.write(figures)
    conventions = tuple(flat(read_json(folder / "conventions.json")).items())
    files = [folder / f"{name}.csv" for name in TABLES]
    page = Page(
        title=f"Lesions through time: {folder.resolve().name}",
        subtitle=f"Region {settings['region']}, components from "
        f"{settings['min_volume_mm3']:g} mm\u00b3 on.",
        sections=(
            Section(title="Summary", blocks=(_headline(rows),)),
            Section(title="Quality of the scans", blocks=_quality(rows["quality"])),
            Section(
                title="Patients",
                blocks=(
                    Text(text=KEY.format(ratio=ratio)),
                    *_limited(charts, MAX_PATIENTS, "patients", 420),
                    _visits_table(rows["visits"]),
                ),
            ),
            Section(
                title="Lesions",
                blocks=(
                    _tracks_table(rows["tracks"]),
                    *_limited(lesion_charts, MAX_LESIONS, "lesions", 300),
                    Details(
                        title="What became of each lesion between two scans",
                        blocks=(_matches_table(rows["matches"]),),
                    ),
                ),
            ),
            Section(
                title="Provenance",
                blocks=(
                    Details(
                        title="Settings",
                        blocks=(Facts(items=tuple(flat(settings).items())),),
                    ),
                    Details(
                        title="Scans (SHA-256, first 32 digits)",
                        blocks=(
                            Facts(
                                items=tuple(
                                    (Path(v["file"]).name, v["sha256"][:32])
                                    for v in rows["visits"]
                                )
                            ),
                        ),
                    ),
                    *provenance.of_files(files),
                    provenance.versions(),
                    Details(
                        title="What the numbers mean",
                        blocks=(Facts(items=conventions),),
                    ),
                ),
            ),
        ),
        bound=f"It shows the plots of at most {MAX_PATIENTS} patients and "
        f"{MAX_LESIONS} lesions.",
    )
    return page.write(out)


def _headline(rows: Mapping[str, Rows]) -> Headline:
    tracks, visits = rows["tracks"], rows["visits"]
    grown = sum(bool(track["progressions"]) for track in tracks)
    counts = {
        kind: sum(match["kind"] == kind for match in rows["matches"])
        for kind in ("new", "resolved", "merged", "split")
    }
    numbers = [
        Number(
            value=str(len({visit["patient"] for visit in visits})),
            name="patients",
            detail=f"{len(visits)} scans",
        ),
        Number(
            value=str(len(tracks)),
            name="lesions followed",
            detail=f"{grown} with progression",
        ),
        Number(value=str(counts["new"]), name="new lesions"),
        Number(value=str(counts["resolved"]), name="resolved"),
        Number(value=f"{counts['merged']} / {counts['split']}", name="merged / split"),
    ]
    return Headline(numbers=tuple(numbers))


def _quality(findings: Rows) -> tuple[Block, ...]:
    if not findings:
        return (Text(text="Nothing odd about any scan or pair of scans."),)
    kinds = {"blocking": "bad", "warning": "bad", "note": "quiet"}
    ranked = sorted(findings, key=lambda f: list(kinds).index(f["severity"]))
    lines = tuple(
        (
            Cell(text=finding["patient"], kind="name", is_number=False),
            Cell(text=_pair(finding["earlier"], finding["visit"]), is_number=False),
            Cell(text=finding["check"], is_number=False),
            Cell(
                text=finding["severity"],
                kind="bad" if kinds[finding["severity"]] == "bad" else "quiet",
                is_number=False,
            ),
            Cell(text=finding["message"], is_number=False),
        )
        for finding in ranked
    )
    columns = ("patient", "visit", "check", "severity", "what was found")
    return (Table(columns=columns, rows=lines),)


def _visits_table(visits: Rows) -> Table:
    lines = []
    for row in visits:
        share = row["volume_mm3"] / row["nadir_mm3"] if row["nadir_mm3"] else None
        lines.append(
            (
                Cell(text=row["patient"], kind="name", is_number=False),
                Cell(text=row["visit"], is_number=False),
                Cell(text=row["date"] or DASH, is_number=False),
                *(
                    Cell(text=number(row[name], digits=0))
                    for name in ("num_lesions", "num_new", "num_resolved")
                ),
                Cell(text=number(row["volume_mm3"] / 1000, digits=2)),
                Cell(text=number(share, digits=2)),
                Cell(text=_progress(row), kind="bad", is_number=False),
            )
        )
    return Table(
        columns=(
            *("patient", "visit", "date", "lesions", "new", "resolved"),
            *("volume [ml]", "volume / nadir", "progression"),
        ),
        rows=tuple(lines),
        caption="Sum of all lesions; progression as RANO-BM means it: growth over the "
        "nadir, or a new lesion.",
    )


def _progress(row: Mapping[str, Any]) -> str:
    reasons = []
    if row["is_progression"]:
        reasons.append("volume")
    if row["has_new_lesion"]:
        reasons.append("new lesion")
    return ", ".join(reasons)


def _tracks_table(tracks: Rows) -> Table:
    lines = []
    for row in tracks:
        origin = f"split from {row['parent']}" if row["parent"] else row["origin"]
        fate = (
            f"merged into {row['merged_into']}" if row["merged_into"] else row["fate"]
        )
        lines.append(
            (
                Cell(text=row["track"], kind="name", is_number=False),
                Cell(text=origin, is_number=False),
                Cell(text=fate, is_number=False),
                Cell(
                    text=_pair(row["first_visit"], row["last_visit"]), is_number=False
                ),
                *(
                    Cell(text=number(row[f"{name}_mm3"], digits=0))
                    for name in ("baseline", "smallest", "largest", "last")
                ),
                Cell(text=row["progressions"], kind="bad", is_number=False),
            )
        )
    return Table(
        columns=(
            *("lesion", "origin", "fate", "seen", "first [mm\u00b3]"),
            *("smallest", "largest", "last", "progression at"),
        ),
        rows=tuple(lines),
    )


def _matches_table(matches: Rows) -> Table:
    lines = tuple(
        (
            Cell(text=row["track"], kind="name", is_number=False),
            Cell(text=_pair(row["from_visit"], row["to_visit"]), is_number=False),
            Cell(text=row["kind"], is_number=False),
            *(
                Cell(text=number(row[name], digits=digits))
                for name, digits in (
                    ("from_volume_mm3", 0),
                    ("to_volume_mm3", 0),
                    ("overlap_mm3", 0),
                    ("dice", 3),
                    ("centre_mm", 1),
                    ("surface_mm", 1),
                )
            ),
        )
        for row in matches
    )
    return Table(
        columns=(
            *("lesion", "visits", "what", "before [mm\u00b3]", "after [mm\u00b3]"),
            *("overlap [mm\u00b3]", "Dice", "centres [mm]", "surfaces [mm]"),
        ),
        rows=lines,
    )


def _patient_charts(
    rows: Mapping[str, Rows], by_patient: Mapping[str, Rows]
) -> list[Figure]:
    lesions = _grouped(rows["lesions"], "patient")
    return [
        patient_chart(patient, _grouped(lesions.get(patient, ()), "track"), visits)
        for patient, visits in by_patient.items()
    ]


def _lesion_charts(
    rows: Mapping[str, Rows], by_patient: Mapping[str, Rows], *, ratio: float
) -> list[Figure]:
    by_track = _grouped(rows["lesions"], "track")
    return [
        lesion_chart(
            track["track"],
            by_track[track["track"]],
            by_patient[track["patient"]],
            ratio=ratio,
        )
        # those that progressed first, as a page shows only so many
        for track in sorted(rows["tracks"], key=lambda track: not track["progressions"])
    ]


def _limited(
    charts: Sequence[Figure], limit: int, what: str, min_width_px: int
) -> list[Block]:
    blocks: list[Block] = []
    if charts:
        blocks.append(Grid(blocks=tuple(charts[:limit]), min_width_px=min_width_px))
    if len(charts) > limit:
        text = f"The first {limit} of {len(charts)} {what}; all of them are files."
        blocks.append(Text(text=text, kind="missing"))
    return blocks


def _grouped(rows: Rows, column: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def _pair(first: str, last: str) -> str:
    return f"{first} to {last}" if first and first != last else last
