"""Cuts a case along three planes and turns slices into pictures and outlines.

Display convention, radiological: the patient's right is on the reader's left, anterior
and superior are up, and a sagittal slice looks to the left. Arrays are z y x in RAS
orientation, so every plane is shown with both axes reversed.
"""

import io
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped, UInt8
from PIL import Image

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")
CUT_AXIS: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}
SIDES: dict[
    Plane, tuple[str, str, str, str]
] = {  # left, right, top, bottom of the picture
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}


@dataclass(frozen=True, kw_only=True)
class View:
    """The part of a plane that is shown, in mm from the slice's upper left corner.

    Attributes:
      left_mm: left border.
      top_mm: upper border.
      side_mm: width and height of the square.
    """

    left_mm: float
    top_mm: float
    side_mm: float

    def to_viewbox(self) -> str:
        """The SVG attribute."""
        side = f"{self.side_mm:.1f}"
        return f"{self.left_mm:.1f} {self.top_mm:.1f} {side} {side}"


def cut(
    volume: Shaped[np.ndarray, "z y x"], plane: Plane, index: int
) -> Shaped[np.ndarray, "rows columns"]:
    """One slice as it is displayed."""
    return volume.take(index, axis=CUT_AXIS[plane])[::-1, ::-1]


def pixel_mm(
    spacing_mm: tuple[float, float, float], plane: Plane
) -> tuple[float, float]:
    """Height and width of a pixel of a slice [mm]."""
    height, width = (s for a, s in enumerate(spacing_mm) if a != CUT_AXIS[plane])
    return height, width


def place_mm(
    centre_vox: tuple[int, int, int],
    plane: Plane,
    *,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> tuple[float, float]:
    """Where a voxel lies in the displayed slice: from the top, from the left [mm]."""
    from_top, from_left = (
        (size[a] - 0.5 - centre_vox[a]) * spacing_mm[a]
        for a in range(3)
        if a != CUT_AXIS[plane]
    )
    return from_top, from_left


def focus(
    labels: Integer[np.ndarray, "z y x"], *, core: tuple[int, ...]
) -> tuple[int, int, int]:
    """The voxel that three planes should meet in: inside the largest lesion.

    It is the voxel nearest to the centre of the largest 26-connected component of the
    core labels, of all labels where there is no core, or the volume's centre.

    Args:
      labels: label volume.
      core: labels of the tumour core.
    """
    mask = np.isin(labels, core)
    if not mask.any():
        mask = labels > 0
    if not mask.any():
        z, y, x = (size // 2 for size in labels.shape)
        return z, y, x
    numbered = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = 0
    where = np.argwhere(numbered == sizes.argmax())  # n 3
    nearest = np.square(where - where.mean(axis=0)).sum(axis=1).argmin()
    z, y, x = (int(v) for v in where[nearest])
    return z, y, x


def window(volume: Float[np.ndarray, "z y x"]) -> tuple[float, float]:
    """Grey-value window: percentiles 0.5 and 99.7 of the non-zero voxels."""
    inside = volume[::2, ::2, ::2]
    inside = inside[np.isfinite(inside) & (inside != 0)]
    if not inside.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(inside, (0.5, 99.7)))
    return low, max(high, low + 1e-6)


def grey(
    slice_: Float[np.ndarray, "*s"], *, low: float, high: float
) -> UInt8[np.ndarray, "*s"]:
    """Grey values of a slice or a volume; zero, which is background, stays black."""
    scaled = np.clip((np.nan_to_num(slice_) - low) / (high - low), 0, 1)
    return np.where(slice_ == 0, 0, 18 + 237 * scaled).astype(np.uint8)


def encode_webp(pixels: UInt8[np.ndarray, "rows columns"], *, quality: int) -> bytes:
    """A grey picture as a WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def outline(mask: Bool[np.ndarray, "rows columns"]) -> str:
    """The exact border of a mask as an SVG path in pixels, for evenodd filling.

    No smoothing: a lesion of three voxels is shown as three voxels.
    """
    padded = np.pad(mask, 1)
    next_by_corner: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (dr, dc), (r0, c0), (r1, c1) in (  # neighbour; edge, clockwise
        ((-1, 0), (0, 0), (0, 1)),
        ((0, 1), (0, 1), (1, 1)),
        ((1, 0), (1, 1), (1, 0)),
        ((0, -1), (1, 0), (0, 0)),
    ):
        neighbour = np.roll(padded, (-dr, -dc), axis=(0, 1))[1:-1, 1:-1]
        for r, c in np.argwhere(mask & ~neighbour).tolist():
            next_by_corner.setdefault((r + r0, c + c0), []).append((r + r1, c + c1))
    parts = []
    while next_by_corner:
        corner = start = next(iter(next_by_corner))
        ring = [start]
        while True:
            ends = next_by_corner[corner]
            corner = ends.pop()
            if not ends:
                del next_by_corner[ring[-1]]
            if corner == start:
                break
            ring.append(corner)
        parts.append(_ring_path(ring))
    return "".join(parts)


def _ring_path(ring: list[tuple[int, int]]) -> str:
    """Path of a closed ring of corners; straight runs become one step."""
    steps = []
    for (r0, c0), (r1, c1) in zip(ring, ring[1:], strict=False):
        name, length = ("h", c1 - c0) if r0 == r1 else ("v", r1 - r0)
        if steps and steps[-1][0] == name and steps[-1][1] * length > 0:
            steps[-1][1] += length
        else:
            steps.append([name, length])
    path = "".join(f"{name}{length}" for name, length in steps)
    return f"M{ring[0][1]} {ring[0][0]}{path}z"
