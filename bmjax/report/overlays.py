"""Shows a case along three planes: reference filled, predictions outlined.

A panel is an SVG in millimetres, so any voxel size has its true shape: one grey picture
below (stored once, used by every panel that shows it), voxel-exact paths above.
"""

import hashlib
import html
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from bmjax.metrics.lesions import components, diameter_mm
from bmjax.planning.labels import BRATS_METS, LABEL_COLOURS
from bmjax.report import slices
from bmjax.report.case_view import CaseView, Detail, Panel
from bmjax.report.page import data_uri
from bmjax.report.slices import PLANES, Plane
from bmjax.report.style import (
    OTHER_LABEL_COLOUR,
    drawn_last,
)
from bmjax.report.viewer import viewer
from bmjax.report.volumes import CHANNEL_TITLES, CaseSources, CaseVolumes, read_case

CORE = ("ET", "NETC")
NEAR_MM = 56.0
MARGIN_MM = 5.0
RING_MM = 3.0
QUALITY = 82
CONVENTION = (
    "Radiological display: the patient's right is on the left of the picture; sagittal "
    "slices look to the left. The three planes meet inside the largest lesion."
)
CONVENTION_WORST = (
    "Where there is a reference, they meet once more in the lesion that came out "
    "worst: the largest that was missed, else that of the lowest Dice. Missed lesions "
    "that a slice cuts are ringed."
)


def case_view(
    sources: CaseSources,
    *,
    planes: tuple[Plane, ...] = PLANES,
    channels: tuple[str, ...] = ("t1c", "t2f"),
    labels: Mapping[str, int] | None = None,
    detail: Detail = "full",
    with_slices: bool = False,
) -> CaseView:
    """Read a case and draw it; what cannot be read becomes a note, not an error.

    Args:
      sources: the files.
      planes: planes to show.
      channels: sequences to show, where present.
      labels: value of each label name; BraTS-METS by default.
      detail: "brief" leaves out switches and scores.
      with_slices: whether all slices go with it.
    """
    values = dict(labels or BRATS_METS.labels)
    volumes = read_case(sources, channels=channels)
    if not isinstance(volumes, CaseVolumes):
        return CaseView(
            sources=sources,
            panels=(),
            pictures="",
            columns=1,
            labels=(),
            notes=volumes,
            detail=detail,
        )
    core = tuple(values[name] for name in CORE if name in values)
    filled = [labels for labels in volumes.label_maps() if labels.any()]
    z, y, x = volumes.size
    largest = slices.focus(filled[0], core=core) if filled else (z // 2, y // 2, x // 2)
    worst = _worst(sources, volumes, core, largest) if detail == "full" else None
    order, columns = _order(volumes, planes, has_worst=worst is not None)
    boxes = _views(next(iter(volumes.images.values())), volumes.spacing_mm)
    windows = {name: slices.window(image) for name, image in volumes.images.items()}
    pictures: dict[str, str] = {}
    panels = tuple(
        _panel(
            sources,
            volumes,
            frame,
            centre=worst if frame.is_worst and worst is not None else largest,
            box=boxes[frame.plane],
            window=windows[frame.channel],
            values=values,
            pictures=pictures,
        )
        for frame in order
    )
    maps = volumes.label_maps()
    present = [n for n, v in values.items() if any((m == v).any() for m in maps)]
    return CaseView(
        sources=sources,
        panels=panels,
        pictures="".join(pictures.values()),
        columns=columns,
        labels=tuple(present),
        notes=volumes.notes,
        detail=detail,
        slices=viewer(sources, volumes, values=values) if with_slices else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What one panel shows: a sequence, a plane, a prediction, through which lesion."""

    channel: str
    plane: Plane
    prediction: str
    is_worst: bool = False

    @property
    def title(self) -> str:
        title = f"{CHANNEL_TITLES.get(self.channel, self.channel)} {self.plane}"
        return f"{title}, worst lesion" if self.is_worst else title


def _order(
    volumes: CaseVolumes, planes: tuple[Plane, ...], *, has_worst: bool
) -> tuple[list[_Frame], int]:
    """The panels in reading order, and how many of them side by side."""
    channels = tuple(volumes.images)
    shown = list(volumes.predictions) or [""]
    if len(shown) == 1:
        (name,) = shown
        order = [
            _Frame(channel=c, plane=p, prediction=name)
            for c in channels
            for p in planes
        ]
        if has_worst:
            order += [
                _Frame(channel=channels[0], plane=p, prediction=name, is_worst=True)
                for p in planes
            ]
        return order, len(planes) if len(planes) > 1 else len(channels)
    order = [
        _Frame(channel=c, plane=p, prediction=name)
        for p in planes
        for c in channels
        for name in shown
    ]
    return order, len(channels) * len(shown) if len(shown) == 2 else len(shown)


def _worst(
    sources: CaseSources,
    volumes: CaseVolumes,
    core: tuple[int, ...],
    largest: tuple[int, int, int],
) -> tuple[int, int, int] | None:
    """A voxel of the largest missed lesion, else of that of the lowest Dice.

    None where that is the lesion that is shown anyway, or nothing is known.
    """
    real = [spot for spot in sources.spots if spot.kind != "invented"]
    if volumes.reference is None or not real:
        return None
    spot = min(real, key=lambda s: (s.kind != "missed", s.dice, -s.volume_mm3))
    numbered = components(np.isin(volumes.reference, core))
    inside = np.argwhere(numbered)  # n 3
    if not len(inside):
        return None
    apart_vox = inside - volumes.nearest_voxel(spot.centre_mm)
    apart_mm = apart_vox * np.array(volumes.spacing_mm)
    z, y, x = (int(v) for v in inside[np.square(apart_mm).sum(axis=1).argmin()])
    return None if numbered[z, y, x] == numbered[largest] else (z, y, x)


def _panel(
    sources: CaseSources,
    volumes: CaseVolumes,
    frame: _Frame,
    *,
    centre: tuple[int, int, int],
    box: slices.View,
    window: tuple[float, float],
    values: Mapping[str, int],
    pictures: dict[str, str],
) -> Panel:
    """One picture; its grey values join the definitions, each of them once."""
    plane, spacing_mm = frame.plane, volumes.spacing_mm
    index = centre[slices.CUT_AXIS[plane]]
    cut = slices.cut(volumes.images[frame.channel], plane, index)
    layers = _picture(cut, window, pictures)
    if volumes.reference is not None:
        cut = slices.cut(volumes.reference, plane, index)
        layers += _paths(cut, values, "reference")
    if frame.prediction:
        cut = slices.cut(volumes.predictions[frame.prediction], plane, index)
        layers += _paths(cut, values, "outline")
    top, left = slices.place_mm(centre, plane, size=volumes.size, spacing_mm=spacing_mm)
    near = slices.View(
        left_mm=left - NEAR_MM / 2, top_mm=top - NEAR_MM / 2, side_mm=NEAR_MM
    )
    height, width = slices.pixel_mm(spacing_mm, plane)
    label = html.escape(f"{sources.case} {frame.title} {frame.prediction}")
    return Panel(
        title=frame.title,
        prediction=frame.prediction,
        sides=slices.SIDES[plane],
        svg=f'<svg viewBox="{box.to_viewbox()}" data-near="{near.to_viewbox()}" '
        f'role="img" aria-label="{label}">'
        f'<g transform="scale({width:g} {height:g})">{layers}</g>'
        f"{_rings(sources, volumes, frame, index)}</svg>",
    )


def _rings(
    sources: CaseSources, volumes: CaseVolumes, frame: _Frame, index: int
) -> str:
    """A ring around each missed lesion that the slice cuts; nested ones share one."""
    axis, spacing_mm = slices.CUT_AXIS[frame.plane], volumes.spacing_mm
    rings: list[tuple[float, float, float]] = []
    missed = [
        spot
        for spot in sources.spots
        if spot.kind == "missed" and spot.prediction in ("", frame.prediction)
    ]
    for spot in sorted(missed, key=lambda spot: -spot.volume_mm3):
        centre = volumes.nearest_voxel(spot.centre_mm)
        radius_mm = diameter_mm(spot.volume_mm3) / 2
        reach_mm = max(radius_mm, spacing_mm[axis] / 2)
        if abs(centre[axis] - index) * spacing_mm[axis] > reach_mm:
            continue
        y, x = slices.place_mm(
            centre, frame.plane, size=volumes.size, spacing_mm=spacing_mm
        )
        if all(math.hypot(x - a, y - b) > r for a, b, r in rings):
            rings.append((x, y, radius_mm + RING_MM))
    return "".join(
        f'<circle class="missed" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
        for x, y, r in rings
    )


def _picture(
    cut: Float[np.ndarray, "rows columns"],
    window: tuple[float, float],
    pictures: dict[str, str],
) -> str:
    """A reference to the grey picture of a slice, which is defined once."""
    low, high = window
    content = slices.encode_webp(slices.grey(cut, low=low, high=high), quality=QUALITY)
    name = f"p{hashlib.sha256(content).hexdigest()[:12]}"
    rows, columns = cut.shape
    pictures[name] = (
        f'<image id="{name}" width="{columns}" height="{rows}" '
        f'preserveAspectRatio="none" href="{data_uri(content, "image/webp")}"/>'
    )
    return f'<use href="#{name}"/>'


def _views(
    volume: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[Plane, slices.View]:
    """Squares of one size for all planes, around the non-zero part of the volume."""
    lower, upper = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero((volume != 0).any(axis=others))
        low, high = (where[0], where[-1] + 1) if where.size else (0, volume.shape[axis])
        size = volume.shape[axis]  # displayed axes are reversed
        lower.append((size - high) * spacing_mm[axis])
        upper.append((size - low) * spacing_mm[axis])
    side = max(u - low for low, u in zip(lower, upper, strict=True)) + 2 * MARGIN_MM
    views: dict[Plane, slices.View] = {}
    for plane in PLANES:
        row, column = (a for a in range(3) if a != slices.CUT_AXIS[plane])
        views[plane] = slices.View(
            left_mm=(lower[column] + upper[column] - side) / 2,
            top_mm=(lower[row] + upper[row] - side) / 2,
            side_mm=side,
        )
    return views


def _paths(
    labels: Integer[np.ndarray, "rows columns"], values: Mapping[str, int], kind: str
) -> str:
    """One path per label; the smaller structures are drawn last."""
    parts = []
    for name, value in sorted(values.items(), key=lambda item: drawn_last(item[0])):
        mask = labels == value
        if mask.any():
            colour = LABEL_COLOURS.get(name, OTHER_LABEL_COLOUR)
            parts.append(
                f'<path class="{kind} label-{html.escape(name)}" '
                f'style="--label:{colour}" d="{slices.outline(mask)}"/>'
            )
    return "".join(parts)
