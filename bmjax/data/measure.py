"""Measures the facts of each case from which a data set's fingerprint is made."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bmjax.data.cases import Case
from bmjax.data.cropping import read_cropped
from bmjax.data.nifti import Orientation
from bmjax.data.parallel import Progress, require_all, run_all
from bmjax.planning import fingerprint

MAX_SAMPLES = 100_000


def measure_case(
    case: Case,
    *,
    channels: Sequence[str],
    orientation: Orientation = "RAS",
    num_samples: int = 10_000,
    label_values: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The facts of one case, as `planning.summarise` takes them.

    Args:
      case: where its files are.
      channels: which to measure, in order.
      orientation: how the plan will read it.
      num_samples: foreground voxels to draw, with replacement.
      label_values: values that labels may hold beside 0; None: 1 to 127.
    """
    raw = read_cropped(
        case, channels=channels, orientation=orientation, label_values=label_values
    )
    facts = fingerprint.measure_case(
        np.stack(raw.images, axis=-1),
        raw.labels,
        channels=tuple(channels),
        spacing_mm=raw.spacing_mm,
        size=raw.size,
        num_samples=num_samples,
    )
    return {"id": case.id, **facts}


def measure_cases(
    cases: Sequence[Case],
    *,
    channels: Sequence[str] | None = None,
    orientation: Orientation = "RAS",
    label_values: Sequence[int] | None = None,
    num_workers: int | None = None,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """The facts of each case, in order.

    From each, nnU-Net's share of 10e7 voxels is drawn, but no more than 100,000, which
    leaves the statistics the same to a percent of the spread.

    Args:
      cases: what to measure.
      channels: which to measure, in order; None: those of the first case.
      orientation: how the plan will read them.
      label_values: values that labels may hold beside 0; None: 1 to 127.
      num_workers: processes; None: one for each processor.
      timeout_s: longest wait for the next case of a process [s]; None: for ever.
      progress: told after each case.

    Raises:
      ValueError: names every case that cannot be read.
    """
    share = min(fingerprint.NUM_SAMPLES // max(len(cases), 1), MAX_SAMPLES)
    names = [case.id for case in cases]
    channels = channels or (tuple(cases[0].images) if cases else ())
    outcomes = run_all(
        partial(
            measure_case,
            channels=tuple(channels),
            orientation=orientation,
            num_samples=share,
            label_values=label_values,
        ),
        cases,
        num_workers=num_workers,
        timeout_s=timeout_s,
        progress=progress,
        names=names,
    )
    return require_all(outcomes, names, "be measured")
