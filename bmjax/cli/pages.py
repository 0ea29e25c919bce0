"""The verbs that end in a page: report and track."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from bmjax.cli.output import FAILED, OK, Positional, complain, print_result
from bmjax.console import ticking


def report(
    folder: Positional[Path],
    /,
    *,
    out: Path | None = None,
    images: Path | None = None,
    against: tuple[Path, ...] = (),
    figures: Path | None = None,
    watch: bool = False,
    port: int = 8765,
) -> int:
    """Make one self-contained page of a run, an evaluation, or predictions.

    Args:
      folder: run folder, folder made by `bmjax evaluate --out` or `bmjax track --out`,
        or folder of predictions without reference.
      out: the page; `report.html` in the folder if not given (`against.html` of
        several).
      images: folder or manifest of the images that predictions were made from, if not
        those that their predict.json names.
      against: evaluations of the same cases to compare this one with, such as that of
        a 3-D network with that of a 2-D one.
      figures: folder for every chart of the page as PNG and PDF.
      watch: serve the page of a run in progress, on this machine only, until Ctrl-C.
      port: where it is served; 0 takes a free one.
    """
    from bmjax import report as room

    is_run = (folder / "experiment.json").is_file()
    if watch:
        if not is_run:
            raise ValueError(f"{folder}: is no run folder; only runs can be watched")
        return _watch(folder, port)
    if against:
        out = out or folder / "against.html"
        room.write_against_report([folder, *against], out, figures=figures)
        print_result(str(out))
        return OK
    out = out or folder / "report.html"
    if is_run:
        room.write_run_report(folder, out, figures=figures)
    elif (folder / "cases.csv").is_file():
        room.write_evaluation_report(folder, out, figures=figures)
    elif (folder / "tracking.json").is_file():
        room.write_tracking_report(folder, out, figures=figures)
    else:
        room.write_predictions_report(folder, out, images=images, figures=figures)
    print_result(str(out))
    return OK


def _watch(run: Path, port: int) -> int:
    """Serve the page of a run until Ctrl-C, which is how it is meant to end."""
    from bmjax import report as room

    with room.server(run, port=port) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        Console(stderr=True).print(f"{address} shows the run; Ctrl-C ends")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return OK
    return OK


def track(
    timepoints: Positional[Path],
    /,
    *,
    out: Path,
    region: str = "TC",
    min_volume_mm3: float = 20.0,
    connectivity: Literal[6, 18, 26] = 26,
    max_centre_mm: float = 10.0,
    max_surface_mm: float = 5.0,
    min_share: float = 0.5,
    max_gap: int = 0,
    motion_mm: float = 0.0,
    motion_deg: float = 0.0,
    ratio: float = 1.4,
    min_increase_mm3: float = 0.0,
    drop_single: bool = False,
    maps: bool = False,
    figures: bool = True,
) -> int:
    """Follow lesions through the scans of each patient: new, resolved, merged, grown.

    Args:
      timepoints: CSV manifest with the columns case, patient, visit, date, labels; raw
        folder of cases with labels; or folder of PATIENT-VISIT.nii.gz or
        PATIENT_YYYY-MM.nii.gz label files.
      out: folder for the tables, report.html and figures/.
      region: whose components are lesions: WT, TC or ET.
      min_volume_mm3: smaller components are left out.
      connectivity: neighbours that belong together.
      max_centre_mm: two lesions may be the same where their centres are so near, ...
      max_surface_mm: ... or their surfaces, or where they overlap.
      min_share: of a lesion that must lie in another to have merged with it.
      max_gap: visits in a row at which a lesion may be missing and still be the same.
      motion_mm: longest movement of the patient to look for, where scans are not
        registered.
      motion_deg: widest rotation of the patient to look for with it; from three lesions
        on.
      ratio: growth over the smallest volume so far that is progression.
      min_increase_mm3: growth below this is none.
      drop_single: leave out lesions that are seen at one visit only.
      maps: also write label maps whose values are the numbers of the tracks.
      figures: write the plot of every patient and lesion as PNG and PDF.
    """
    from bmjax import report as room
    from bmjax import tracking

    with ticking(Console(stderr=True), "tracking") as tick:
        result = tracking.track(
            timepoints,
            out=out,
            region=region,
            min_volume_mm3=min_volume_mm3,
            connectivity=connectivity,
            criteria=tracking.Criteria(
                max_centre_mm=max_centre_mm,
                max_surface_mm=max_surface_mm,
                min_share=min_share,
            ),
            max_gap=max_gap,
            motion_mm=motion_mm,
            motion_deg=motion_deg,
            ratio=ratio,
            min_increase_mm3=min_increase_mm3,
            drop_single=drop_single,
            with_maps=maps,
            progress=tick,
        )
    for finding in result.findings:
        if finding.severity == "blocking":
            complain(f"{finding.patient}, visit {finding.visit}: {finding.message}")
    page = out / "report.html"
    if room.can_draw():
        drawn = out / "figures" if figures else None
        room.write_tracking_report(out, page, figures=drawn)
    print_result(str(page if room.can_draw() else out))
    return OK if result.ok else FAILED
