"""The page of one evaluation folder."""

from pathlib import Path

from bmjax.report import provenance, sections
from bmjax.report.page import Page, Section
from bmjax.report.sources import read_evaluation, read_json

HASHED = ("cases.csv", "lesions.csv", "froc.csv", "summary.json", "conventions.json")


def write_evaluation_report(
    evaluation: str | Path, out: str | Path, *, figures: Path | None = None
) -> Path:
    """Write one self-contained page of an evaluation.

    Args:
      evaluation: folder made by `bmjax evaluate --out`.
      out: the page.
      figures: folder for every chart as PNG and PDF, if wanted.

    Raises:
      FileNotFoundError: it is no evaluation folder.
    """
    folder = Path(evaluation)
    files = read_evaluation(folder)
    cases = sections.hardest_first(files, name="prediction")
    predicted = {known.prediction.parent for known in files.files.values()}
    records = [read_json(parent / "predict.json") for parent in sorted(predicted)]
    page = Page(
        title=f"Evaluation {folder.resolve().name}",
        subtitle=f"{files.summary['num_evaluated']} of "
        f"{files.summary['num_expected']} cases evaluated",
        sections=(
            Section(
                title="Summary",
                blocks=(sections.headline(files),) if files.rows else (),
            ),
            sections.results_section(files, title="Results"),
            sections.lesions_section(files),
            sections.cases_section(cases, order=", hardest first"),
            Section(
                title="Provenance",
                blocks=(
                    *provenance.of_prediction(records[0] if records else {}),
                    *provenance.of_files([folder / name for name in HASHED]),
                    provenance.versions(),
                    sections.conventions_details(files),
                ),
            ),
        ),
        bound=sections.BOUND,
    )
    return page.write(out, figures=figures)
