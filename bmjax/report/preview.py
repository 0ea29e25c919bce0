"""A contact sheet of training patches, as the network sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int

from bmjax.planning.labels import LABEL_COLOURS
from bmjax.report.style import INK, QUIET, house_style


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One patch.

    Attributes:
      title: what is known of it.
      image: channels, as the network gets them.
      labels: label map on the same grid.
    """

    title: str
    image: Float[np.ndarray, "*s c"]
    labels: Int[np.ndarray, "*s"]


def write_sheet(
    path: Path,
    tiles: Sequence[Tile],
    *,
    channels: Sequence[str],
    label_values: dict[str, int],
    title: str,
) -> Path:
    """Draw one row per patch and one column per channel, cut where most lesion is.

    Args:
      path: picture to write; its ending names the format.
      tiles: patches.
      channels: names of the image's channels.
      label_values: value of each label name, for the outlines.
      title: of the sheet.
    """
    with house_style("light"):
        figure, axes = plt.subplots(
            len(tiles),
            len(channels),
            figsize=(1.9 * len(channels) + 1.6, 1.95 * len(tiles) + 0.7),
            squeeze=False,
            layout="compressed",
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK["light"])
        for number, (row, tile) in enumerate(zip(axes, tiles, strict=True)):
            image, labels = _slice(tile)
            for column, (axis, channel) in enumerate(zip(row, channels, strict=True)):
                shown = image[..., column]
                low, high = _window(tile.image[..., column])
                axis.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower")
                for name, value in reversed(label_values.items()):  # cores last
                    mask = labels == value
                    if mask.any():
                        axis.contour(
                            mask,
                            levels=[0.5],
                            colors=LABEL_COLOURS.get(name, "#cccccc"),
                            linewidths=0.9,
                        )
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
                if number == 0:
                    axis.set_title(channel, loc="center", pad=4)
            row[0].set_ylabel(
                tile.title,
                rotation=0,
                ha="right",
                va="center",
                fontsize=7,
                color=QUIET["light"],
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)
    return path


def _slice(tile: Tile) -> tuple[np.ndarray, np.ndarray]:
    """The slice with the most labelled voxels, or the middle one."""
    if tile.labels.ndim == 2:
        return tile.image, tile.labels
    count = np.count_nonzero(tile.labels, axis=(1, 2))
    z = int(count.argmax()) if count.any() else len(count) // 2
    return tile.image[z], tile.labels[z]


def _window(volume: np.ndarray) -> tuple[float, float]:
    """Black and white: all but the outermost hundredth of what is not background."""
    inside = volume[volume != 0]
    if not inside.size:
        return 0.0, 1.0
    low, high = np.percentile(inside, (1, 99.5))
    return float(low), float(max(high, low + 1e-6))
