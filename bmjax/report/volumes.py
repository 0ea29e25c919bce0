"""The files of a case that a page shows, read; what cannot be read becomes a note."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Integer, Shaped

from bmjax.data import nifti

CHANNEL_TITLES = {"t1c": "T1c", "t1n": "T1", "t2f": "FLAIR", "t2w": "T2", "": "labels"}


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A lesion worth looking at.

    Attributes:
      kind: "missed" or "found" in the reference, "invented" only in the prediction.
      region: whose component it is.
      centre_mm: centre of mass, x y z in RAS+ world coordinates [mm].
      volume_mm3: its size [mm3].
      dice: with what was predicted there; NaN where there is no reference.
      prediction: whose miss or find it is, where several are shown.
    """

    kind: Literal["missed", "found", "invented"]
    region: str
    centre_mm: tuple[float, float, float]
    volume_mm3: float
    dice: float = float("nan")
    prediction: str = ""


@dataclass(frozen=True, kw_only=True)
class CaseSources:
    """The files of one case that a page can show.

    Attributes:
      case: case id.
      images: file of each channel (t1c, t2f, ...).
      reference: reference label file, if there is one.
      predictions: label file of each prediction, by the name it is shown under.
      maps: files of uncertainty or explanation on the same grid, by name.
      scores: Dice of each prediction by region, shown beside its name.
      facts: names and values shown under the heading.
      spots: lesions to go to, those that went wrong first.
    """

    case: str
    images: Mapping[str, Path]
    reference: Path | None = None
    predictions: Mapping[str, Path] = field(default_factory=dict)
    maps: Mapping[str, Path] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()
    spots: tuple[Spot, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaseVolumes:
    """The volumes of a case, all on one grid in RAS orientation.

    Attributes:
      images: grey values of each channel; one black volume, named "", where only
        labels are known.
      reference: reference labels, if they could be read.
      predictions: predicted labels by name.
      maps: uncertainty or explanation by name.
      spacing_mm: voxel size, z y x [mm].
      affine: from (x, y, z) index to RAS+ millimetres.
      notes: what is not shown, and why.
    """

    images: dict[str, Float[np.ndarray, "z y x"]]
    reference: Integer[np.ndarray, "z y x"] | None
    predictions: dict[str, Integer[np.ndarray, "z y x"]]
    maps: dict[str, Float[np.ndarray, "z y x"]]
    spacing_mm: tuple[float, float, float]
    affine: Float[np.ndarray, "4 4"]
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = next(iter(self.images.values())).shape
        return z, y, x

    def label_maps(self) -> list[Integer[np.ndarray, "z y x"]]:
        """The reference, if there is one, and all predictions."""
        first = [] if self.reference is None else [self.reference]
        return [*first, *self.predictions.values()]

    def nearest_voxel(
        self, centre_mm: tuple[float, float, float]
    ) -> tuple[int, int, int]:
        """The voxel (z, y, x) of a place in the world; its nearest in the volume."""
        x, y, z = (np.linalg.inv(self.affine) @ [*centre_mm, 1.0])[:3]
        place = np.clip(np.rint([z, y, x]), 0, np.array(self.size) - 1)
        z, y, x = (int(v) for v in place)
        return z, y, x


def read_case(
    sources: CaseSources, *, channels: tuple[str, ...]
) -> CaseVolumes | tuple[str, ...]:
    """Read a case.

    Args:
      sources: the files.
      channels: sequences to show, where present.

    Returns:
      The volumes, or the notes alone where there is nothing to show.
    """
    notes: list[str] = []
    images, others = {}, {}
    for channel in channels:
        if channel in sources.images:
            images[channel] = _read(sources.images[channel], notes, is_label=False)
        else:
            notes.append(f"{CHANNEL_TITLES.get(channel, channel)}: no image found")
    if sources.reference is not None:
        others["reference", ""] = _read(sources.reference, notes, is_label=True)
    for name, path in sources.predictions.items():
        others["prediction", name] = _read(path, notes, is_label=True)
    for name, path in sources.maps.items():
        others["map", name] = _read(path, notes, is_label=False)
    images = {name: scan for name, scan in images.items() if scan is not None}
    others = {key: scan for key, scan in others.items() if scan is not None}
    first = next(iter([*images.values(), *others.values()]), None)
    if first is None:
        return (*notes, "no image to show")
    size = first.array.shape
    for scan in (*images.values(), *others.values()):
        if scan.array.shape != size:
            notes.append(
                f"{scan.path.name}: {scan.array.shape} voxels where {first.path.name} "
                f"has {size}; not shown"
            )

    def of_kind(kind: str) -> dict[str, Any]:
        return {
            name: scan.array
            for (own, name), scan in others.items()
            if own == kind and scan.array.shape == size
        }

    fitting = {n: s.array for n, s in images.items() if s.array.shape == size}
    return CaseVolumes(
        images=fitting or {"": np.zeros(size, np.float32)},
        reference=of_kind("reference").get(""),
        predictions=of_kind("prediction"),
        maps=of_kind("map"),
        spacing_mm=first.spacing_mm,
        affine=first.affine,
        notes=tuple(notes),
    )


def bounds(
    volumes: CaseVolumes,
) -> tuple[slice, slice, slice]:
    """The box around everything that is not zero in any image or label map."""
    is_shown = np.zeros(volumes.size, bool)
    every: list[Shaped[np.ndarray, "z y x"]] = [
        *volumes.images.values(),
        *volumes.label_maps(),
    ]
    for array in every:
        is_shown |= array != 0
    box = []
    for axis, size in enumerate(volumes.size):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(is_shown.any(axis=others))
        low, high = (int(where[0]), int(where[-1]) + 1) if where.size else (0, size)
        box.append(slice(low, high))
    z, y, x = box
    return z, y, x


def _read(path: Path, notes: list[str], *, is_label: bool) -> nifti.Scan | None:
    try:
        return nifti.read_labels(path) if is_label else nifti.read(path)
    except (OSError, ValueError) as error:
        notes.append(f"not shown: {error}")
        return None
