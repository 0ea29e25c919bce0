"""How a case looks on a page: heading, switches, panels, and all its slices."""

import html
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bmjax.planning.labels import LABEL_COLOURS
from bmjax.report.page import anchor
from bmjax.report.style import (
    LABEL_NAMES,
    OTHER_LABEL_COLOUR,
    REGION_NAMES,
)
from bmjax.report.viewer import Viewer
from bmjax.report.volumes import CaseSources

Detail = Literal["full", "brief"]


@dataclass(frozen=True, kw_only=True)
class Key:
    """What colours and region names mean.

    Attributes:
      has_reference: whether any case has one.
    """

    has_reference: bool = True

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
        ways = "reference filled, " if self.has_reference else ""
        return (
            f'<p class="key">{chips}{regions}<span>{ways}prediction outlined</span></p>'
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
      slices: all slices to leaf through, if wanted.
      is_open: whether they are shown at once.
    """

    sources: CaseSources
    panels: tuple[Panel, ...]
    pictures: str
    columns: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    detail: Detail = "full"
    slices: Viewer | None = None
    is_open: bool = False

    def to_html(self) -> str:
        """An article with heading, switches, panels and slices."""
        case = html.escape(self.sources.case)
        facts = "".join(
            f"<span>{html.escape(name)} <b>{html.escape(value)}</b></span>"
            for name, value in self.sources.facts
        )
        notes = "".join(f'<p class="missing">{html.escape(n)}</p>' for n in self.notes)
        is_one = len({panel.prediction for panel in self.panels}) < 2
        panels = "".join(_panel_html(panel, is_one=is_one) for panel in self.panels)
        order = "by-plane"
        if is_one and self.columns > 2:
            # on a telephone the fewer of rows and columns stand side by side
            num_rows = len(self.panels) // self.columns
            order = "by-sequence" if num_rows < self.columns else "as-is"
        above = f'<p class="case-facts">{facts}</p>'
        name = below = ""
        if self.detail == "full":
            above += f"{_scores_html(self.sources)}{notes}{self._switches_html()}"
            name = f' id="{anchor(self.sources.case)}"'
        if self.slices is not None:
            below = self.slices.to_html(is_open=self.is_open)
        return (
            f'<article class="case {self.detail}"{name}><h3>{case}</h3>{above}'
            f'<svg class="store" aria-hidden="true"><defs>{self.pictures}</defs></svg>'
            f'<div class="panels {order}" style="--columns:{self.columns}">{panels}'
            f"</div>{below}</article>"
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
            colour = LABEL_COLOURS.get(name, OTHER_LABEL_COLOUR)
            switches.append(
                (
                    f"label-{name}",
                    f'<i style="background:{colour}"></i>'
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


def _panel_html(panel: Panel, *, is_one: bool) -> str:
    left, right, _, bottom = panel.sides
    has_name = panel.prediction and not is_one
    name = f"<b>{html.escape(panel.prediction)}</b> " if has_name else ""
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
