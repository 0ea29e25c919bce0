"""Figures of a paper: drawn once for light and dark pages, and as PNG and PDF files."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Canvas

from bmjax.data import streams
from bmjax.report import page
from bmjax.report.style import DPI, THEMES, Theme, house_style

Draw = Callable[[Canvas, Theme], None]


@dataclass(frozen=True, kw_only=True)
class Plate:
    """One numbered figure.

    Attributes:
      name: of its files, such as `figure_03_modalities`.
      figure: for a page.
      pdf: the light one, with fonts inside.
    """

    name: str
    figure: page.Figure
    pdf: bytes

    def write(self, folder: Path) -> None:
        """Write NAME.png and NAME.pdf."""
        streams.write_pieces(folder / f"{self.name}.png", [self.figure.light])
        streams.write_pieces(folder / f"{self.name}.pdf", [self.pdf])


def plate(
    draw: Draw,
    *,
    name: str,
    size_in: tuple[float, float],
    alt: str,
    caption: str,
) -> Plate:
    """Draw a figure in all its forms.

    Args:
      draw: draws on an empty figure, given the theme.
      name: of its files.
      size_in: width and height [inch].
      alt: what it shows, for those who cannot see it.
      caption: text below it.
    """
    pictures, pdf = {}, b""
    for theme in THEMES:
        # type 42 keeps text as text
        with house_style(theme), matplotlib.rc_context({"pdf.fonttype": 42}):
            canvas = Canvas(figsize=size_in, layout="constrained")
            draw(canvas, theme)
            pictures[theme] = _saved(canvas, "png")
            if theme == "light":
                pdf = _saved(canvas, "pdf")
    width, height = (round(side * DPI) for side in size_in)
    figure = page.Figure(
        light=pictures["light"],
        dark=pictures["dark"],
        size=(width, height),
        alt=alt,
        caption=caption,
    )
    return Plate(name=name, figure=figure, pdf=pdf)


def _saved(canvas: Canvas, kind: str) -> bytes:
    buffer = io.BytesIO()
    # without a date: the same figure gives the same bytes
    metadata = {"CreationDate": None} if kind == "pdf" else None
    canvas.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
