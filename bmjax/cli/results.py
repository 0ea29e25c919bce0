"""The verbs on a trained network: predict and evaluate."""

import json as codec
from pathlib import Path
from typing import Literal

from rich.console import Console

import bmjax
from bmjax.cli.output import (
    FAILED,
    OK,
    Positional,
    complain,
    print_evaluation,
    print_result,
)
from bmjax.console import ticking


def predict(
    run: Positional[Path],
    /,
    *,
    images: Path,
    out: Path,
    cases: tuple[str, ...] = (),
    checkpoint: Literal["best", "last"] = "best",
    overwrite: bool = False,
    allow_missing: bool = False,
    resample_to: str | None = None,
    zero_nonfinite: bool = False,
    allow_outside: bool = False,
    allow: tuple[str, ...] = (),
) -> int:
    """Write a label file, in the input's own geometry, for each case.

    Args:
      run: run folder.
      images: folder of cases, or a CSV manifest; labels are not needed.
      out: folder for CASE.nii.gz.
      cases: ids of the cases wanted, or `held-out` for those of the run; all if none.
      checkpoint: which one of the run.
      overwrite: replace what another network or setting left in the folder.
      allow_missing: also predict cases that lack a sequence; for networks trained with
        --augment.p-drop-channel.
      resample_to: channel on whose grid the others are resampled where they lie on
        another; the label file has that grid.
      zero_nonfinite: take NaN and infinite voxels for 0 instead of refusing them.
      allow_outside: follow links and paths that lead out of the folder of cases.
      allow: packages outside bmjax that a network of your own comes from.
    """
    if cases == ("held-out",):
        cases = tuple(codec.loads((run / "split.json").read_text())["val"])
    with ticking(Console(stderr=True), "predicting") as tick:
        results = bmjax.predict(
            run,
            images=images,
            out=out,
            cases=cases or None,
            checkpoint=checkpoint,
            overwrite=overwrite,
            allow_missing=allow_missing,
            resample_to=resample_to,
            zero_nonfinite=zero_nonfinite,
            allow_outside=allow_outside,
            allow=allow,
            progress=tick,
        )
    for result in results:
        if result.error is not None:
            complain(f"{result.case}: {result.error}")
        elif allow_missing and result.warnings:
            complain(f"{result.case}: {'; '.join(result.warnings)}")
    failed = sum(result.error is not None for result in results)
    print_result(f"{len(results) - failed} cases predicted, {failed} failed: {out}")
    return FAILED if failed else OK


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
