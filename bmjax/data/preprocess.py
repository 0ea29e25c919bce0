"""Turns a case into what a network sees, and predictions back onto the scanner's grid.

The order is nnU-Net's: read, turn, crop to the non-zero region, normalise, resample.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cc3d
import numpy as np
from jaxtyping import Bool, Float, Int8, Integer

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.grids import grid_faults
from bmjax.data.layout import LABELS
from bmjax.data.resample import (
    nearest,
    new_size,
    resample,
    resample_labels,
    thick_axis,
)
from bmjax.data.soundness import count_labels, label_fault
from bmjax.planning import Plan

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The way of a case from its file to the network, so that it can be gone back.

    Attributes:
      source: file of the first channel.
      orientation: how it was turned on reading.
      size: of the turned volume, z y x [vox].
      affine: of the turned volume, from (x, y, z) index to RAS+ millimetres.
      crop_start: first voxel kept, z y x.
      crop_stop: voxel after the last one kept.
      transpose_forward: order of the axes after cropping.
      size_after_crop: in the plan's axes [vox].
      size_after_resampling: in the plan's axes [vox].
      spacing_mm: in the plan's axes, before resampling.
      new_spacing_mm: in the plan's axes, after resampling.
    """

    source: str
    orientation: nifti.Orientation
    size: Triple
    affine: tuple[tuple[float, ...], ...]
    crop_start: Triple
    crop_stop: Triple
    transpose_forward: Triple
    size_after_crop: Triple
    size_after_resampling: Triple
    spacing_mm: tuple[float, float, float]
    new_spacing_mm: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Geometry":
        """The geometry that `to_dict` wrote, also after a way through JSON."""
        exact = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**{**exact, "affine": tuple(tuple(row) for row in values["affine"])})


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
      image: normalised channels on the plan's grid.
      labels: on the same grid; None for a case without.
      geometry: the way back.
      warnings: what was odd, in words.
    """

    image: Float[np.ndarray, "z y x c"]
    labels: Int8[np.ndarray, "z y x"] | None
    geometry: Geometry
    warnings: tuple[str, ...] = ()


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


def preprocess(case: Case, plan: Plan) -> Prepared:
    """Read, turn, crop, normalise and resample a case.

    Raises:
      ValueError: a file is damaged, files do not fit each other, or labels are unknown.
    """
    raw = read_cropped(
        case,
        channels=plan.channels,
        orientation=plan.orientation,
        label_values=tuple(value for _, value in plan.labels),
    )
    order = _triple(plan.transpose_forward)
    spacing_mm = _permute(raw.spacing_mm, order)
    # a 2-D plan leaves the slices as they are
    new_spacing_mm = _triple(
        (*spacing_mm[: 3 - len(plan.spacing_mm)], *plan.spacing_mm)
    )
    cropped_size = _permute(raw.brain.shape, order)
    size = _triple(
        new_size(cropped_size, spacing_mm=spacing_mm, new_spacing_mm=new_spacing_mm)
    )
    apart = thick_axis(spacing_mm, new_spacing_mm)
    image = np.empty((*size, len(plan.channels)), np.float32)
    brain = raw.brain if plan.use_mask_for_norm else None
    for i, scheme in enumerate(plan.normalization):
        channel = normalise(raw.images[i], scheme=scheme, brain=brain)
        raw.images[i] = channel[:0]  # its memory is wanted for the next one
        channel = np.ascontiguousarray(channel.transpose(order))
        image[..., i] = resample(channel, size, kind="cubic", apart=apart)
    labels = None
    if raw.labels is not None:
        before = np.ascontiguousarray(raw.labels.transpose(order))
        labels = resample_labels(before, size, apart=apart)
        if labels is not before:
            raw.warnings += keep_lesions(before, labels)
    geometry = Geometry(
        source=str(case.images[plan.channels[0]]),
        orientation=plan.orientation,
        size=raw.size,
        affine=tuple(tuple(float(v) for v in row) for row in raw.affine),
        crop_start=raw.start,
        crop_stop=_triple(
            s + n for s, n in zip(raw.start, raw.brain.shape, strict=True)
        ),
        transpose_forward=order,
        size_after_crop=cropped_size,
        size_after_resampling=size,
        spacing_mm=spacing_mm,
        new_spacing_mm=new_spacing_mm,
    )
    return Prepared(image, labels, geometry, tuple(raw.warnings))


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
    """
    absent = [channel for channel in channels if channel not in case.images]
    if absent:
        raise ValueError(
            f"{case.id}: {', '.join(absent)} missing; it has {', '.join(case.images)}"
        )
    files = {channel: case.images[channel] for channel in channels}
    if case.labels is not None:
        files[LABELS] = case.labels
    scans: dict[str, nifti.Scan] = {}
    warnings = []
    for role, path in files.items():
        try:
            warnings += [f"{path}: {text}" for text in nifti.read_header(path).remarks]
            dtype = None if role == LABELS else np.float32
            scans[role] = nifti.load(path, orientation=orientation, dtype=dtype)
        except ValueError as error:
            raise ValueError(f"{case.id}: {error}") from error
    faults = grid_faults({k: (s.array.shape, s.affine) for k, s in scans.items()})
    if faults:
        raise ValueError("\n".join(f"{case.id}: {fault}" for fault in faults))
    first = scans[channels[0]]
    volumes = [scans.pop(channel).array for channel in channels]
    for channel, volume in zip(channels, volumes, strict=True):
        if not np.isfinite(volume.sum(dtype=np.float64)):
            raise ValueError(
                f"{case.id}: {files[channel]}: "
                f"{np.count_nonzero(~np.isfinite(volume))} voxels are NaN or infinite; "
                "replace them"
            )
    brain, start = brain_region(case.id, volumes)
    box = tuple(slice(s, s + n) for s, n in zip(start, brain.shape, strict=True))
    labels = None
    if case.labels is not None:
        whole = nifti.whole_numbers(scans.pop(LABELS).array, case.labels)
        counts = count_labels(whole)
        # a store keeps labels as int8
        fault = label_fault(
            counts, range(1, 128) if label_values is None else label_values
        )
        if fault:
            raise ValueError(f"{case.id}: {case.labels}: {fault}")
        labels = whole[box].astype(np.int8)
        outside = sum(n for k, n in counts.items() if k) - np.count_nonzero(labels)
        if outside:
            warnings.append(f"{outside} label voxels lie outside of the image content")
    return Cropped(
        images=[np.ascontiguousarray(volume[box]) for volume in volumes],
        labels=labels,
        brain=brain,
        size=_triple(first.array.shape),
        start=start,
        affine=first.affine,
        spacing_mm=first.spacing_mm,
        warnings=warnings,
    )


def brain_region(
    case: str, volumes: Sequence[Float[np.ndarray, "z y x"]]
) -> tuple[Bool[np.ndarray, "u v w"], Triple]:
    """Where any channel is non-zero, holes filled, cropped to its box; its start."""
    content = volumes[0] != 0
    for volume in volumes[1:]:
        content |= volume != 0
    edges = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(content.any(others))
        if not hit.size:
            raise ValueError(
                f"{case}: every voxel of every channel is 0; export it again"
            )
        edges.append((int(hit[0]), int(hit[-1]) + 1))
    content = content[tuple(slice(*edge) for edge in edges)]
    # a hole is a piece of background that does not reach the surrounding of the box
    surrounding = np.pad(~content, 1, constant_values=True)
    pieces = cc3d.connected_components(surrounding, connectivity=6)
    brain = (pieces != pieces[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return np.ascontiguousarray(brain), _triple(edge[0] for edge in edges)


def normalise(
    channel: Float[np.ndarray, "z y x"],
    *,
    scheme: str,
    brain: Bool[np.ndarray, "z y x"] | None,
) -> Float[np.ndarray, "z y x"]:
    """Intensities as the network expects them.

    Args:
      channel: as read.
      scheme: `zscore` gives zero mean and unit spread; `none` leaves it.
      brain: measure and change only these voxels, the others stay 0; None: all.

    Raises:
      ValueError: the scheme is unknown.
    """
    if scheme == "none":
        return channel
    if scheme != "zscore":
        raise ValueError(f"normalization {scheme!r} is unknown; use 'zscore' or 'none'")
    values = channel if brain is None else channel[brain]
    mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    result = (channel - np.float32(mean)) / np.float32(max(std, 1e-8))
    if brain is not None:
        result[~brain] = 0
    return result


def keep_lesions(
    before: Integer[np.ndarray, "z y x"], after: Integer[np.ndarray, "u v w"]
) -> list[str]:
    """Put back, in place, lesions that resampling has lost; what was done, in words.

    A lesion is a 26-connected component. A lost one gets the voxels whose centres lie
    in it, or, where there are none, the one voxel that its own middle lies in.
    """
    warnings = []
    for value in np.setdiff1d(before[before > 0], after).tolist():
        count = np.count_nonzero(before == value)
        warnings.append(f"label {value} ({count} voxels) vanished in resampling")
    components = cc3d.connected_components(before > 0, connectivity=26)
    voxels = np.argwhere(components)  # n 3
    owner = components[tuple(voxels.T)]
    scale = np.divide(after.shape, before.shape)
    landing = np.minimum(
        ((voxels + 0.5) * scale).astype(int), np.array(after.shape) - 1
    )
    kept = np.unique(owner[after[tuple(landing.T)] > 0])
    sources = [nearest(n, m) for n, m in zip(before.shape, after.shape, strict=True)]
    for lost in np.setdiff1d(owner, kept).tolist():
        own = voxels[owner == lost]
        low, high = own.min(0), own.max(0) + 1
        rows = [
            np.flatnonzero((source >= a) & (source < b))
            for source, a, b in zip(sources, low, high, strict=True)
        ]
        here = np.ix_(*(source[row] for source, row in zip(sources, rows, strict=True)))
        is_own = components[here] == lost
        if is_own.any():
            part = after[np.ix_(*rows)]
            part[is_own] = before[here][is_own]
            after[np.ix_(*rows)] = part
        else:
            middle = np.abs(own - own.mean(0)).sum(1).argmin()
            after[tuple(landing[owner == lost][middle])] = before[tuple(own[middle])]
        warnings.append(
            f"a lesion of {len(own)} voxels near {tuple(own[0].tolist())} was too "
            "small for the new grid and was kept by its nearest voxels"
        )
    return warnings


def to_grid(
    probs: Float[np.ndarray, "z y x k"], geometry: Geometry
) -> Float[np.ndarray, "u v w k"]:
    """Class maps from the plan's grid to the cropped native grid, linearly.

    Args:
      probs: probabilities or logits of each class.
      geometry: of the case, from `preprocess`.
    """
    _require_size(probs.shape[:3], geometry)
    back = np.argsort(geometry.transpose_forward).tolist()
    apart = thick_axis(geometry.new_spacing_mm, geometry.spacing_mm)
    size = geometry.size_after_crop
    if size == geometry.size_after_resampling:
        return np.ascontiguousarray(probs.transpose(*back, 3))
    result = np.empty((*_permute(size, back), probs.shape[3]), probs.dtype)
    for k in range(probs.shape[3]):
        channel = np.ascontiguousarray(probs[..., k])
        result[..., k] = resample(channel, size, kind="linear", apart=apart).transpose(
            back
        )
    return result


def labels_to_grid(
    labels: Integer[np.ndarray, "z y x"], geometry: Geometry
) -> Integer[np.ndarray, "u v w"]:
    """Labels from the plan's grid to the cropped native grid."""
    _require_size(labels.shape, geometry)
    apart = thick_axis(geometry.new_spacing_mm, geometry.spacing_mm)
    native = resample_labels(labels, geometry.size_after_crop, apart=apart)
    return native.transpose(np.argsort(geometry.transpose_forward))


def uncrop(
    labels: Integer[np.ndarray, "z y x"], geometry: Geometry
) -> Integer[np.ndarray, "u v w"]:
    """Labels of the cropped native grid in the whole turned volume, 0 around them."""
    whole = np.zeros(geometry.size, labels.dtype)
    box = zip(geometry.crop_start, geometry.crop_stop, strict=True)
    whole[tuple(slice(*edge) for edge in box)] = labels
    return whole


def _require_size(size: tuple[int, ...], geometry: Geometry) -> None:
    if tuple(size) != geometry.size_after_resampling:
        raise ValueError(
            f"{geometry.source}: a prediction of {tuple(size)} voxels does not fit its "
            f"prepared size {geometry.size_after_resampling}; predict this case again"
        )


def _triple(values: Iterable[Any]) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third


def _permute(values: Sequence[Any], order: Iterable[int]) -> tuple[Any, Any, Any]:
    return _triple(values[i] for i in order)
