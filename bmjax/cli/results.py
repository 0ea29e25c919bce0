"""The verb on what was predicted: evaluate."""

from pathlib import Path
from typing import Literal

from rich.console import Console

import bmjax
from bmjax.cli.output import (
    FAILED,
    OK,
    Positional,
    print_evaluation,
    print_result,
)
from bmjax.console import ticking


def evaluate(
    predictions: Positional[Path],
    reference: Positional[Path],
    /,
    *,
    out: Path | None = None,
    cases: tuple[str, ...] = (),
    by: tuple[str, ...] = (),
    both_empty: Literal["exclude", "one"] = "exclude",
    tolerances_mm: tuple[float, ...] = (1.0,),
    num_workers: int | None = None,
    json: bool = False,
) -> int:
    """Compare predictions, or a second reader, with reference labels.

    Args:
      predictions: folder of CASE.nii.gz, of CASE_prob_REGION.nii.gz or of nnU-Net's
        CASE.npz; or a second reader's folder of cases or manifest.
      reference: folder of cases, CSV manifest, or folder of label files.
      out: folder for cases.csv, lesions.csv, summary.json and conventions.json.
      cases: ids that must be there; those the prediction was asked for if none.
      by: columns of the manifest to summarise by as well.
      both_empty: leave Dice out where both masks are empty, or take it as one.
      tolerances_mm: of the surface Dice (NSD).
      num_workers: cases compared at the same time.
      json: print the result as JSON.
    """
    with ticking(Console(stderr=True), "evaluating") as tick:
        evaluation = bmjax.evaluate(
            predictions,
            reference,
            out=out,
            cases=cases or None,
            by=by,
            both_empty=both_empty,
            tolerances_mm=tolerances_mm,
            num_workers=num_workers,
            progress=tick,
        )
    if json:
        print_result(evaluation.to_dict())
    else:
        print_evaluation(evaluation)
    return OK if evaluation.ok else FAILED
