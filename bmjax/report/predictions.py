"""The page of a folder of predictions without reference: what was found where."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmjax.data import nifti
from bmjax.data.cases import CHANNELS, survey
from bmjax.metrics import lesions
from bmjax.planning.labels import BRATS_METS, LabelScheme
from bmjax.report import provenance, sections, tables
from bmjax.report.page import (
    Block,
    Cell,
    Headline,
    Number,
    Page,
    Section,
    Table,
    Text,
)
from bmjax.report.sources import MAP_KINDS, maps_beside, read_json
from bmjax.report.volumes import CaseSources, Spot

SUFFIX = ".nii.gz"


def write_predictions_report(
    predictions: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    figures: Path | None = None,
    scheme: LabelScheme = BRATS_METS,
) -> Path:
    """Write one self-contained page of predictions that nothing is known about.

    Args:
      predictions: folder of CASE.nii.gz label files, as `bmjax predict` leaves it.
      out: the page.
      images: folder or manifest of the images they were made from; without it those
        that predict.json names, and where they are gone the labels on black.
      figures: folder for every chart as PNG and PDF, if wanted.
      scheme: what the labels mean.

    Raises:
      FileNotFoundError: there is no such folder, or no label file in it.
    """
    folder = Path(predictions)
    record = read_json(folder / "predict.json")
    names = predicted_cases(folder)
    failed = [e for e in record.get("cases", []) if e.get("status") == "failed"]
    if not names and not failed:
        raise FileNotFoundError(
            f"{folder}: expected a run, an evaluation or a folder of CASE.nii.gz "
            "predictions, and found no such file; make them with `bmjax predict`"
        )
    known = _named(record) if images is None else _surveyed(images)
    measured: list[tuple[dict[str, Any], CaseSources]] = []
    notes: list[Block] = []
    for name in names:
        try:
            measured.append(_measure(folder, name, known.get(name, {}), scheme))
        except (OSError, ValueError) as error:
            notes.append(Text(text=f"{name}: not shown: {error}", kind="warning"))
    absent = [name for name in names if not known.get(name)]
    if absent:
        where = "predict.json names none that is there" if images is None else images
        remedy = "; name their folder with --images" if images is None else ""
        text = f"No images ({where}) of: {', '.join(absent)}{remedy}."
        notes.append(Text(text=text, kind="missing"))
    rows = [row for row, _ in measured]
    largest_first = sorted(
        measured, key=lambda m: (-_burden(m[0], scheme), m[0]["case"])
    )
    cases = [sources for _, sources in largest_first]
    shown = {sources.case for sources in cases[: sections.MAX_CASES]}
    blocks: list[Block] = [*([_headline(rows, scheme)] if rows else []), *notes]
    if failed:
        blocks.append(
            tables.failures_table(
                [{"case": e["case"], "message": e.get("error", "")} for e in failed]
            )
        )
    page = Page(
        title=f"Predictions {folder.resolve().name}",
        subtitle="No reference: volumes and lesions as predicted, and no scores.",
        sections=(
            Section(title="Summary", blocks=tuple(blocks)),
            Section(
                title="Cases",
                blocks=(_cases_table(rows, scheme, shown),) if rows else (),
            ),
            sections.cases_section(cases, order=", most tumour first"),
            Section(
                title="Provenance",
                blocks=(
                    *provenance.of_prediction(record),
                    *provenance.of_files([folder / "predict.json"]),
                    provenance.versions(),
                ),
            ),
        ),
        bound=sections.BOUND,
    )
    return page.write(out, figures=figures)


def predicted_cases(folder: Path) -> list[str]:
    """Ids of the cases with a label file in a folder; maps beside them are none.

    Raises:
      FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    names = {
        path.name.removesuffix(SUFFIX)
        for path in folder.iterdir()
        if path.name.endswith(SUFFIX) and not path.name.startswith(".")
    }
    kinds = (*(kind.rstrip("*") for kind in MAP_KINDS), "prob_")
    return sorted(n for n in names if not _is_map_of(n, names, kinds))


def _named(record: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """The images that a prediction run says it read, as far as they are there."""
    return {
        entry["case"]: {
            channel: Path(path)
            for channel, path in entry.get("images", {}).items()
            if Path(path).is_file()
        }
        for entry in record.get("cases", [])
    }


def _surveyed(images: str | Path) -> dict[str, dict[str, Path]]:
    """The images of each case in a folder or manifest."""
    return {
        case: {c: found.files[c][0] for c in CHANNELS if c in found.files}
        for case, found in survey(images).found.items()
    }


def _is_map_of(name: str, names: set[str], kinds: Iterable[str]) -> bool:
    return any(
        name.startswith(f"{case}_{kind}")
        for case in names
        if case != name
        for kind in kinds
    )


def _measure(
    folder: Path, name: str, images: dict[str, Path], scheme: LabelScheme
) -> tuple[dict[str, Any], CaseSources]:
    """Volumes and lesions of a case, and its files."""
    path = folder / f"{name}{SUFFIX}"
    scan = nifti.read_labels(path)
    row: dict[str, Any] = {"case": name}
    found: tuple[lesions.Lesion, ...] = ()
    region = ""
    for region, members in scheme.regions:
        mask = np.isin(scan.array, members)
        row[f"ml_{region}"] = lesions.volume_ml(mask, spacing_mm=scan.spacing_mm)
        numbered = lesions.components(mask)
        found = lesions.measure(numbered, spacing_mm=scan.spacing_mm)
        row[f"lesions_{region}"] = len(found)
    spots = []
    for lesion in sorted(found, key=lambda lesion: -lesion.volume_mm3):
        z, y, x = lesion.centre_vox
        x_mm, y_mm, z_mm = (float(v) for v in (scan.affine @ [x, y, z, 1.0])[:3])
        spots.append(
            Spot(
                kind="found",
                region=region,
                centre_mm=(x_mm, y_mm, z_mm),
                volume_mm3=lesion.volume_mm3,
            )
        )
    facts = tuple(
        (f"{r} volume", f"{tables.number(row[f'ml_{r}'], digits=2)} ml")
        for r, _ in scheme.regions
    )
    return row, CaseSources(
        case=name,
        images=images,
        predictions={"prediction": path},
        maps=maps_beside(path, name),
        facts=(*facts, (f"{region} lesions", str(len(found)))),
        spots=tuple(spots),
    )


def _burden(row: dict[str, Any], scheme: LabelScheme) -> float:
    return row[f"ml_{scheme.regions[0][0]}"]


def _headline(rows: Sequence[dict[str, Any]], scheme: LabelScheme) -> Headline:
    first, last = scheme.regions[0][0], scheme.regions[-1][0]
    counts = [row[f"lesions_{last}"] for row in rows]
    empty = sum(_burden(row, scheme) == 0 for row in rows)
    median_ml = float(np.median([_burden(row, scheme) for row in rows]))
    return Headline(
        numbers=(
            Number(value=str(len(rows)), name="cases"),
            Number(
                value=tables.number(median_ml, digits=2),
                name=f"{first} volume [ml]",
                detail="median of the cases",
            ),
            Number(
                value=str(sum(counts)),
                name=f"{last} lesions",
                detail=f"{min(counts)} to {max(counts)} per case",
            ),
            Number(value=str(empty), name="cases where nothing was found"),
        )
    )


def _cases_table(
    rows: Sequence[dict[str, Any]], scheme: LabelScheme, shown: set[str]
) -> Table:
    regions = [name for name, _ in scheme.regions]
    lines = []
    for row in rows:
        case = row["case"]
        link = case if case in shown else ""
        cells = [Cell(text=case, kind="name", is_number=False, case=link)]
        for region in regions:
            cells.append(Cell(text=tables.number(row[f"ml_{region}"], digits=2)))
            cells.append(Cell(text=str(row[f"lesions_{region}"])))
        lines.append(tuple(cells))
    return Table(
        columns=("case", *("volume [ml]", "lesions") * len(regions)),
        rows=tuple(lines),
        groups=(("", 1), *((region, 2) for region in regions)),
        caption="Lesions: 26-connected components of the region.",
    )
