"""A case to leaf through: three linked planes that the page cuts from its own data."""

import html
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bmjax.planning.labels import LABEL_COLOURS
from bmjax.report import packing, slices
from bmjax.report.slices import PLANES
from bmjax.report.style import OTHER_LABEL_COLOUR, drawn_last
from bmjax.report.volumes import CHANNEL_TITLES, CaseSources, CaseVolumes, Spot, bounds

MAX_SPOTS = 16
SPOT_NAMES = {"missed": "missed", "invented": "false positive", "found": "found"}


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """The slices of a case with sliders, and buttons that go to its lesions.

    Attributes:
      sources: what is shown.
      data: volumes and places, as the script reads them.
      spots: buttons: text, and the place (x, y, z) they go to [mm].
    """

    sources: CaseSources
    data: Mapping[str, Any]
    spots: tuple[tuple[str, tuple[float, float, float]], ...]

    @property
    def num_bytes(self) -> int:
        """What the volumes add to a page."""
        pictures = sum(len(v["src"]) for v in self.data["channels"] + self.data["maps"])
        runs = sum(len(p["runs"]) for p in self.data["predictions"])
        return pictures + runs + len(self.data["reference"] or "")

    def to_html(self, *, is_open: bool) -> str:
        """A details element with three canvases and the packed volumes."""
        case = html.escape(self.sources.case)
        planes = "".join(self._plane_html(plane) for plane in PLANES)
        spots = "".join(
            f'<button type="button" data-mm="{_place(centre_mm)}">'
            f"{html.escape(text)}</button>"
            for text, centre_mm in self.spots
        )
        packed = json.dumps(self.data, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<details class="viewer"{" open" if is_open else ""}>'
            "<summary>All slices</summary>"
            f'<div class="choices">{self._choices_html()}</div>'
            f'<div class="cuts">{planes}</div>'
            '<p class="place" aria-live="polite"></p>'
            + (f'<div class="spots"><span>Go to</span>{spots}</div>' if spots else "")
            + '<p class="hint">Click or drag to move the crosshair; arrow keys, page '
            "keys or the wheel on a picture that was clicked turn its slices.</p>"
            f'<script type="application/json" data-case="{case}">{packed}</script>'
            "</details>"
        )

    def _plane_html(self, plane: slices.Plane) -> str:
        axis = slices.CUT_AXIS[plane]
        last = self.data["size"][axis] - 1
        left, right, _, bottom = slices.SIDES[plane]
        letters = "".join(
            f'<span class="side {place}">{letter}</span>'
            for place, letter in (("left", left), ("right", right), ("bottom", bottom))
        )
        name = html.escape(f"{self.sources.case} {plane}")
        return (
            f'<div class="cut" data-axis="{axis}"><div class="panel">'
            f'<canvas tabindex="0" role="img" aria-label="{name} slice"></canvas>'
            f'{letters}<span class="tag">{plane}</span></div>'
            f'<input type="range" min="0" max="{last}" step="1" '
            f'value="{self.data["focus"][axis]}" aria-label="{name} position"></div>'
        )

    def _choices_html(self) -> str:
        channels = [(c["name"], c["title"]) for c in self.data["channels"]]
        names = [(p["name"], p["name"]) for p in self.data["predictions"]]
        maps = [("", "none"), *((m["name"], m["title"]) for m in self.data["maps"])]
        near = '<button type="button" class="near" aria-pressed="false">closer</button>'
        return (
            _select_html("channel", "sequence", channels)
            + _select_html("prediction", "outlined", names)
            + _select_html("map", "map", maps)
            + '<span class="scale"></span>'
            + near
        )


def viewer(
    sources: CaseSources, volumes: CaseVolumes, *, values: Mapping[str, int]
) -> Viewer:
    """Pack a case.

    Args:
      sources: names and lesions of the case.
      volumes: its volumes.
      values: value of each label name.
    """
    box = bounds(volumes)
    start = [part.start for part in box]
    size = [part.stop - part.start for part in box]
    to_mm = volumes.affine.copy()
    to_mm[:3, 3] = (volumes.affine @ [*start[::-1], 1.0])[:3]
    filled = [labels for labels in volumes.label_maps() if labels.any()]
    core = tuple(values[name] for name in ("ET", "NETC") if name in values)
    focus = np.array(size) // 2
    if filled:
        focus = np.subtract(slices.focus(filled[0], core=core), start)
    channels = []
    for name, image in volumes.images.items():
        low, high = slices.window(image)
        grey = slices.grey(image[box], low=low, high=high)
        title = CHANNEL_TITLES.get(name, name)
        tiles = packing.pack_grey(grey).to_dict()
        channels.append({"name": name, "title": title, **tiles})
    maps = []
    for name, strengths in volumes.maps.items():
        levels, strongest, is_signed = packing.to_levels(strengths[box])
        maps.append(
            {
                "name": name,
                "title": name.replace("_", " "),
                "strongest": strongest,
                "signed": is_signed,
                **packing.pack_grey(levels).to_dict(),
            }
        )
    reference = volumes.reference
    return Viewer(
        sources=sources,
        data={
            "size": size,
            "spacing_mm": list(volumes.spacing_mm),
            "to_mm": to_mm.tolist(),
            "to_vox": np.linalg.inv(to_mm).tolist(),
            "focus": focus.tolist(),
            "labels": [
                {
                    "name": name,
                    "value": value,
                    "colour": LABEL_COLOURS.get(name, OTHER_LABEL_COLOUR),
                }
                for name, value in sorted(
                    values.items(), key=lambda item: drawn_last(item[0])
                )
            ],
            "channels": channels,
            "reference": None
            if reference is None
            else packing.pack_runs(reference[box]),
            "predictions": [
                {"name": name, "runs": packing.pack_runs(labels[box])}
                for name, labels in volumes.predictions.items()
            ],
            "maps": maps,
        },
        spots=tuple(
            (_spot_text(spot), spot.centre_mm) for spot in sources.spots[:MAX_SPOTS]
        ),
    )


def _spot_text(spot: Spot) -> str:
    of_whom = f"{spot.prediction}: " if spot.prediction else ""
    text = f"{SPOT_NAMES[spot.kind]} {spot.region}, {spot.volume_mm3:.0f} mm\u00b3"
    text = of_whom + text
    if spot.kind == "found" and not math.isnan(spot.dice):
        text += f", Dice {spot.dice:.2f}"
    return text


def _place(centre_mm: tuple[float, float, float]) -> str:
    return " ".join(f"{value:.2f}" for value in centre_mm)


def _select_html(name: str, title: str, options: list[tuple[str, str]]) -> str:
    if len(options) < 2:
        return ""
    inner = "".join(
        f'<option value="{html.escape(value)}">{html.escape(text)}</option>'
        for value, text in options
    )
    return f'<label>{title} <select data-choice="{name}">{inner}</select></label>'
