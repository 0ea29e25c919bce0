"""How the files of a case are to be taken: which label is which, on whose grid."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from bmjax.data import nifti
from bmjax.data.grids import is_one_grid
from bmjax.data.label_values import whole_numbers
from bmjax.data.layout import LABELS
from bmjax.data.nifti import Orientation, Scan
from bmjax.data.regrid import onto_grid


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
        return {**asdict(self), "label_map": [list(pair) for pair in self.label_map]}

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

    def source(self, images: Mapping[str, Path], first: str) -> Path:
        """The file whose grid the case has."""
        return images[self.resample_to or first]


def taker(
    case: str,
    images: Mapping[str, Path],
    reading: Reading,
    *,
    orientation: Orientation,
    for_training: bool,
    remarks: list[str],
) -> Callable[[str, Scan], Scan]:
    """A function of a role and its scan, as read, to the scan that is used.

    Args:
      case: its id, for messages.
      images: file of each channel.
      reading: what is changed.
      orientation: how the scans are turned.
      for_training: a constant image is refused; to predict on, it is only remarked.
      remarks: gets what was done, in words.

    Raises:
      ValueError: by the function where an image or a label cannot be used; at once
        where there is no channel to resample to.
    """
    to, grid = reading.resample_to, None
    if to is not None:
        if to not in images:
            raise ValueError(
                f"{case}: cannot resample to {to}; it has {', '.join(images)}: name "
                "one of its channels"
            )
        grid = nifti.grid_of(images[to], orientation=orientation)

    def take(role: str, scan: Scan) -> Scan:
        if role == LABELS:
            try:
                labels = reading.map_labels(whole_numbers(scan.array, scan.path))
            except ValueError as error:
                raise ValueError(f"{case}: {error}") from error
            scan = Scan(labels, scan.affine, scan.spacing_mm, scan.path)
        else:
            scan = _image(case, scan, reading, for_training, remarks)
        if grid is None or is_one_grid((scan.array.shape, scan.affine), grid):
            return scan
        moved, covered = onto_grid(scan, grid, is_labels=role == LABELS)
        remarks.append(
            f"{scan.path}: resampled from {_size(scan)} to the grid of {to}, "
            f"{_size(moved)}, of which it covers {covered:.0%}"
        )
        return moved

    return take


def _image(
    case: str, scan: Scan, reading: Reading, for_training: bool, remarks: list[str]
) -> Scan:
    if reading.zero_nonfinite and scan.array.dtype.kind == "f":
        is_odd = ~np.isfinite(scan.array)
        if is_odd.any():
            count = np.count_nonzero(is_odd)
            remarks.append(f"{scan.path}: {count} NaN or infinite voxels taken for 0")
            array = np.where(is_odd, scan.array.dtype.type(0), scan.array)
            scan = Scan(array, scan.affine, scan.spacing_mm, scan.path)
    low, high = scan.array.min(), scan.array.max()
    if low == high:
        message = f"{scan.path}: every voxel is {low:g}"
        if for_training:
            raise ValueError(f"{case}: {message}; export it again, or leave it out")
        remarks.append(message)
    return scan


def _size(scan: Scan) -> str:
    size = " x ".join(map(str, scan.array.shape))
    return f"{size} voxels of {' x '.join(f'{s:g}' for s in scan.spacing_mm)} mm"
