"""Packs volumes into text that the page's own script unpacks.

Labels travel as exact runs, voxel by voxel. Grey values and maps travel as one WebP
picture of all axial slices, tile beside tile, coarser where the volume is large: the
weight of a page is bounded by what a picture may hold.
"""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image

QUALITY = 68
MAX_TILED_VOXELS = 6_000_000  # of one picture; a 1 mm brain has about 3.5 million


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """A volume as one picture.

    Attributes:
      src: the WebP picture as a data address.
      columns: tiles side by side; tile i is axial slice i of the coarse volume.
      size: voxels of the coarse volume, z y x.
      stride: voxels of the full volume that one coarse voxel stands for, z y x.
    """

    src: str
    columns: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the page's script."""
        return {
            "src": self.src,
            "columns": self.columns,
            "size": list(self.size),
            "stride": list(self.stride),
        }


def pack_runs(labels: Integer[np.ndarray, "z y x"]) -> str:
    """Label values as base64: of each run a byte of value, then its length.

    The length is a little-endian base-128 number whose last byte is below 128.

    Raises:
      ValueError: a value does not fit into a byte.
    """
    flat = labels.reshape(-1)
    if flat.size and not 0 <= flat.min() <= flat.max() < 256:
        raise ValueError(
            f"label values {flat.min()} to {flat.max()} cannot be shown; "
            "expected 0 to 255"
        )
    starts = np.flatnonzero(np.diff(flat, prepend=flat[:1] + 1)) if flat.size else []
    lengths = np.diff(np.append(starts, flat.size))
    packed = bytearray()
    for start, length in zip(starts, lengths.tolist(), strict=True):
        packed.append(int(flat[start]))
        while length > 127:
            packed.append(length & 127 | 128)
            length >>= 7
        packed.append(length)
    return base64.b64encode(packed).decode()


def pack_grey(volume: UInt8[np.ndarray, "z y x"], *, quality: int = QUALITY) -> Tiles:
    """Grey values as tiles; every second or third voxel where there are too many.

    Args:
      volume: values from 0 to 255.
      quality: of the WebP picture, 0 to 100.
    """
    stride = [1, 1, 1]
    while np.prod(np.ceil(np.divide(volume.shape, stride))) > MAX_TILED_VOXELS:
        finest = np.argmax(np.divide(volume.shape, stride))
        stride[finest] += 1
    coarse = volume[tuple(slice(None, None, step) for step in stride)]
    num, rows, columns = coarse.shape
    across = math.ceil(math.sqrt(num * rows / columns))
    sheet = np.zeros((math.ceil(num / across) * rows, across * columns), np.uint8)
    for index, tile in enumerate(coarse):
        top, left = index // across * rows, index % across * columns
        sheet[top : top + rows, left : left + columns] = tile
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=quality, method=4)
    text = base64.b64encode(buffer.getvalue()).decode()
    return Tiles(
        src=f"data:image/webp;base64,{text}",
        columns=across,
        size=coarse.shape,
        stride=tuple(stride),
    )


def to_levels(
    values: Float[np.ndarray, "z y x"],
) -> tuple[UInt8[np.ndarray, "z y x"], float, bool]:
    """A map of numbers as bytes: 0 to 255 from zero up, or 128 as zero if signed.

    Returns:
      The bytes, the magnitude of the strongest value, and whether any is negative.
    """
    known = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    strongest = float(np.abs(known).max(initial=0.0))
    scaled = known / strongest if strongest else known
    is_signed = bool((known < 0).any())
    levels = 128 + 127 * scaled if is_signed else 255 * scaled
    return np.rint(levels).astype(np.uint8), strongest, is_signed
