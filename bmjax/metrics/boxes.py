"""Boxes around voxels, as slices of a volume."""

import numpy as np
from jaxtyping import Bool

Box = tuple[slice, slice, slice]


def bounding_box(inside: Bool[np.ndarray, "z y x"]) -> Box:
    """Smallest box around the voxels inside; one voxel if there are none."""
    slices = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(inside.any(axis=others))
        low, high = (where[0], where[-1]) if where.size else (0, 0)
        slices.append(slice(int(low), int(high) + 1))
    z, y, x = slices
    return z, y, x


def inner_box(outer: Box, inner: Box) -> Box:
    """A box within a box, as a box of the whole volume."""
    z, y, x = (
        slice(a.start + b.start, a.start + b.stop)
        for a, b in zip(outer, inner, strict=True)
    )
    return z, y, x


def grown(box: Box, shape: tuple[int, ...]) -> Box:
    """The box with a margin of one voxel, as far as the volume goes."""
    z, y, x = (
        slice(max(s.start - 1, 0), min(s.stop + 1, size))
        for s, size in zip(box, shape, strict=True)
    )
    return z, y, x


def union(*boxes: Box) -> Box:
    """Smallest box that holds all of these."""
    z, y, x = (
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*boxes, strict=True)
    )
    return z, y, x
