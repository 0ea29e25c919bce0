"""scipy: zoom by splines, and numbering of connected components."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.bench_metrics import Scored
from benchmarks.bench_preprocess import Zoom
from benchmarks.nets import REGIONS
from benchmarks.timing import Work


def preprocess(zoom: Zoom, *, setting: str, scratch: Path) -> Work:
    array = zoom.draw()
    factors = tuple(b / a for a, b in zip(zoom.size, zoom.new_size, strict=True))
    options = {"mode": "nearest", "grid_mode": True}

    def image() -> None:
        for channel in array:
            ndimage.zoom(channel, factors, order=3, **options)

    def labels() -> None:
        found = np.zeros(zoom.new_size, array.dtype)
        for value in np.unique(array)[1:]:
            mask = (array == value).astype(np.float32)
            found[ndimage.zoom(mask, factors, order=1, **options) >= 0.5] = value

    return Work(call=labels if zoom.is_labels else image)


def metrics(scored: Scored, *, setting: str, scratch: Path) -> Work:
    prediction, _ = scored.draw()

    def call() -> None:
        for _, labels in REGIONS:
            ndimage.label(np.isin(prediction, labels), np.ones((3, 3, 3)))

    return Work(call=call)
