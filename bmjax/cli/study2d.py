"""The verb `study kaur2024`: the 2-D study as one command."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from bmjax.cli.output import OK, OTHER_WORKDIR, USAGE, complain, print_result
from bmjax.locks import held


def kaur2024(
    *,
    workdir: Path,
    data: Path | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    scaling: Literal["unit", "zscore"] = "unit",
    loss: Literal["categorical", "binary"] = "categorical",
    one_class: bool = False,
    as_published: bool = False,
    reduced: bool = False,
    quick: bool = False,
) -> int:
    """The 2-D study of Kaur and Singh (2024): U-Net, ConvNet and FCN, and its Table 4.

    Cuts slices; lets each network learn eight of them by heart, since one that cannot
    is marked in Table 4; trains the three networks; and writes table4.csv, table4.md,
    figures (PNG and PDF), report.html, and a run folder of each training in networks/,
    for `bmjax predict`. An interrupted study goes on: what is done is kept.

    Args:
      workdir: folder for everything.
      data: folder of exams (UCSF-BMSR, BraTS, any layout that `bmjax check` takes);
        synthetic exams if not given.
      epochs: most epochs of a training; the early end may come before.
      seeds: trainings of each network; a later call may ask for more or for fewer.
      scaling: each channel of an exam to 0 to 1, or to mean 0 and spread 1; the paper
        names both.
      loss: softmax with categorical cross-entropy, or a sigmoid with binary
        cross-entropy for each class; the paper names both.
      one_class: all labels as one class, metastasis; of UCSF-BMSR the `_seg` files.
        Taken by itself where no label exceeds 1.
      as_published: split by exam, as the published code does, so that exams of one
        patient may lie on two sides; otherwise by patient.
      reduced: slices of 64 x 64, one in four, and a quarter of the channels: for a
        CPU.
      quick: a few exams, two epochs: to see that all works.
    """
    from bmjax.study.kaur2024 import SCALES, run_study

    if quick and reduced:
        complain("give --quick or --reduced, not both")
        return USAGE
    study = SCALES["quick" if quick else "reduced" if reduced else "full"]
    study = replace(
        study,
        slicing=replace(study.slicing, scaling=scaling, binary=one_class),
        schedule=replace(
            study.schedule,
            loss=loss,
            epochs=study.schedule.epochs if epochs is None else epochs,
        ),
        num_seeds=study.num_seeds if seeds is None else seeds,
        split_by="exam" if as_published else "patient",
    )
    with held(workdir, doing="running the 2-D study", otherwise=OTHER_WORKDIR):
        page = run_study(workdir, study=study, data=data, console=Console(stderr=True))
    print_result(str(page))
    return OK
