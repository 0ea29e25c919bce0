"""The look of every figure: colours, fonts, line widths, on light and dark pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib
from cycler import cycler

Theme = Literal["light", "dark"]
THEMES: tuple[Theme, Theme] = ("light", "dark")
DPI = 200

# fixed for every picture of the package; told apart by lightness as well as by hue
DRAW_ORDER = ("SNFH", "ET", "NETC")  # each lies inside the one before
OTHER_LABEL_COLOUR = "#9ec9ff"
LABEL_NAMES = {
    "ET": "enhancing tumour",
    "SNFH": "surrounding FLAIR hyperintensity (oedema)",
    "NETC": "non-enhancing core (necrosis)",
}
REGION_NAMES = {
    "WT": "whole tumour (ET + NETC + SNFH)",
    "TC": "tumour core (ET + NETC)",
    "ET": "enhancing tumour",
}

# Okabe and Ito (2008), colour-blind safe; shifted for contrast on each background
SERIES: dict[Theme, tuple[str, ...]] = {
    "light": ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a6a00", "#555555"),
    "dark": ("#56b4e9", "#ff8c42", "#2fd6a3", "#e79ac6", "#f0e442", "#bbbbbb"),
}
INK: dict[Theme, str] = {"light": "#22252b", "dark": "#e4e6ea"}
QUIET: dict[Theme, str] = {"light": "#6b7280", "dark": "#9aa2af"}
GRID: dict[Theme, str] = {"light": "#e5e7eb", "dark": "#353b46"}
PAPER: dict[Theme, str] = {"light": "#ffffff", "dark": "#1b1f27"}


def drawn_last(name: str) -> int:
    """Rank of a label among those drawn over each other."""
    return DRAW_ORDER.index(name) if name in DRAW_ORDER else -1


@contextmanager
def house_style(theme: Theme) -> Iterator[None]:
    """Matplotlib settings of every chart, for the time of a `with` block."""
    settings: dict[Any, Any] = {
        "axes.axisbelow": True,
        "axes.edgecolor": QUIET[theme],
        "axes.facecolor": PAPER[theme],
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.labelcolor": QUIET[theme],
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(color=SERIES[theme]),
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": INK[theme],
        "pdf.fonttype": 42,  # text stays text
        "axes.titlelocation": "left",
        "axes.titlepad": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.facecolor": PAPER[theme],
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": GRID[theme],
        "grid.linewidth": 0.8,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "legend.labelcolor": INK[theme],
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "savefig.dpi": DPI,
        "text.color": INK[theme],
        "xtick.color": QUIET[theme],
        "xtick.major.size": 3,
        "ytick.color": QUIET[theme],
        "ytick.major.size": 0,
    }
    with matplotlib.rc_context(settings):
        yield
