"""Resampling an image or its labels to another grid, as every case has to be."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.nets import CHANNELS
from benchmarks.timing import Work

PEERS = ("nnunet", "scipy")
Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Zoom:
    """A case on one grid that is wanted on another.

    Attributes:
      size: before [vox].
      new_size: after [vox].
      is_labels: labels, or the channels of an image.
    """

    size: Triple
    new_size: Triple
    is_labels: bool

    def draw(self) -> np.ndarray:
        """Noise `c z y x`, or three nested balls `z y x` as labels."""
        if not self.is_labels:
            rng = np.random.default_rng(0)
            return rng.standard_normal((CHANNELS, *self.size), np.float32)
        axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in self.size), indexing="ij")
        radius = np.sqrt(sum(axis**2 for axis in axes))
        return (3 - np.digitize(radius, (0.2, 0.3, 0.4))).astype(np.int8)


def _both(size: Triple, new_size: Triple) -> dict[str, Zoom]:
    text = f"{'x'.join(map(str, size))} to {'x'.join(map(str, new_size))}"
    return {
        f"{kind} {text}": Zoom(size=size, new_size=new_size, is_labels=kind == "labels")
        for kind in ("image", "labels")
    }


CASES = _both((136, 171, 140), (68, 86, 70)) | _both((72, 171, 140), (136, 171, 140))
QUICK = _both((8, 9, 7), (4, 5, 6))


def ours(zoom: Zoom, *, scratch: Path) -> Work:
    from bmjax.data import resample

    array = zoom.draw()

    def image() -> None:
        for channel in array:
            resample.resample(channel, zoom.new_size, kind="cubic")

    def labels() -> None:
        resample.resample_labels(array, zoom.new_size)

    return Work(
        call=labels if zoom.is_labels else image,
        before=resample.matrix.cache_clear,  # every case has a size of its own
    )
