"""Which cases of the target are trained on, and which are held out for the end."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bmjax.data.cases import Case, find_cases
from bmjax.data.description import RawData, describe
from bmjax.data.nnunet_raw import NAME, find_description
from bmjax.data.tables import write_csv

_SEED = 12345  # as the folds are drawn


@dataclass(frozen=True, kw_only=True)
class Held:
    """The cases of a target, divided.

    Attributes:
      train: to make the plan of, and to train on.
      test: held out until the end.
    """

    train: tuple[Case, ...]
    test: tuple[Case, ...]


def hold_out(
    target: Path,
    *,
    data: RawData,
    test: Path | None = None,
    test_cases: Sequence[str] = (),
    num_test: int = 10,
) -> Held:
    """Divide the target: by a folder of test cases, by their ids, or by number.

    Args:
      target: raw data set.
      data: what its names do not say.
      test: another data set, all of which is for the test.
      test_cases: ids of the target's own cases that are.
      num_test: how many of the target's own are, drawn by patient, the same each time.

    Raises:
      ValueError: a patient would be on both sides, or nothing is left.
    """
    every = read_cases(target, data)
    if test is not None:
        held = Held(train=tuple(every), test=tuple(read_cases(test, data)))
    else:
        chosen = set(test_cases) or _draw(every, num_test)
        unknown = sorted(chosen - {case.id for case in every})
        if unknown:
            raise ValueError(f"{target}: has no case {', '.join(unknown)} to hold out")
        held = Held(
            train=tuple(case for case in every if case.id not in chosen),
            test=tuple(case for case in every if case.id in chosen),
        )
    if not held.train or len(held.test) < 3:
        raise ValueError(
            f"{target}: {len(held.train)} cases to train on and {len(held.test)} to "
            "test on; some of the first and at least 3 of the second are needed"
        )
    require_apart(held.train, held.test, "the target's training cases")
    return held


def require_apart(train: Sequence[Case], test: Sequence[Case], what: str) -> None:
    """Refuse patients that a network would be both trained and tested on.

    Raises:
      ValueError: names them.
    """
    both = {case.patient for case in train} & {case.patient for case in test}
    if both:
        raise ValueError(
            f"{', '.join(sorted(both))}: among {what} and among the test cases; the "
            "scores would be too good. Leave these patients out of one of the two"
        )


def write_manifest(
    folder: Path, name: str, cases: Sequence[Case], target: Path
) -> Path:
    """Write FOLDER/NAME.csv of these cases, with the target's description beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    description = find_description(target)
    if description is not None:
        fresh = folder / f".{NAME}.tmp"
        shutil.copyfile(description, fresh)
        os.replace(fresh, folder / NAME)
    return write_csv(folder / f"{name}.csv", [_row(case) for case in cases])


def read_manifest(path: Path, data: RawData) -> list[Case]:
    """The cases of a manifest that `write_manifest` wrote."""
    return read_cases(path, replace(data, allow_outside=True))


def _row(case: Case) -> Mapping[str, str]:
    files = {channel: str(path.resolve()) for channel, path in case.images.items()}
    labels = "" if case.labels is None else str(case.labels.resolve())
    own = {"case": case.id, "patient": case.patient, "visit": case.visit}
    return {**own, **files, "labels": labels, **case.columns}


def read_cases(root: Path, data: RawData) -> list[Case]:
    """The labelled cases of a raw data set."""
    return find_cases(
        root,
        channels=describe(root, data).channels,
        need_labels=True,
        label_name=data.label_name,
        reading=data.reading(),
        allow_outside=data.allow_outside,
    )


def _draw(cases: Sequence[Case], num_test: int) -> set[str]:
    """Cases of randomly ordered patients, until there are enough."""
    names = sorted({case.patient for case in cases})
    order = np.random.RandomState(_SEED).permutation(len(names))
    chosen: set[str] = set()
    for i in order:
        if len(chosen) >= num_test:
            break
        chosen |= {case.id for case in cases if case.patient == names[i]}
    return chosen
