"""What is written for a case beside its label file, and how it is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Map = Literal["probability", "entropy", "disagreement"]
Average = Literal["logits", "probabilities"]
NAMES: dict[Map, str] = {
    "probability": "prob",  # as `bmjax evaluate` reads it
    "entropy": "entropy",
    "disagreement": "disagreement",
}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is written for a case beside its label file, and how it is made.

    Attributes:
      average: folds are averaged as logits, or as probabilities on the native grid.
      maps: volumes of each region to write: its `probability`, the `entropy` of that
        [bit], and the `disagreement` of the folds, which is the standard deviation of
        their probabilities.
      lesions: write CASE_lesions.csv: place, volume and confidence of each lesion.
      slicer: for 3D Slicer: `seg.nrrd` writes CASE.seg.nrrd with names and colours,
        `colours` a colour table for the label files.
      min_volume_mm3: predicted lesions below it are removed; 0 keeps all. It costs the
        metastases of that size.
      smooth_mm: logits are smoothed by a Gaussian of this sigma; 0 leaves them. It
        costs small lesions: with configs/real_2mm.py on three held-out cases, 15 of 24
        enhancing ones were found without it, 12 at 1 mm and 6 at 2 mm (false positives
        12, 5 and 0); mean Dice of WT +0.001 at both, of ET -0.006 and -0.031.
    """

    average: Average = "logits"
    maps: tuple[Map, ...] = ()
    lesions: Literal["none", "csv"] = "none"
    slicer: Literal["none", "seg.nrrd", "colours"] = "none"
    min_volume_mm3: float = 0.0
    smooth_mm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_volume_mm3", "smooth_mm"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")

    def needs_folds(self) -> bool:
        """Whether the logits of each fold must be kept apart."""
        return self.average == "probabilities" or "disagreement" in self.maps

    def files(self, path: Path, regions: Sequence[str]) -> tuple[Path, ...]:
        """Those of a case beside its label file, maps by kind and region first."""
        maps = [
            f"_{NAMES[kind]}_{name}.nii.gz" for kind in self.maps for name in regions
        ]
        table = ["_lesions.csv"] if self.lesions == "csv" else []
        segments = [".seg.nrrd"] if self.slicer == "seg.nrrd" else []
        case = path.name.removesuffix(".gz").removesuffix(".nii")
        return tuple(path.with_name(case + end) for end in (*maps, *table, *segments))
