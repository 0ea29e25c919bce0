"""Judges the files of one case: readable, finite, on one grid, with known labels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from bmjax.data import nifti
from bmjax.data.grids import Grid, grid_faults
from bmjax.data.label_values import whole_numbers
from bmjax.data.layout import LABELS, Problem
from bmjax.data.nifti import Scan
from bmjax.data.plausibility import (
    Look,
    is_stripped,
    look,
    registration_doubts,
    stripping_doubts,
)
from bmjax.data.reading import Reading


@dataclass
class Finding:
    """What reading the files of one case brought up.

    Attributes:
      problems: what must be repaired.
      warnings: what should be known.
      label_voxels: number of voxels of each label value, mapped.
      has_labels: whether a label map could be read.
      grid: size and spacing, in words.
      num_files: files read to their end.
      digests: of the voxels of each image, as turned.
      is_stripped: whether its brain sequences show a brain on zeros; None without one.
    """

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    label_voxels: dict[int, int] = field(default_factory=dict)
    has_labels: bool = False
    grid: str = ""
    num_files: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    is_stripped: bool | None = None


def inspect_files(
    case: str,
    files: Mapping[str, Path],
    *,
    label_values: Sequence[int],
    reading: Reading | None = None,
) -> Finding:
    """Read the files of a case to their end; what is wrong is listed, not raised.

    Args:
      case: its id.
      files: by channel, and `labels`.
      label_values: values that a label map may hold, beside 0.
      reading: how the files will be taken.
    """
    finding, reading = Finding(), reading or Reading()
    grids: dict[str, Grid] = {}
    looks: dict[str, Look] = {}
    for role, path in files.items():
        finding.num_files += 1
        try:
            header = nifti.read_header(path)
            for remark in header.remarks:
                finding.warnings.append(Problem(case, path, remark))
            scan = nifti.load(path, dtype=None)
            if role == LABELS:
                _inspect_labels(case, path, scan, finding, label_values, reading)
            elif _is_usable(case, path, scan, finding):
                looks[role] = look(scan)
                finding.digests[role] = _digest(scan)
        except (ValueError, OSError) as error:
            message = str(error).removeprefix(f"{path}: ")
            finding.problems.append(Problem(case, path, message))
            continue
        grids[role] = (scan.array.shape, scan.affine)
        finding.grid = _grid_text(scan)
    finding.is_stripped = is_stripped(looks)
    doubts = stripping_doubts(looks)
    faults = grid_faults(grids)
    if not faults:
        doubts += registration_doubts(looks)
    elif reading.resample_to is not None:
        doubts += [f"{fault} (will be done)" for fault in faults]
        faults = []
    else:
        faults[-1] += f", or let it be done: --resample-to {next(iter(grids))}"
    finding.problems += [Problem(case, None, message) for message in faults]
    finding.warnings += [Problem(case, None, message) for message in doubts]
    return finding


def _is_usable(case: str, path: Path, scan: Scan, finding: Finding) -> bool:
    low, high = scan.array.min(), scan.array.max()  # NaN and infinity show in these
    if not (np.isfinite(low) and np.isfinite(high)):
        count = np.count_nonzero(~np.isfinite(scan.array))
        message = f"{count} voxels are NaN or infinite; replace them"
    elif low == high:
        message = f"every voxel is {low:g}; export it again"
    else:
        return True
    finding.problems.append(Problem(case, path, message))
    return False


def _digest(scan: Scan) -> str:
    """The same for the same voxels, whatever their file's compression and type."""
    values = scan.array.astype(np.float32, copy=False)
    text = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    text.update(np.ascontiguousarray(values).data.cast("B"))
    return text.hexdigest()


def _inspect_labels(
    case: str,
    path: Path,
    scan: Scan,
    finding: Finding,
    label_values: Sequence[int],
    reading: Reading,
) -> None:
    labels = reading.map_labels(whole_numbers(scan.array, path))
    counts = count_labels(labels)
    finding.has_labels = True
    finding.label_voxels = {k: n for k, n in counts.items() if k}
    message = label_fault(counts, label_values)
    if message:
        finding.problems.append(Problem(case, path, message))
    if not any(counts.get(value) for value in label_values):
        finding.warnings.append(Problem(case, path, "no lesion in its labels"))
    elif not counts.get(0):
        finding.warnings.append(Problem(case, path, "its labels have no background"))


def count_labels(labels: Integer[np.ndarray, "*s"]) -> dict[int, int]:
    """Number of voxels of each value that occurs."""
    low = int(labels.min())
    span = int(labels.max()) - low
    if span > 2**16:
        values, counts = np.unique(labels, return_counts=True)
        return {int(k): int(n) for k, n in zip(values, counts, strict=True)}
    counts = np.bincount((labels.ravel() - low).astype(np.int64), minlength=span + 1)
    return {k + low: int(n) for k, n in enumerate(counts) if n}


def label_fault(counts: Mapping[int, int], label_values: Sequence[int]) -> str:
    """Why a label map cannot be used, empty if it can."""
    odd = {k: n for k, n in counts.items() if k and k not in label_values}
    if not odd:
        return ""
    if len(label_values) > 20:
        expected = f"0 to {max(label_values)}"
    else:
        expected = ", ".join(str(value) for value in (0, *label_values))
    found = ", ".join(f"{value} ({count} voxels)" for value, count in odd.items())
    first = min(odd)
    return (
        f"unexpected label {found}; expected {expected}: say what it is, such as "
        f"--label-map {first}={max(label_values)}, or {first}=0 for background"
    )


def require_regions(
    voxels: Mapping[str, Mapping[Any, int]],
    regions: Mapping[str, Sequence[Any]] | Sequence[tuple[str, Sequence[Any]]],
) -> None:
    """Refuse cases that cannot teach every region, because one occurs in none of them.

    Args:
      voxels: of each case, the number of voxels of each label (or region).
      regions: the labels (or regions) that each region is made of.

    Raises:
      ValueError: names the regions.
    """
    present = {str(k) for counts in voxels.values() for k, n in counts.items() if n}
    absent = [
        name
        for name, members in dict(regions).items()
        if not present.intersection(map(str, members))
    ]
    if absent:
        raise ValueError(
            f"{', '.join(absent)} occurs in none of the {len(voxels)} cases to train "
            "on, so that it cannot be learnt; add cases that have it, or choose labels "
            "and regions without it"
        )


def _grid_text(scan: Scan) -> str:
    size = " x ".join(str(n) for n in scan.array.shape)
    return (
        f"{size} voxels of {' x '.join(f'{s:g}' for s in scan.spacing_mm)} mm (z y x)"
    )
