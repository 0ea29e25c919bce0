"""Shows a case along three planes: reference filled, predictions outlined.

A panel is an SVG in millimetres, so any voxel size has its true shape: one grey picture
below (stored once, used by every panel that shows it), voxel-exact paths above.
"""

import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Integer

from bmjax.data import nifti
from bmjax.planning.labels import BRATS_METS
from bmjax.report import slices
from bmjax.report.page import data_uri
from bmjax.report.slices import PLANES, Plane
from bmjax.report.style import LABEL_COLOURS, LABEL_NAMES, REGION_NAMES

CHANNEL_TITLES = {"t1c": "T1c", "t1n": "T1", "t2f": "FLAIR", "t2w": "T2"}
CORE = ("ET", "NETC")
Detail = Literal["full", "brief"]
NEAR_MM = 56.0
MARGIN_MM = 5.0
QUALITY = 82
CONVENTION = (
    "Radiological display: the patient's right is on the left of the picture; sagittal "
    "slices look to the left. The three planes meet inside the largest lesion."
)


@dataclass(frozen=True, kw_only=True)
class CaseSources:
    """The files of one case that a page can show.

    Attributes:
      case: case id.
      images: file of each channel (t1c, t2f, ...).
      reference: reference label file, if there is one.
      predictions: label file of each prediction, by the name it is shown under.
      scores: Dice of each prediction by region, shown beside its name.
      facts: names and values shown under the heading.
    """

    case: str
    images: Mapping[str, Path]
    reference: Path | None = None
    predictions: Mapping[str, Path] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Key:
    """What colours and region names mean."""

    def to_html(self) -> str:
        """Colour chips with names, then the regions made of them."""
        chips = "".join(
            f'<span><i style="background:{LABEL_COLOURS[name]}"></i><b>{name}</b> '
            f"{html.escape(meaning)}</span>"
            for name, meaning in LABEL_NAMES.items()
        )
        regions = "".join(
            f"<span><b>{name}</b> {html.escape(meaning)}</span>"
            for name, meaning in REGION_NAMES.items()
            if name not in LABEL_NAMES
        )
        return (
            f'<p class="key">{chips}{regions}<span>reference filled, prediction '
            "outlined</span></p>"
        )


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a case.

    Attributes:
      title: sequence and plane.
      prediction: name of the prediction outlined in it, empty if none.
      sides: letters at left, right, top and bottom.
      svg: the picture.
    """

    title: str
    prediction: str
    sides: tuple[str, str, str, str]
    svg: str


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """A block of the page: all panels of a case with legend and switches.

    Attributes:
      sources: what is shown.
      panels: pictures in reading order.
      pictures: hidden definitions that the panels use.
      columns: panels side by side on a wide screen.
      labels: names of the labels that occur.
      notes: what could not be shown, and why.
      detail: "brief" leaves out switches, scores and facts.
    """

    sources: CaseSources
    panels: tuple[Panel, ...]
    pictures: str
    columns: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    detail: Detail = "full"

    def to_html(self) -> str:
        """An article with heading, switches and panels."""
        case = html.escape(self.sources.case)
        facts = "".join(
            f"<span>{html.escape(name)} <b>{html.escape(value)}</b></span>"
            for name, value in self.sources.facts
        )
        notes = "".join(f'<p class="missing">{html.escape(n)}</p>' for n in self.notes)
        panels = "".join(_panel_html(panel) for panel in self.panels)
        is_one = len({panel.prediction for panel in self.panels}) < 2
        order = "by-sequence" if is_one and self.columns > 2 else "by-plane"
        above = f'<p class="case-facts">{facts}</p>'
        if self.detail == "full":
            above += f"{_scores_html(self.sources)}{notes}{self._switches_html()}"
        return (
            f'<article class="case {self.detail}"><h3>{case}</h3>{above}'
            f'<svg class="store" aria-hidden="true"><defs>{self.pictures}</defs></svg>'
            f'<div class="panels {order}" style="--columns:{self.columns}">{panels}'
            "</div></article>"
        )

    def _switches_html(self) -> str:
        if not self.panels:
            return ""
        switches = []
        if self.sources.reference is not None:
            switches.append(("reference", '<i class="filled"></i>reference'))
        if self.sources.predictions:
            switches.append(("prediction", '<i class="outlined"></i>prediction'))
        for name in self.labels:
            switches.append(
                (
                    f"label-{name}",
                    f'<i style="background:{LABEL_COLOURS.get(name, "#ccc")}"></i>'
                    f"<abbr title='{html.escape(LABEL_NAMES.get(name, name))}'>"
                    f"{html.escape(name)}</abbr>",
                )
            )
        buttons = "".join(
            f'<button type="button" data-hide="{html.escape(name)}" '
            f'aria-pressed="true">{text}</button>'
            for name, text in switches
        )
        zoom = (
            '<button type="button" class="zoom" aria-pressed="false">'
            "zoom to lesion</button>"
        )
        return f'<div class="switches">{buttons}{zoom}</div>'


def case_view(
    sources: CaseSources,
    *,
    planes: tuple[Plane, ...] = PLANES,
    channels: tuple[str, ...] = ("t1c", "t2f"),
    labels: Mapping[str, int] | None = None,
    detail: Detail = "full",
) -> CaseView:
    """Read a case and draw it; what cannot be read becomes a note, not an error.

    Args:
      sources: the files.
      planes: planes to show.
      channels: sequences to show, where present.
      labels: value of each label name; BraTS-METS by default.
      detail: "brief" leaves out switches and scores.
    """
    values = dict(labels or BRATS_METS.labels)
    notes: list[str] = []
    volumes = {}
    for channel in channels:
        if channel in sources.images:
            volumes[channel] = _read(sources.images[channel], notes, is_label=False)
        else:
            notes.append(f"{CHANNEL_TITLES.get(channel, channel)}: no image found")
    volumes = {c: scan for c, scan in volumes.items() if scan is not None}
    label_maps = {
        name: _read(path, notes, is_label=True)
        for name, path in (
            *((("", sources.reference),) if sources.reference is not None else ()),
            *sources.predictions.items(),
        )
    }
    if not volumes:
        return CaseView(
            sources=sources,
            panels=(),
            pictures="",
            columns=1,
            labels=(),
            notes=(*notes, "no image to show"),
            detail=detail,
        )
    first = next(iter(volumes.values()))
    size = first.array.shape
    for scan in (*volumes.values(), *label_maps.values()):
        if scan is not None and scan.array.shape != size:
            notes.append(
                f"{scan.path.name}: {scan.array.shape} voxels where {first.path.name} "
                f"has {size}; not shown"
            )
    return _draw(
        sources,
        images={c: s.array for c, s in volumes.items() if s.array.shape == size},
        maps={n: s.array for n, s in label_maps.items() if s and s.array.shape == size},
        planes=planes,
        values=values,
        spacing_mm=first.spacing_mm,
        notes=notes,
        detail=detail,
    )


def _draw(
    sources: CaseSources,
    *,
    images: dict[str, np.ndarray],
    maps: dict[str, np.ndarray],
    planes: tuple[Plane, ...],
    values: dict[str, int],
    spacing_mm: tuple[float, float, float],
    notes: list[str],
    detail: Detail,
) -> CaseView:
    reference = maps.get("")
    names = [name for name in maps if name]
    channels = tuple(images)
    z, y, x = images[channels[0]].shape
    size = (z, y, x)
    core = tuple(values[name] for name in CORE if name in values)
    filled = [labels for labels in maps.values() if labels.any()]
    centre = slices.focus(filled[0], core=core) if filled else (z // 2, y // 2, x // 2)
    boxes = _views(images[channels[0]], spacing_mm)
    pictures, use_by_picture = _pictures(images, planes, centre)
    shown = names or [""]
    order: list[tuple[str, Plane, str]]
    if len(shown) == 1:
        order = [(c, p, n) for c in channels for p in planes for n in shown]
        columns = len(planes) if len(planes) > 1 else len(channels)
    else:
        order = [(c, p, n) for p in planes for c in channels for n in shown]
        columns = len(channels) * len(shown) if len(shown) == 2 else len(shown)
    panels = []
    for channel, plane, name in order:
        index = centre[slices.CUT_AXIS[plane]]
        layers = use_by_picture[channel, plane]
        if reference is not None:
            layers += _paths(slices.cut(reference, plane, index), values, "reference")
        if name:
            layers += _paths(slices.cut(maps[name], plane, index), values, "outline")
        top, left = slices.place_mm(centre, plane, size=size, spacing_mm=spacing_mm)
        near = slices.View(
            left_mm=left - NEAR_MM / 2, top_mm=top - NEAR_MM / 2, side_mm=NEAR_MM
        )
        height, width = slices.pixel_mm(spacing_mm, plane)
        title = f"{CHANNEL_TITLES.get(channel, channel)} {plane}"
        panels.append(
            Panel(
                title=title,
                prediction=name,
                sides=slices.SIDES[plane],
                svg=f'<svg viewBox="{boxes[plane].to_viewbox()}" '
                f'data-near="{near.to_viewbox()}" role="img" '
                f'aria-label="{html.escape(f"{sources.case} {title} {name}")}">'
                f'<g transform="scale({width:g} {height:g})">{layers}</g></svg>',
            )
        )
    present = [
        n for n, v in values.items() if any((m == v).any() for m in maps.values())
    ]
    return CaseView(
        sources=sources,
        panels=tuple(panels),
        pictures="".join(pictures),
        columns=columns,
        labels=tuple(present),
        notes=tuple(notes),
        detail=detail,
    )


def _pictures(
    images: dict[str, np.ndarray],
    planes: tuple[Plane, ...],
    centre: tuple[int, int, int],
) -> tuple[list[str], dict[tuple[str, Plane], str]]:
    """Definitions of the grey pictures, and the references to them by panel."""
    definitions = []
    use_by_picture: dict[tuple[str, Plane], str] = {}
    for channel, image in images.items():
        low, high = slices.window(image)
        for plane in planes:
            cut = slices.cut(image, plane, centre[slices.CUT_AXIS[plane]])
            pixels = slices.grey(cut, low=low, high=high)
            content = slices.encode_webp(pixels, quality=QUALITY)
            name = f"p{hashlib.sha256(content).hexdigest()[:12]}"
            rows, columns = cut.shape
            definitions.append(
                f'<image id="{name}" width="{columns}" height="{rows}" '
                f'preserveAspectRatio="none" href="{data_uri(content, "image/webp")}"/>'
            )
            use_by_picture[channel, plane] = f'<use href="#{name}"/>'
    return definitions, use_by_picture


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
    labels: Integer[np.ndarray, "rows columns"], values: dict[str, int], kind: str
) -> str:
    """One path per label; the smaller structures are drawn last."""
    parts = []
    for name, value in sorted(values.items(), key=lambda item: item[0] != "SNFH"):
        mask = labels == value
        if mask.any():
            colour = LABEL_COLOURS.get(name, "#cccccc")
            parts.append(
                f'<path class="{kind} label-{html.escape(name)}" '
                f'style="--label:{colour}" d="{slices.outline(mask)}"/>'
            )
    return "".join(parts)


def _read(path: Path, notes: list[str], *, is_label: bool) -> nifti.Scan | None:
    try:
        return nifti.read_labels(path) if is_label else nifti.read(path)
    except (OSError, ValueError) as error:
        notes.append(f"not shown: {error}")
        return None


def _panel_html(panel: Panel) -> str:
    left, right, _, bottom = panel.sides
    name = f"<b>{html.escape(panel.prediction)}</b> " if panel.prediction else ""
    letters = "".join(
        f'<span class="side {place}">{letter}</span>'
        for place, letter in zip(
            ("left", "right", "bottom"), (left, right, bottom), strict=True
        )
    )
    return (
        f'<div class="panel">{panel.svg}{letters}'
        f'<span class="tag">{name}{html.escape(panel.title)}</span></div>'
    )


def _scores_html(sources: CaseSources) -> str:
    if not sources.scores:
        return ""
    lines = []
    for name, scores in sources.scores.items():
        values = " ".join(
            f"<span>{html.escape(region)} <b>"
            f"{'undefined' if np.isnan(dice) else f'{dice:.3f}'}</b></span>"
            for region, dice in scores.items()
        )
        lines.append(f"<li><em>{html.escape(name)}</em> Dice {values}</li>")
    return f'<ul class="scores">{"".join(lines)}</ul>'
