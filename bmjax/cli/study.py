"""The verb `study`: a published study as one command."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import tyro
from rich.console import Console

from bmjax.cli.output import OK, print_result


def kaur2024(
    *,
    workdir: Path,
    data: Path | None = None,
    epochs: int | None = None,
    seeds: int | None = None,
    as_published: bool = False,
    reduced: bool = False,
    quick: bool = False,
) -> int:
    """The 2-D study of Kaur and Singh (2024): U-Net, ConvNet and FCN, and its Table 4.

    Cuts slices, trains the three networks, and writes table4.csv, table4.md, figures
    (PNG and PDF) and report.html. An interrupted study goes on: what is done is kept.

    Args:
      workdir: folder for everything.
      data: folder of exams (UCSF-BMSR, BraTS, any layout that `bmjax check` takes);
        synthetic exams if not given.
      epochs: most epochs of a training; the early end may come before.
      seeds: trainings of each network.
      as_published: split by exam, as the published code does, so that exams of one
        patient may lie on two sides; otherwise by patient.
      reduced: slices of 64 x 64, one in four, and a quarter of the channels: for a
        CPU.
      quick: a few exams, two epochs: to see that all works.
    """
    from bmjax.study.kaur2024 import SCALES, run_study

    study = SCALES["quick" if quick else "reduced" if reduced else "full"]
    if epochs is not None:
        study = replace(study, schedule=replace(study.schedule, epochs=epochs))
    if seeds is not None:
        study = replace(study, num_seeds=seeds)
    if as_published:
        study = replace(study, split_by="exam")
    page = run_study(workdir, study=study, data=data, console=Console(stderr=True))
    print_result(str(page))
    return OK


STUDIES: dict[str, Callable[..., int]] = {"kaur2024": kaur2024}


def study(argv: Sequence[str] = ()) -> int:
    """Repeat a published study in one command; see `bmjax study --help`.

    Args:
      argv: name of the study and its flags.
    """
    return tyro.extras.subcommand_cli_from_dict(
        STUDIES, prog="bmjax study", description=study.__doc__, args=argv
    )
