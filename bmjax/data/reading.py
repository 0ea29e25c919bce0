"""How the files of a case are to be taken: which label is which, on whose grid."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer

from bmjax.data.layout import LABELS
from bmjax.data.nifti import Scan
from bmjax.data.regrid import is_on_grid_of, onto_grid_of


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is changed about the files of a case while they are read.

    Attributes:
      label_map: pairs of a label value in the files and the one it is used as; values
        that are not named stay.
      resample_to: channel on whose grid the others are resampled where they lie on
        another; None refuses files on different grids.
      zero_nonfinite: take NaN and infinite voxels for 0; otherwise they are refused.
    """

    label_map: tuple[tuple[int, int], ...] = ()
    resample_to: str | None = None
    zero_nonfinite: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        values = asdict(self)
        return values | {"label_map": [list(pair) for pair in self.label_map]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Reading":
        """What `to_dict` wrote, also after a way through JSON."""
        pairs = tuple((old, new) for old, new in values.get("label_map", ()))
        return cls(**{**values, "label_map": pairs})

    def map_labels(
        self, labels: Integer[np.ndarray, "*s"]
    ) -> Integer[np.ndarray, "*s"]:
        """Labels with the values that the map gives them."""
        if not self.label_map:
            return labels
        result = labels.copy()
        for old, new in self.label_map:
            result[labels == old] = new
        return result


def settle(
    case: str, scans: dict[str, Scan], reading: Reading, *, for_training: bool
) -> list[str]:
    """Bring the files of a case onto one grid and free them of NaN, in place.

    Args:
      case: its id, for messages.
      scans: by channel, and `labels`; replaced where they are changed.
      reading: what to change.
      for_training: a constant image is refused; to predict on, it is only remarked.

    Returns:
      What was done, in words.

    Raises:
      ValueError: an image is constant, or the channel to resample to is not there.
    """
    remarks = []
    for role, scan in scans.items():
        if role == LABELS or scan.array.dtype.kind != "f":
            continue
        if reading.zero_nonfinite:
            is_odd = ~np.isfinite(scan.array)
            if is_odd.any():
                count = np.count_nonzero(is_odd)
                filled = np.where(is_odd, np.float32(0), scan.array)
                scans[role] = Scan(filled, scan.affine, scan.spacing_mm, scan.path)
                remarks.append(
                    f"{scan.path}: {count} voxels are NaN or infinite and taken for 0"
                )
    for role, scan in scans.items():
        low, high = scan.array.min(), scan.array.max()
        if role != LABELS and low == high:
            message = f"{scan.path}: every voxel is {low:g}"
            if for_training:
                raise ValueError(f"{case}: {message}; export it again, or leave it out")
            remarks.append(message)
    return remarks + _onto_one_grid(case, scans, reading.resample_to)


def _onto_one_grid(case: str, scans: dict[str, Scan], to: str | None) -> list[str]:
    if to is None:
        return []
    if to not in scans:
        raise ValueError(
            f"{case}: cannot resample to {to}; it has {', '.join(scans)}: name one of "
            "its channels"
        )
    remarks = []
    reference = scans[to]
    for role, scan in scans.items():
        if is_on_grid_of(scan, reference):
            continue
        scans[role], uncovered = onto_grid_of(scan, reference, is_labels=role == LABELS)
        remarks.append(
            f"{scan.path}: resampled from {_size(scan)} to the grid of {to}, "
            f"{_size(reference)}; it covers {1 - uncovered:.0%} of it"
        )
    return remarks


def _size(scan: Scan) -> str:
    size = " x ".join(map(str, scan.array.shape))
    return f"{size} of {' x '.join(f'{s:g}' for s in scan.spacing_mm)} mm (z y x)"
