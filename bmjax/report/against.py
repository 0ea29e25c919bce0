"""The page of several evaluations of the same cases, such as of 2-D and 3-D nets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bmjax.report import sections
from bmjax.report.comparison import write_comparison_report
from bmjax.report.sources import read_evaluation


def write_against_report(
    evaluations: Sequence[str | Path], out: str | Path, *, figures: Path | None = None
) -> Path:
    """Write one page that compares evaluations, the first with each of the others.

    Cases are shown with the predictions of all, hardest for the first one first.

    Args:
      evaluations: folders made by `bmjax evaluate --out`, of the same cases.
      out: the page.
      figures: folder for every chart as PNG and PDF, if wanted.

    Raises:
      FileNotFoundError: a folder is no evaluation.
      ValueError: they are not of the same cases and regions, or one is named twice.
    """
    folders = dict(zip(_names(evaluations), map(Path, evaluations), strict=True))
    read = {name: read_evaluation(folder) for name, folder in folders.items()}
    (first, own), *others = read.items()
    cases = {row["case"] for row in own.rows}
    for name, other in others:
        odd = sorted(cases ^ {row["case"] for row in other.rows})
        if odd:
            raise ValueError(
                f"{folders[first]} and {folders[name]} hold other cases, such as "
                f"{', '.join(odd[:3])}; evaluate the same ones (bmjax evaluate --cases)"
            )
        if own.regions != other.regions:
            raise ValueError(
                f"{folders[first]} and {folders[name]} hold the regions "
                f"{', '.join(own.regions)} and {', '.join(other.regions)}; evaluate "
                "both by the same labels"
            )
    shown = [
        replace(
            case,
            predictions={
                name: found.files[case.case].prediction
                for name, found in read.items()
                if case.case in found.files
            },
            maps={},
            scores={},  # of all, from their tables
            spots=(),
        )
        for case in sections.hardest_first(own, name=first)
    ]
    return write_comparison_report(
        out,
        title=" against ".join(read),
        subtitle=f"The same {len(cases)} cases.",
        evaluations=folders,
        cases=shown[: sections.MAX_CASES],
        figures=figures,
    )


def _names(evaluations: Sequence[str | Path]) -> list[str]:
    """Each folder's name; where two are alike, that of the folder above it, too."""
    paths = [Path(folder).resolve() for folder in evaluations]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"{', '.join(twice)} is named twice; an evaluation is compared with others"
        )
    return names
