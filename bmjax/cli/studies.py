"""The verbs of `bmjax study`: whole studies, and what their scores say."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from bmjax.cli.output import OK, Positional, print_result
from bmjax.study.scores import METRICS, STARTS


def statistics(
    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DIR")],
    /,
    *,
    out: Path,
    as_published: bool = False,
    metrics: tuple[str, ...] = METRICS,
    starts: tuple[str, str] = STARTS,
    by: str = "",
    allow_missing: bool = False,
    seed: int = 0,
    json: bool = False,
) -> int:
    """Compare trained models on the same test cases, from their score tables.

    Paired by case, in the direction of each score, corrected by Holm, with effect sizes
    and their intervals, and in words. Writes tables (CSV, LaTeX), figures (PNG, PDF)
    and a page.

    Args:
      folder: of scores_MODEL_START.csv, as BrainMetaSeg has them; or of tables of
        `bmjax evaluate`, named in the same way. With lesions_MODEL_START.csv beside
        them, missed lesions are counted by size.
      out: folder to write to.
      as_published: the statistics of Luu et al. (2024) instead, faults and all.
      metrics: quantities to compare; the fewer, the milder the correction.
      starts: endings of the files' names that are compared with each other.
      by: column of text to describe the cases by as well, such as primary.
      allow_missing: compare on the cases that all tables have, where they differ.
      seed: of the bootstrap.
      json: print everything as JSON.
    """
    from bmjax.study.statistics import write_statistics

    found = write_statistics(
        folder,
        out,
        as_published=as_published,
        metrics=metrics,
        starts=starts,
        by=by,
        allow_missing=allow_missing,
        seed=seed,
    )
    print_result(found.to_dict() if json else "\n".join(found.sentences))
    return OK


VERBS: dict[str, Callable[..., int]] = {"statistics": statistics}


def study(argv: Sequence[str] = ()) -> int:
    """Run a whole study, or say what its scores show; see `bmjax study --help`.

    Args:
      argv: a verb of the study, and its flags.
    """
    return tyro.extras.subcommand_cli_from_dict(
        VERBS, prog="bmjax study", description=study.__doc__, args=argv
    )
