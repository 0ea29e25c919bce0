"""Scores of one predicted case: the whole comparison, and its two costly parts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.nets import REGIONS
from benchmarks.timing import Work

PEERS = ("scipy", "monai")


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A predicted and a reference label volume with many lesions.

    Attributes:
      measure: everything `bmjax evaluate` reports of a case, the numbering of lesions
        alone, or Dice alone.
      size: of the volumes [vox].
      num_lesions: balls of three nested labels.
    """

    measure: Literal["all", "components", "dice"]
    size: tuple[int, int, int]
    num_lesions: int

    @property
    def peers(self) -> tuple[str, ...]:
        """Who computes the same."""
        return {"all": (), "components": ("scipy",), "dice": ("monai",)}[self.measure]

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and reference, which is the prediction shifted by one voxel."""
        rng = np.random.default_rng(0)
        labels = np.zeros(self.size, np.int8)
        largest = min(self.size) // 8
        for _ in range(self.num_lesions):
            radius = int(rng.integers(1, largest + 1))
            centre = [int(rng.integers(radius, n - radius)) for n in self.size]
            box = tuple(slice(c - radius, c + radius + 1) for c in centre)
            grid = np.indices((2 * radius + 1,) * 3) - radius
            distance = np.sqrt((grid**2).sum(0)) / max(radius, 1)
            for value, share in ((2, 1.0), (3, 0.7), (1, 0.4)):
                labels[box][distance <= share] = value
        return labels, np.roll(labels, 1, axis=0)


def _cases(size: tuple[int, int, int], num_lesions: int) -> dict[str, Scored]:
    text = f"{'x'.join(map(str, size))}, {num_lesions} lesions"
    measures: tuple[Literal["all", "components", "dice"], ...]
    measures = ("all", "components", "dice")
    return {
        f"{measure} of {text}": Scored(
            measure=measure, size=size, num_lesions=num_lesions
        )
        for measure in measures
    }


CASES = _cases((155, 240, 240), 20)
QUICK = _cases((16, 16, 16), 2)


def ours(scored: Scored, *, scratch: Path) -> Work:
    from bmjax.metrics import lesions, overlap
    from bmjax.metrics.case import compare

    prediction, reference = scored.draw()

    def everything() -> None:
        compare(
            prediction,
            reference,
            regions=dict(REGIONS),
            lesion_regions=tuple(name for name, _ in REGIONS),
            spacing_mm=(1.0, 1.0, 1.0),
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
