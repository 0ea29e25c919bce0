"""Splits cases into training and validation by patient, the same way every time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Ids of the cases to train and to validate on, each sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def split_cases(
    patients: Mapping[str, str],
    *,
    num_folds: int = 5,
    fold: int = 0,
    held_out: Sequence[str] = (),
    seed: int = 12345,
) -> Split:
    """One fold of a shuffled k-fold split over patients.

    With one case for each patient this is nnU-Net's split: scikit-learn's shuffled
    KFold over the sorted names.

    Args:
      patients: case id -> patient.
      num_folds: number of folds.
      fold: which one to validate on, from 0.
      held_out: validate on these cases instead.
      seed: of the shuffle.

    Raises:
      ValueError: there are too few patients, a case is unknown, or a patient would be
        on both sides.
    """
    if held_out:
        unknown = sorted(set(held_out) - set(patients))
        if unknown:
            raise ValueError(f"held-out cases {', '.join(unknown)} are not in the data")
        chosen = set(held_out)
    else:
        names = sorted(set(patients.values()))
        if not 0 <= fold < num_folds or num_folds < 2:
            raise ValueError(
                f"fold {fold} of {num_folds} does not exist; count from 0, of at least "
                "2 folds"
            )
        if len(names) == 1:
            raise ValueError(
                "1 patient cannot be split into training and validation; the cases "
                f"{', '.join(sorted(patients))} are all of {names[0]}"
            )
        if len(names) < num_folds:
            raise ValueError(
                f"{len(names)} patients cannot be split into {num_folds} folds; use "
                f"at most {len(names)} folds, or name the held-out cases"
            )
        order = np.arange(len(names))
        np.random.RandomState(seed).shuffle(order)
        part = np.array_split(order, num_folds)[fold]
        drawn = {names[i] for i in part}
        chosen = {case for case, patient in patients.items() if patient in drawn}
    result = Split(
        train=tuple(sorted(case for case in patients if case not in chosen)),
        val=tuple(sorted(chosen)),
    )
    if not result.train:
        raise ValueError("every case is held out; leave some to train on")
    require_no_leak(result, patients)
    return result


def require_no_leak(split: Split, patients: Mapping[str, str]) -> None:
    """Refuse a split that has one patient on both sides.

    Raises:
      ValueError: names the patients and their cases.
    """
    both = {patients[case] for case in split.train}
    both &= {patients[case] for case in split.val}
    shared: dict[str, list[str]] = {}
    for case in (*split.train, *split.val):
        if patients[case] in both:
            shared.setdefault(patients[case], []).append(case)
    if shared:
        lines = [f"{patient} ({', '.join(cases)})" for patient, cases in shared.items()]
        raise ValueError(
            "training and validation cases share patients: "
            f"{'; '.join(lines)}; keep all visits of a patient on one side"
        )
