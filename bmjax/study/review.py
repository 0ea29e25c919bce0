"""What expert readers look at and fill in: folders for 3D Slicer, and a form.

OUT/cases/CASE/   images, truth.seg.nrrd, and one segmentation for each prediction
OUT/form.csv      one row for each prediction, to be filled in; form.html saves the same
OUT/README.txt    how the two models were chosen, and what the scores mean
OUT.key.csv       which prediction is whose, for those who collect the forms
"""

import csv
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bmjax.data import nifti, streams
from bmjax.data.soundness import count_labels, label_fault
from bmjax.data.tables import write_csv
from bmjax.inference.slicer import write_segmentation
from bmjax.planning.labels import BRATS_METS
from bmjax.report.sources import CaseFiles, read_evaluation
from bmjax.study.ranking import RULE, rank_methods
from bmjax.study.review_form import QUESTIONS, form_page
from bmjax.study.scores import Method, read_scores

LETTERS = "ABCDEFGH"


@dataclass(frozen=True, kw_only=True)
class Review:
    """What was laid out for the readers.

    Attributes:
      out: the folder that they get.
      key: the file that they do not get.
      methods: names of the models, the best first.
      cases: ids of the cases.
    """

    out: Path
    key: Path
    methods: tuple[str, ...]
    cases: tuple[str, ...]


def write_review(
    workdir: Path,
    out: Path,
    *,
    num_models: int = 2,
    is_blinded: bool = False,
    seed: int = 0,
) -> Review:
    """Lay out the test cases of a transfer study for expert readers.

    Args:
      workdir: of `bmjax study transfer`.
      out: folder to make, for the readers.
      num_models: how many of the fine-tuned models, the best ones by `ranking.RULE`.
      is_blinded: call the predictions A, B, ..., in another order for each case.
      seed: of that order.

    Raises:
      FileNotFoundError: the study has no scores yet.
      ValueError: the folder is there already, or a file does not fit.
    """
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: is there already; choose another folder")
    scores = read_scores(workdir / "scores")
    ranked = rank_methods(scores)
    tuned = [r for r in ranked if scores.methods[r.index].start == scores.starts[0]]
    chosen = [scores.methods[r.index] for r in (tuned or ranked)[:num_models]]
    files = {method.name: _files(workdir, method) for method in chosen}
    cases = sorted(files[chosen[0].name])
    rng = np.random.default_rng(seed)
    fresh = out.with_name(f".{out.name}.tmp")
    if fresh.exists():
        shutil.rmtree(fresh)  # left by a call that was killed
    form, key = [], []
    for case in cases:
        order = rng.permutation(len(chosen)) if is_blinded else range(len(chosen))
        shown = {
            LETTERS[place] if is_blinded else chosen[i].name: chosen[i].name
            for place, i in enumerate(order)
        }
        _write_case(
            fresh / "cases" / case,
            {name: files[method][case] for name, method in shown.items()},
        )
        for name, method in shown.items():
            form.append({"case": case, "prediction": name, "reader": ""})
            key.append({"case": case, "prediction": name, "method": method})
    for row in form:
        row |= dict.fromkeys(QUESTIONS, "")
    write_csv(fresh / "form.csv", form)
    page = form_page(form)
    streams.write_pieces(fresh / "form.html", [page.encode()])
    places = "\n".join(f"{r.mean_rank:.2f}  {r.name}" for r in ranked)
    text = _readme([] if is_blinded else [m.name for m in chosen], places, is_blinded)
    streams.write_pieces(fresh / "README.txt", [text.encode()])
    path = out.with_name(f"{out.name}.key.csv")
    write_csv(path, key)
    if out.exists():
        out.rmdir()
    os.replace(fresh, out)
    return Review(
        out=out,
        key=path,
        methods=tuple(method.name for method in chosen),
        cases=tuple(cases),
    )


def read_key(review: Path) -> dict[tuple[str, str], str]:
    """Method of each case and prediction, from the key beside a review's folder."""
    path = review.with_name(f"{review.name}.key.csv")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no key; it is made with the review, beside its folder"
        )
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(row["case"], row["prediction"]): row["method"] for row in rows}


def _files(workdir: Path, method: Method) -> Mapping[str, CaseFiles]:
    folder = workdir / "evaluate" / method.model / method.start / "ensemble"
    return read_evaluation(folder).files


def _write_case(folder: Path, predictions: Mapping[str, CaseFiles]) -> None:
    """Images, truth and predictions of one case."""
    first = next(iter(predictions.values()))
    folder.mkdir(parents=True)
    for channel, path in first.images.items():
        suffix = ".nii.gz" if path.name.endswith(".gz") else ".nii"
        shutil.copyfile(path, folder / f"{channel}{suffix}")
    labels = {"truth": first.reference}
    labels |= {name: files.prediction for name, files in predictions.items()}
    for name, path in labels.items():
        scan = nifti.read_labels(path)
        known = [value for _, value in BRATS_METS.labels]
        fault = label_fault(count_labels(scan.array), known)
        if fault:
            raise ValueError(f"{path}: {fault}")
        write_segmentation(
            folder / f"{name}.seg.nrrd",
            scan.array.astype(np.uint8),
            affine=scan.affine,
            labels=BRATS_METS.labels,
        )


def _readme(methods: Sequence[str], places: str, is_blinded: bool) -> str:
    scale = "\n".join(f"  {name}: {meaning}" for name, meaning in QUESTIONS.items())
    if is_blinded:
        rank = "The predictions are blinded: A and B change places between cases.\n"
    else:
        rank = (
            f"Shown: {', '.join(methods)}, the best fine-tuned models. {RULE}\n\n"
            f"mean rank  method\n{places}\n"
        )
    return (
        "Open the files of a case together in 3D Slicer: images are *.nii.gz, "
        "segmentations *.seg.nrrd with named, coloured segments.\n\n"
        f"Fill in form.csv, or form.html, which saves it. Scores:\n{scale}\n\n{rank}"
        "\nResearch use only; not a medical device.\n"
    )
