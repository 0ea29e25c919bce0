"""Draws lesions through time: all of a patient, and each one against its nadir."""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from bmjax.report import page
from bmjax.report.curves import Record, chart
from bmjax.report.style import INK, QUIET, SERIES, Theme

PATIENT_SIZE_IN = (4.7, 3.1)
LESION_SIZE_IN = (3.5, 2.3)
MAX_NAMED = 12
_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
_MARKERS = ("o", "s", "D", "v", "P")  # fewer than colours, so that both tell apart


def patient_chart(
    patient: str,
    rows_by_track: Mapping[str, Sequence[Record]],
    visits: Sequence[Record],
) -> page.Figure:
    """Volume of every lesion of a patient, and their sum, by time.

    Args:
      patient: whose.
      rows_by_track: rows of lesions.csv of each track of the patient.
      visits: rows of visits.csv of the patient.
    """
    places, ticks, label = _time(visits)

    def draw(axes: Axes, theme: Theme) -> None:
        x = [places[row["visit"]] for row in visits]
        total = [row["volume_mm3"] / 1000 for row in visits]
        axes.plot(x, total, color=QUIET[theme], lw=3, alpha=0.45, label="all")
        styles = zip(
            cycle(SERIES[theme]),
            cycle(_MARKERS),
            cycle(np.repeat(np.arange(len(_DASHES)), len(SERIES[theme]))),
            strict=False,
        )
        for (name, rows), (colour, marker, dash) in zip(
            rows_by_track.items(), styles, strict=False
        ):
            axes.plot(
                [places[row["visit"]] for row in rows],
                [row["volume_mm3"] / 1000 for row in rows],
                color=colour,
                ls=_DASHES[dash],
                marker=marker,
                ms=4,
                label=name.rpartition("_")[2],
            )
            _mark(axes, theme, rows, places)
        _label_time(axes, ticks, label)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{patient}: volume [ml]")
        if len(rows_by_track) <= MAX_NAMED:
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(1.0, 1.02),
                fontsize=8,
                handlelength=1.8,
                labelspacing=0.3,
            )

    return chart(
        draw,
        name=patient,
        alt=f"Volume of each lesion of {patient} by time.",
        size_in=PATIENT_SIZE_IN,
    )


def lesion_chart(
    track: str, rows: Sequence[Record], visits: Sequence[Record], *, ratio: float
) -> page.Figure:
    """Volume of one lesion with what would be progression.

    Args:
      track: its name.
      rows: its rows of lesions.csv.
      visits: rows of visits.csv of its patient, for the axis of time.
      ratio: growth over the nadir that is progression.
    """
    places, ticks, label = _time(visits)

    def draw(axes: Axes, theme: Theme) -> None:
        x = np.array([places[row["visit"]] for row in rows], np.float64)
        volumes = np.array([row["volume_mm3"] for row in rows], np.float64)
        limits = ratio * np.array([row["nadir_mm3"] for row in rows], np.float64)
        colour = SERIES[theme][0]
        axes.plot(x, limits, color=QUIET[theme], lw=1, ls=(0, (3, 2)))
        axes.plot(x, volumes, color=colour, marker="o", ms=4.5)
        _mark(axes, theme, rows, places, scale=1.0)
        _label_time(axes, ticks, label)
        high = float(np.nanmax([*volumes, *limits[np.isfinite(limits)], 1.0]))
        axes.set_ylim(-0.04 * high, 1.18 * high)
        axes.set_title(f"{track} [mm\u00b3]")

    return chart(
        draw,
        name=track,
        alt=f"Volume of lesion {track} by time, and {ratio:g} times its nadir.",
        size_in=LESION_SIZE_IN,
    )


def _mark(
    axes: Axes,
    theme: Theme,
    rows: Sequence[Record],
    places: Mapping[str, float],
    *,
    scale: float = 1e-3,
) -> None:
    """A ring where progression begins, a cross where the lesion is not there."""
    for row in rows:
        x, y = places[row["visit"]], row["volume_mm3"] * scale
        if row["is_progression"]:
            axes.scatter([x], [y], s=90, facecolors="none", edgecolors=INK[theme])
        if not row["is_present"]:
            axes.scatter([x], [y], s=30, marker="x", color=INK[theme], zorder=3)


def _time(
    visits: Sequence[Record],
) -> tuple[dict[str, float], list[tuple[float, str]], str]:
    """Place of each visit, ticks of the axis, and its label."""
    names = [row["visit"] for row in visits]
    days: Float[np.ndarray, " n"] = np.arange(len(visits), dtype=np.float64)
    if not all(row["date"] for row in visits):
        places = dict(zip(names, days.tolist(), strict=True))
        return places, [(places[name], name) for name in names], "visit"
    dates = [date.fromisoformat(row["date"]) for row in visits]
    days = np.array([(day - dates[0]).days for day in dates], np.float64)
    places = dict(zip(names, days.tolist(), strict=True))
    ticks = [(place, f"{place:.0f}") for place in places.values()]
    step = -(-len(ticks) // 7)  # at most seven numbers side by side
    return places, ticks[::step], "days since the first scan"


def _label_time(axes: Axes, ticks: Sequence[tuple[float, str]], label: str) -> None:
    axes.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.set_xlabel(label)
