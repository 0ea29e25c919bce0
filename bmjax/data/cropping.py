"""Reads the files of a case, to their end, and crops them to the non-zero region."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cc3d
import numpy as np
from jaxtyping import Bool, Float, Float32, Int8, Shaped

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.geometry import Triple, triple
from bmjax.data.grids import Grid, grid_faults
from bmjax.data.label_values import whole_numbers
from bmjax.data.layout import LABELS
from bmjax.data.reading import taker
from bmjax.data.soundness import count_labels, label_fault


@dataclass
class Cropped:
    """A case as read, turned and cropped to its non-zero region.

    Attributes:
      images: one volume for each channel.
      labels: None for a case without.
      brain: voxels inside the non-zero region, holes filled.
      size: before cropping, z y x [vox].
      start: first voxel kept.
      affine: of the volume before cropping.
      spacing_mm: z y x.
      warnings: what was odd.
    """

    images: list[Float[np.ndarray, "z y x"]]
    labels: Int8[np.ndarray, "z y x"] | None
    brain: Bool[np.ndarray, "z y x"]
    size: Triple
    start: Triple
    affine: Float[np.ndarray, "4 4"]
    spacing_mm: tuple[float, float, float]
    warnings: list[str] = field(default_factory=list)


def read_cropped(
    case: Case,
    *,
    channels: Sequence[str],
    orientation: nifti.Orientation = "RAS",
    label_values: Sequence[int] | None = None,
) -> Cropped:
    """Read a case, to the end of its files, and crop it to its non-zero region.

    Args:
      case: where its files are.
      channels: which to read, in order.
      orientation: `RAS` turns every volume to the closest canonical axes.
      label_values: values that labels may hold beside 0; None: 1 to 127.

    Raises:
      ValueError: a file is damaged, files do not fit each other, or labels are unknown.
    """
    absent = [channel for channel in channels if channel not in case.images]
    if absent:
        raise ValueError(
            f"{case.id}: {', '.join(absent)} missing; it has {', '.join(case.images)}"
        )
    warnings: list[str] = []
    grids: dict[str, Grid] = {}
    take = taker(
        case.id,
        case.images,
        case.reading,
        orientation=orientation,
        for_training=case.labels is not None,
        remarks=warnings,
    )
    labels, num_labelled = None, 0
    if case.labels is not None:  # before the channels, as labels may be doubles
        scan = take(LABELS, _load(case.id, case.labels, orientation, warnings))
        grids[LABELS] = (scan.array.shape, scan.affine)
        labels = _int8_labels(case.id, scan, label_values)
        num_labelled = np.count_nonzero(labels)
    parts = []
    spacing_mm = ()
    for channel in channels:
        scan = _load(case.id, case.images[channel], orientation, warnings)
        scan = take(channel, scan)
        grids[channel] = (scan.array.shape, scan.affine)
        spacing_mm = spacing_mm or scan.spacing_mm
        parts.append(content(_finite(case.id, scan)))
        del scan  # its content is all that is wanted of it
    # the first one is the reference
    faults = grid_faults({role: grids[role] for role in (*channels, *grids)})
    if faults:
        raise ValueError("\n".join(f"{case.id}: {fault}" for fault in faults))
    try:
        images, start = union(parts)
    except ValueError as error:
        raise ValueError(f"{case.id}: {error}") from error
    brain = brain_region(images)
    if labels is not None:
        box = (slice(s, s + n) for s, n in zip(start, brain.shape, strict=True))
        labels = np.ascontiguousarray(labels[tuple(box)])
        outside = num_labelled - np.count_nonzero(labels)
        if outside:
            warnings.append(f"{outside} label voxels lie outside of the image content")
    size, affine = grids[channels[0]]
    return Cropped(
        images=images,
        labels=labels,
        brain=brain,
        size=triple(size),
        start=start,
        affine=affine,
        spacing_mm=triple(spacing_mm),
        warnings=warnings,
    )


@dataclass(frozen=True)
class Content:
    """The part of a volume outside of which it is 0.

    Attributes:
      volume: the part, as float32.
      start: its first voxel.
    """

    volume: Float32[np.ndarray, "z y x"]
    start: Triple


def content(volume: Shaped[np.ndarray, "z y x"]) -> Content:
    """The smallest box that holds all that is not 0; empty where everything is."""
    is_content = volume != 0
    edges = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(is_content.any(others))
        edges.append((int(hit[0]), int(hit[-1]) + 1) if hit.size else (0, 0))
    box = tuple(slice(*edge) for edge in edges)
    return Content(
        np.array(volume[box], np.float32, order="C"), triple(edge[0] for edge in edges)
    )


def union(parts: list[Content]) -> tuple[list[Float32[np.ndarray, "z y x"]], Triple]:
    """Volumes of the smallest box that holds all contents, and its first voxel.

    Args:
      parts: of volumes on one grid; taken out one by one, to save memory.

    Raises:
      ValueError: there is nothing but 0.
    """
    full = [part for part in parts if part.volume.size]
    if not full:
        raise ValueError("every voxel of every channel is 0; export it again")
    start = np.min([part.start for part in full], axis=0)
    stop = np.max([np.add(part.start, part.volume.shape) for part in full], axis=0)
    del full
    volumes = []
    while parts:
        part = parts.pop(0)
        volume = part.volume
        if volume.shape != tuple(stop - start):
            volume = np.zeros(stop - start, np.float32)
            edges = zip(part.start - start, part.volume.shape, strict=True)
            if part.volume.size:
                volume[tuple(slice(a, a + n) for a, n in edges)] = part.volume
        volumes.append(volume)
    return volumes, triple(start.tolist())


def brain_region(
    volumes: Sequence[Float[np.ndarray, "z y x"]],
) -> Bool[np.ndarray, "z y x"]:
    """Where any channel is not 0, holes filled."""
    is_content = volumes[0] != 0
    for volume in volumes[1:]:
        is_content |= volume != 0
    # a hole is a piece of background that does not reach the surrounding of the box
    surrounding = np.pad(~is_content, 1, constant_values=True)
    pieces = cc3d.connected_components(surrounding, connectivity=6)
    brain = (pieces != pieces[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return np.ascontiguousarray(brain)


def _load(
    case: str, path: Path, orientation: nifti.Orientation, warnings: list[str]
) -> nifti.Scan:
    try:
        warnings += [f"{path}: {text}" for text in nifti.read_header(path).remarks]
        return nifti.load(path, orientation=orientation, dtype=None)
    except ValueError as error:
        raise ValueError(f"{case}: {error}") from error


def _finite(case: str, scan: nifti.Scan) -> Shaped[np.ndarray, "z y x"]:
    """Small integers as they are, which saves memory; others as float32."""
    if scan.array.dtype.kind in "iu" and scan.array.dtype.itemsize <= 2:
        return scan.array
    with np.errstate(over="ignore"):  # becomes infinite
        volume = np.asarray(scan.array, np.float32)
    if not np.isfinite(volume.sum(dtype=np.float64)):
        raise ValueError(
            f"{case}: {scan.path}: {np.count_nonzero(~np.isfinite(volume))} voxels are "
            "NaN or infinite; replace them"
        )
    return volume


def _int8_labels(
    case: str, scan: nifti.Scan, label_values: Sequence[int] | None
) -> Int8[np.ndarray, "z y x"]:
    try:
        labels = whole_numbers(scan.array, scan.path)
    except ValueError as error:
        raise ValueError(f"{case}: {error}") from error
    # a store keeps labels as int8
    allowed = range(1, 128) if label_values is None else label_values
    lesions = labels[labels != 0]
    fault = label_fault(count_labels(lesions), allowed) if lesions.size else ""
    if fault:
        raise ValueError(f"{case}: {scan.path}: {fault}")
    return labels.astype(np.int8)
