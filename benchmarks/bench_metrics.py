"""Scores of one predicted case, whole and in parts, and of a folder of many."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.nets import REGIONS
from benchmarks.timing import Work

PEERS = ("scipy", "monai", "oracles")


Measure = Literal["all", "components", "dice", "folder"]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A predicted and a reference label volume with many lesions.

    Attributes:
      measure: everything `bmjax evaluate` reports of a case, the numbering of lesions
        alone, Dice alone, or `bmjax evaluate` of a folder.
      size: of the volumes [vox].
      num_lesions: balls of three nested labels.
      spacing_mm: voxel size [mm].
      max_radius: of the largest ball [vox]; None: an eighth of the volume.
      extent: of the central box that holds all lesions [vox]; None: the volume.
      num_cases: in the folder.
    """

    measure: Measure
    size: tuple[int, int, int]
    num_lesions: int
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_radius: int | None = None
    extent: tuple[int, int, int] | None = None
    num_cases: int = 1

    @property
    def peers(self) -> tuple[str, ...]:
        """Who computes the same."""
        others = {"all": "oracles", "components": "scipy", "dice": "monai"}
        return (others[self.measure],) if self.measure in others else ()

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and reference, which is the prediction shifted by one voxel."""
        rng = np.random.default_rng(0)
        labels = np.zeros(self.size, np.int8)
        largest = self.max_radius or min(self.size) // 8
        for _ in range(self.num_lesions):
            radius = int(rng.integers(1, largest + 1))
            centre = [
                (n - m) // 2 + int(rng.integers(radius, m - radius))
                for n, m in zip(self.size, self.extent or self.size, strict=True)
            ]
            box = tuple(slice(c - radius, c + radius + 1) for c in centre)
            grid = np.indices((2 * radius + 1,) * 3) - radius
            distance = np.sqrt((grid**2).sum(0)) / max(radius, 1)
            for value, share in ((2, 1.0), (3, 0.7), (1, 0.4)):
                labels[box][distance <= share] = value
        return labels, np.roll(labels, 1, axis=0)


def _cases(size: tuple[int, int, int], num_lesions: int) -> dict[str, Scored]:
    text = f"{'x'.join(map(str, size))}, {num_lesions} lesions"
    measures: tuple[Measure, ...] = ("all", "components", "dice")
    return {
        f"{measure} of {text}": Scored(
            measure=measure, size=size, num_lesions=num_lesions
        )
        for measure in measures
    }


def _folders(*counts: int) -> dict[str, Scored]:
    """Folders of different length: their memory tells whether it grows."""
    return {
        f"evaluate {count} cases of 24x24x24": Scored(
            measure="folder", size=(24,) * 3, num_lesions=1, num_cases=count
        )
        for count in counts
    }


# as in BraTS-MET-01352-000: 21 enhancing lesions in that box of that volume
METASTASES = Scored(
    measure="all",
    size=(376, 256, 256),
    num_lesions=21,
    spacing_mm=(0.6, 1.0, 1.0),
    max_radius=7,
    extent=(170, 137, 114),
)
CASES = (
    _cases((155, 240, 240), 20)
    | {"all of 376x256x256, 21 metastases": METASTASES}
    | _folders(100, 1000)
)
QUICK = _cases((16, 16, 16), 2) | {
    "evaluate 2 cases of 16x16x16": Scored(
        measure="folder", size=(16,) * 3, num_lesions=2, num_cases=2
    )
}


def ours(scored: Scored, *, scratch: Path) -> Work:
    from bmjax.metrics import lesions, overlap
    from bmjax.metrics.case import compare

    if scored.measure == "folder":
        return _folder(scored, scratch)
    prediction, reference = scored.draw()

    def everything() -> None:
        compare(
            prediction,
            reference,
            regions=dict(REGIONS),
            lesion_regions=tuple(name for name, _ in REGIONS),
            spacing_mm=scored.spacing_mm,
        )

    def components() -> None:
        for _, labels in REGIONS:
            lesions.components(np.isin(prediction, labels))

    def dice() -> None:
        table = overlap.confusion(prediction, reference, num_labels=4)
        for _, labels in REGIONS:
            overlap.dice(overlap.region_counts(table, labels=labels))

    calls = {"all": everything, "components": components, "dice": dice}
    return Work(call=calls[scored.measure])


def _folder(scored: Scored, scratch: Path) -> Work:
    """`bmjax evaluate` of many links to one case."""
    from bmjax.data import nifti
    from bmjax.evaluation import evaluate

    for name, labels in zip(("predicted", "reference"), scored.draw(), strict=True):
        first = scratch / name / "case-0000.nii.gz"
        if not first.exists():
            nifti.write(first, labels.astype(np.uint8), affine=np.eye(4))
        for i in range(1, scored.num_cases):
            link = first.with_name(f"case-{i:04d}.nii.gz")
            if not link.exists():
                link.symlink_to(first)
    folders = scratch / "predicted", scratch / "reference"

    def call() -> None:
        evaluation = evaluate(*folders, out=scratch / "out")
        if len(evaluation.rows) != scored.num_cases:
            raise RuntimeError(f"not every case was evaluated: {evaluation.failures}")

    return Work(call=call, facts={"num_cases": scored.num_cases})
