"""The page of one evaluation folder."""

from pathlib import Path

from bmjax.report import sections
from bmjax.report.page import Page, Section
from bmjax.report.sources import read_evaluation


def write_evaluation_report(evaluation: str | Path, out: str | Path) -> Path:
    """Write one self-contained page of an evaluation.

    Args:
      evaluation: folder made by `bmjax evaluate --out`.
      out: the page.

    Raises:
      FileNotFoundError: it is no evaluation folder.
    """
    folder = Path(evaluation)
    files = read_evaluation(folder)
    cases = sections.hardest_first(files, name="prediction")
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
            sections.cases_section(cases),
            Section(title="Definitions", blocks=(sections.conventions_details(files),)),
        ),
        footer="Research use only; not a medical device. Made by bmjax.",
    )
    return page.write(out)
