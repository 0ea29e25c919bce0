"""Draws the scores of an evaluation: by case, by lesion, by rate of false positives."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from bmjax.metrics.lesions import SIZE_BINS_MM
from bmjax.report import page
from bmjax.report.curves import Record, chart, legend
from bmjax.report.style import INK, QUIET, SERIES, Theme

MIN_BOX = 5  # a box of fewer cases says less than its dots
STRIPS = {  # title, whether it lies between 0 and 1
    "dice": ("Dice by case", True),
    "lesionwise_dice_brats2023": ("Lesion-wise Dice by case (BraTS-METS 2023)", True),
    "hd95_surfel": ("HD95 by case [mm]", False),
}


def strip(
    rows_by_name: Mapping[str, Sequence[Record]],
    *,
    regions: Sequence[str],
    metric: str = "dice",
) -> page.Figure:
    """A metric of every case as a dot, with box and mean, by region and method."""
    title, is_share = STRIPS[metric]

    def draw(axes: Axes, theme: Theme) -> None:
        width = 0.8 / max(len(rows_by_name), 1)
        for i, (colour, (name, rows)) in enumerate(
            zip(cycle(SERIES[theme]), rows_by_name.items(), strict=False)
        ):
            for j, region in enumerate(regions):
                values = _finite(row.get(f"{metric}_{region}") for row in rows)
                centre = j - 0.4 + (i + 0.5) * width
                if len(values) >= MIN_BOX:
                    _box(axes, values, centre, width=width * 0.6, colour=colour)
                x = centre + _spread(values, width * 0.55)
                axes.scatter(x, values, s=18, color=colour, alpha=0.75, lw=0)
                if len(values):
                    half, mean = width * 0.36, float(values.mean())
                    ends = [centre - half, centre + half]
                    label = name if j == 0 else None
                    axes.plot(ends, [mean, mean], color=colour, lw=2.4, label=label)
                    axes.annotate(
                        f"{mean:.2f}" if is_share else f"{mean:.1f}",
                        (centre + half, mean),
                        xytext=(2, 2),
                        textcoords="offset points",
                        fontsize=8,
                        color=INK[theme],
                    )
        axes.set_xticks(range(len(regions)), regions)
        if is_share:
            axes.set_ylim(-0.03, 1.03)
        else:
            axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
        axes.set_xlim(-0.5, len(regions) - 0.4)
        axes.set_title(title)
        if len(rows_by_name) > 1:
            legend(axes, len(rows_by_name))

    return chart(
        draw,
        name=f"{metric}_by_case",
        alt=f"{title} and region, as dots.",
        caption="Bold line: mean. Box: quartiles and median, from "
        f"{MIN_BOX} cases on; whiskers: 1.5 times the box.",
    )


def volume_scatter(
    rows_by_name: Mapping[str, Sequence[Record]], *, region: str
) -> page.Figure:
    """Predicted against reference volume of each case."""

    def draw(axes: Axes, theme: Theme) -> None:
        largest = 0.1
        for colour, (name, rows) in zip(
            cycle(SERIES[theme]), rows_by_name.items(), strict=False
        ):
            real = [row[f"reference_ml_{region}"] for row in rows]
            predicted = [row[f"predicted_ml_{region}"] for row in rows]
            largest = max(largest, *real, *predicted)
            axes.scatter(
                real, predicted, s=24, color=colour, alpha=0.8, lw=0, label=name
            )
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_yscale("symlog", linthresh=1.0)
        ends = [0.0, 1.3 * largest]
        axes.plot(ends, ends, color=QUIET[theme], lw=0.9, ls=(0, (4, 3)), zorder=0)
        axes.set(xlim=(-0.08, ends[1]), ylim=(-0.08, ends[1]))
        ticks = [t for t in (0, 1, 3, 10, 30, 100, 300, 1000) if t <= ends[1]]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [str(t) for t in ticks])
            axis.set_minor_locator(NullLocator())
        axes.set_xlabel("reference [ml]")
        axes.set_title(f"{region} volume, predicted [ml] (dashed: equal)")
        if len(rows_by_name) > 1:
            legend(axes, len(rows_by_name))

    return chart(
        draw,
        name=f"volume_{region}",
        alt=f"Predicted against reference {region} volume of each case.",
    )


def lesion_scatter(
    lesions_by_name: Mapping[str, Sequence[Record]], *, region: str
) -> page.Figure:
    """Dice of each reference lesion against its volume; missed ones are crosses."""

    def draw(axes: Axes, theme: Theme) -> None:
        for colour, (name, rows) in zip(
            cycle(SERIES[theme]), lesions_by_name.items(), strict=False
        ):
            own = [
                r for r in rows if r["region"] == region and r["kind"] == "reference"
            ]
            found = [r for r in own if r["is_found"]]
            missed = [r for r in own if not r["is_found"]]
            axes.scatter(
                [r["volume_mm3"] for r in found],
                [r["dice"] for r in found],
                s=20,
                color=colour,
                alpha=0.7,
                lw=0,
                label=f"{name}{': ' if name else ''}{len(found)} of {len(own)} found",
            )
            axes.scatter(
                [r["volume_mm3"] for r in missed],
                [0.0] * len(missed),
                s=26,
                marker="x",
                lw=1.3,
                color=colour,
                label="missed" if missed and len(lesions_by_name) == 1 else None,
            )
        for diameter_mm in SIZE_BINS_MM:
            volume_mm3 = np.pi * diameter_mm**3 / 6
            axes.axvline(
                volume_mm3, color=QUIET[theme], lw=0.7, ls=(0, (2, 3)), zorder=0
            )
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("volume of the lesion [mm\u00b3]")
        axes.set_ylim(-0.05, 1.03)
        axes.set_title(f"Dice of each {region} lesion (cross: missed)")
        legend(axes, 2)

    return chart(
        draw,
        name=f"lesions_{region}",
        alt=f"Dice of each {region} lesion by its volume; missed ones are crosses.",
        caption="Dotted: spheres of 3, 5 and 10 mm diameter.",
    )


def detection_bars(
    summaries_by_name: Mapping[str, Record], *, region: str
) -> page.Figure:
    """Share of reference lesions found, by size."""

    def draw(axes: Axes, theme: Theme) -> None:
        width = 0.8 / max(len(summaries_by_name), 1)
        bins: list[str] = []
        for i, (colour, (name, summary)) in enumerate(
            zip(cycle(SERIES[theme]), summaries_by_name.items(), strict=False)
        ):
            by_size = summary["regions"][region]["detection"]["by_size"]
            bins = list(by_size)
            for j, found in enumerate(by_size.values()):
                x = j - 0.4 + (i + 0.5) * width
                total = found["num_lesions"]
                share = found["num_found"] / total if total else 0.0
                label = name if j == 0 else None
                axes.bar(x, share, width * 0.9, color=colour, alpha=0.85, label=label)
                axes.annotate(
                    f"{found['num_found']}/{total}" if total else "none",
                    (x, share),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=QUIET[theme],
                )
        axes.set_xticks(range(len(bins)), bins)
        axes.set_ylim(0, 1.12)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(f"{region} lesions found, by equivalent diameter")
        if len(summaries_by_name) > 1:
            legend(axes, len(summaries_by_name))

    return chart(
        draw,
        name=f"sensitivity_{region}",
        alt=f"Share of {region} lesions found, by size.",
    )


def froc_chart(points: Sequence[Record], *, region: str) -> page.Figure:
    """Share of lesions found against false positives per case, at every threshold.

    Args:
      points: rows of froc.csv.
      region: whose curve.
    """
    own = [row for row in points if row["region"] == region]

    def draw(axes: Axes, theme: Theme) -> None:
        rates = [row["false_positives_per_case"] for row in own]
        found = [row["sensitivity"] for row in own]
        axes.step(rates, found, where="post", color=SERIES[theme][0])
        axes.set_xscale("symlog", linthresh=1.0)
        ticks = [t for t in (0, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64) if t <= max(rates)]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("false positives per case")
        axes.set_title(f"FROC, {region}: share of lesions found")

    return chart(
        draw,
        name=f"froc_{region}",
        alt=f"Free-response curve of {region} lesions.",
    )


def _box(
    axes: Axes,
    values: Float[np.ndarray, " n"],
    centre: float,
    *,
    width: float,
    colour: str,
) -> None:
    line = {"color": colour, "lw": 0.9, "alpha": 0.8}
    axes.boxplot(
        values,
        positions=[centre],
        widths=width,
        showfliers=False,  # every case is a dot anyway
        manage_ticks=False,
        medianprops=line,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
    )


def _spread(values: Float[np.ndarray, " n"], width: float) -> Float[np.ndarray, " n"]:
    """Sideways places of dots, the same each time, so that equal ones stay visible."""
    return width * (np.arange(len(values)) * 0.618 % 1.0 - 0.5)


def _finite(values: Any) -> Float[np.ndarray, " n"]:
    kept = [v for v in values if v is not None and np.isfinite(v)]
    return np.array(kept, np.float64)
