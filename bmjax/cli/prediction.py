"""The verbs on a trained network: predict, bundle and explain."""

from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console

import bmjax
from bmjax.cli.output import (
    FAILED,
    OK,
    USAGE,
    AsFlags,
    Positional,
    complain,
    print_result,
)
from bmjax.console import ticking
from bmjax.data.cases import find_cases
from bmjax.inference.outputs import Outputs
from bmjax.prediction import one_exam
from bmjax.runs import read_split

_PLAIN = Outputs()
_VOLUME = ".nii.gz"


def predict(
    model: Positional[Path],
    /,
    *,
    out: Path,
    images: Path | None = None,
    t1c: Path | None = None,
    t1n: Path | None = None,
    t2w: Path | None = None,
    t2f: Path | None = None,
    cases: tuple[str, ...] = (),
    folds: tuple[int, ...] = (),
    preset: Literal["fast", "accurate"] | None = None,
    tta: Literal["none", "flips"] | None = None,
    overlap: float | None = None,
    batch_size: int | None = None,
    convention: Literal["nnunet", "monai"] | None = None,
    empty_windows: Literal["once", "each"] | None = None,
    outputs: Annotated[Outputs, AsFlags] = _PLAIN,
    checkpoint: Literal["best", "last"] = "best",
    overwrite: bool = False,
    allow_missing: bool = False,
    resample_to: str | None = None,
    zero_nonfinite: bool = False,
    allow_outside: bool = False,
    allow: tuple[str, ...] = (),
) -> int:
    """Write a label file, in the input's own geometry, for each case.

    What it will take is printed first. The same command goes on where it was stopped.

    Args:
      model: run folder, folder of fold_0, fold_1, ... or a bundle.
      out: folder for CASE.nii.gz; of one exam, a .nii.gz file or a folder.
      images: folder of cases, or a CSV manifest; labels are not needed.
      t1c: one exam instead of --images: its T1 after contrast.
      t1n: its T1 without contrast.
      t2w: its T2.
      t2f: its T2 FLAIR.
      cases: ids of the cases wanted, or `held-out` for those of the run; all if none.
      folds: networks to average, by number; all if none.
      preset: fast: the first fold, no flips, windows overlap by a quarter; accurate:
        all folds, flips, overlap of half; neither: all folds as the run says.
      tta: average each window over its mirrored copies (flips), or not.
      overlap: share of a window that its neighbour covers again.
      batch_size: windows that a device computes together.
      convention: whose grid of windows and Gaussian weights.
      empty_windows: windows without content pass the network once for all, or each.
      outputs: what is written beside the label files.
      checkpoint: which one of each run.
      overwrite: replace what another network or setting left in the folder.
      allow_missing: also predict cases that lack a sequence; for networks trained with
        --augment.p-drop-channel.
      resample_to: channel on whose grid the others are resampled where they lie on
        another; the label file has that grid.
      zero_nonfinite: take NaN and infinite voxels for 0 instead of refusing them.
      allow_outside: follow links and paths that lead out of the folder of cases.
      allow: packages outside bmjax that a network of your own comes from.
    """
    files = {"t1c": t1c, "t1n": t1n, "t2w": t2w, "t2f": t2f}
    exam = {channel: path for channel, path in files.items() if path is not None}
    if bool(exam) == (images is not None):
        complain("give --images, or the files of one exam (--t1c --t1n --t2w --t2f)")
        return USAGE
    found: Any = images
    if exam:
        found, out = _exam(exam, out, resample_to, zero_nonfinite)
    if cases == ("held-out",):
        split = read_split(model)
        if split is None:
            raise ValueError(
                f"{model}: does not say which cases were held out; only a run folder "
                "with split.json does. Name the cases"
            )
        cases = tuple(split["val"])
    window = {
        "flips": {"none": "none", "flips": "all", None: None}[tta],
        "overlap": overlap,
        "batch_size": batch_size,
        "convention": convention,
        "empty": empty_windows,
    }
    console = Console(stderr=True)
    with ticking(console, "predicting") as tick:
        results = bmjax.predict(
            model,
            images=found,
            out=out,
            cases=cases or None,
            folds=folds or None,
            preset=preset,
            window={name: v for name, v in window.items() if v is not None},
            outputs=outputs,
            checkpoint=checkpoint,
            overwrite=overwrite,
            allow_missing=allow_missing,
            resample_to=resample_to,
            zero_nonfinite=zero_nonfinite,
            allow_outside=allow_outside,
            allow=allow,
            announce=lambda text: console.print(text, markup=False, soft_wrap=True),
            progress=tick,
        )
    for result in results:
        if result.error is not None:
            complain(f"{result.case}: {result.error}")
        for warning in result.warnings:
            console.print(f"{result.case}: {warning}", markup=False, soft_wrap=True)
    failed = sum(result.error is not None for result in results)
    print_result(f"{len(results) - failed} cases predicted, {failed} failed: {out}")
    return FAILED if failed else OK


def bundle(
    model: Positional[Path],
    /,
    *,
    out: Path | None = None,
    verify: bool = False,
    folds: tuple[int, ...] = (),
    checkpoint: Literal["best", "last"] = "best",
    allow: tuple[str, ...] = (),
) -> int:
    """Make one file of a trained model to pass on, or check such a file.

    It holds the weights of all folds, experiment, plan, label table, versions, hashes
    and a model card. Reading it runs nothing of it and unpacks nothing to disk.

    Args:
      model: run folder or folder of fold_0, fold_1, ...; with --verify a bundle.
      out: file to write, such as MODEL.bmjax.
      verify: compare every member with its hash and print what it holds.
      folds: which to take, by number; all if none.
      checkpoint: which one of each run.
      allow: packages outside bmjax that a network of your own comes from.
    """
    from bmjax import prediction

    if verify == (out is not None):
        complain("give --out MODEL.bmjax to make a bundle, or --verify to check one")
        return USAGE
    if out is None:
        print_result(prediction.verify(model))
        return OK
    made = prediction.bundle(
        model, out=out, folds=folds or None, checkpoint=checkpoint, allow=allow
    )
    print_result(str(made))
    return OK


def _exam(
    exam: dict[str, Path], out: Path, resample_to: str | None, zero_nonfinite: bool
) -> tuple[list[Any], Path]:
    """One exam as a case, and the folder of its label file."""
    case = "exam"
    if out.name.endswith(_VOLUME):
        case, out = out.name.removesuffix(_VOLUME), out.parent
    elif out.suffix == ".nii":
        raise ValueError(f"{out}: label files are compressed; call it {out.name}.gz")
    found = one_exam(
        exam, case=case, resample_to=resample_to, zero_nonfinite=zero_nonfinite
    )
    return [found], out


def explain(
    model: Positional[Path],
    /,
    *,
    out: Path,
    images: Path | None = None,
    case: str | None = None,
    t1c: Path | None = None,
    t1n: Path | None = None,
    t2w: Path | None = None,
    t2f: Path | None = None,
    region: str | None = None,
    at_mm: tuple[float, float, float] | None = None,
    method: tuple[Literal["gradients", "gradcam", "occlusion"], ...] = (),
    layer: str | None = None,
    num_steps: int = 32,
    fold: int | None = None,
    checkpoint: Literal["best", "last"] = "best",
    allow: tuple[str, ...] = (),
) -> int:
    """Write maps of what speaks for one predicted lesion, in the input's geometry.

    They show what moves this network, not what causes the disease.

    Args:
      model: run folder, folder of fold_0, fold_1, ... or a bundle.
      out: folder for CASE_REGION_METHOD.nii.gz and CASE_REGION_explain.json.
      images: folder of cases, or a CSV manifest.
      case: id of the exam in it.
      t1c: one exam instead of --images and --case: its T1 after contrast.
      t1n: its T1 without contrast.
      t2w: its T2.
      t2f: its T2 FLAIR.
      region: such as ET; the one of the most labels if not given.
      at_mm: X Y Z in RAS millimetres, as in CASE_lesions.csv: the nearest predicted
        lesion is explained; the largest if not given.
      method: integrated gradients, Grad-CAM, occlusion by modality; all if none.
      layer: of Grad-CAM; the deepest stage of the encoder if not given.
      num_steps: of integrated gradients.
      fold: which network, by number; the first if not given.
      checkpoint: which one of the run.
      allow: packages outside bmjax that a network of your own comes from.
    """
    from bmjax.ensemble import read_ensemble
    from bmjax.explanation import METHODS
    from bmjax.explanation import explain as door

    files = {"t1c": t1c, "t1n": t1n, "t2w": t2w, "t2f": t2f}
    exam = {channel: path for channel, path in files.items() if path is not None}
    if bool(exam) == (images is not None) or (images is None) != (case is None):
        complain("give --images and --case, or the files of one exam (--t1c ...)")
        return USAGE
    if images is not None and case is not None:
        plan = read_ensemble(model, checkpoint=checkpoint, allow=allow).plan
        (found,) = find_cases(images, channels=plan.channels, ids=[case])
    else:
        found = one_exam(exam, case="exam")
    made = door(
        model,
        case=found,
        out=out,
        region=region,
        at_mm=at_mm,
        method=method or METHODS,
        layer=layer,
        num_steps=num_steps,
        fold=fold,
        checkpoint=checkpoint,
        allow=allow,
    )
    print_result(str(made))
    return OK
