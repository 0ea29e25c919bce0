"""Draws the charts of a page: training curves, Dice by case, lesions by size."""

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator, PercentFormatter

from bmjax.report import page
from bmjax.report.style import DPI, INK, QUIET, SERIES, THEMES, Theme, house_style

SIZE_IN = (4.7, 2.95)
Record = Mapping[str, Any]
Draw = Callable[[Axes, Theme], None]
DETECTION_LIMITS_MM = (3.0, 5.0, 10.0)


def chart(
    draw: Draw,
    *,
    alt: str,
    caption: str = "",
    size_in: tuple[float, float] = SIZE_IN,
) -> page.Figure:
    """Draw once for light and once for dark pages.

    Args:
      draw: draws on the axes, given the theme.
      alt: what it shows, for those who cannot see it.
      caption: text below it.
      size_in: width and height [inch]; 200 pixels to the inch.
    """
    pictures = {}
    for theme in THEMES:
        with house_style(theme):
            figure = matplotlib.figure.Figure(figsize=size_in, layout="constrained")
            draw(figure.add_subplot(), theme)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=DPI)
            pictures[theme] = buffer.getvalue()
    width, height = (round(side * DPI) for side in size_in)
    return page.Figure(
        light=pictures["light"],
        dark=pictures["dark"],
        size=(width, height),
        alt=alt,
        caption=caption,
    )


def training_charts(
    records_by_run: Mapping[str, Sequence[Record]],
) -> tuple[page.Figure, ...]:
    """Loss, pseudo-Dice, learning rate and time per step of one or more runs.

    Args:
      records_by_run: lines of metrics.jsonl by the name of the run.
    """
    runs = {name: list(records) for name, records in records_by_run.items() if records}
    if not runs:
        return ()
    names = ", ".join(runs)
    charts = [
        chart(lambda a, t: draw_loss(a, t, runs), alt=f"Loss by step of {names}.")
    ]
    regions = dict.fromkeys(
        region
        for records in runs.values()
        for record in records
        for region in record.get("pseudo_dice") or ()
    )
    if len(runs) == 1 and regions:
        ((name, records),) = runs.items()
        by_region = {r: series(records, "val", "pseudo_dice", r) for r in regions}
        charts.append(
            chart(
                lambda a, t: draw_lines(a, t, by_region, "Pseudo-Dice, validation"),
                alt=f"Pseudo-Dice of validation patches by step of {name}.",
            )
        )
    else:
        for region in regions:
            by_run = {
                n: series(records, "val", "pseudo_dice", region)
                for n, records in runs.items()
            }
            charts.append(_pseudo_dice_chart(region, by_run))
    rates = {n: series(records, "train", "lr") for n, records in runs.items()}
    waits = {n: series(records, "train", "wait_ms") for n, records in runs.items()}
    if len(runs) == 1:
        ((_, records),) = runs.items()
        whole = series(records, "train", "step_ms")
        times = {"whole step": whole, "waiting for data": next(iter(waits.values()))}
        title = "Time per step [ms], smoothed"
    else:
        times, title = waits, "Waiting for data, per step [ms], smoothed"
    smooth = {name: (steps, _smooth(values)) for name, (steps, values) in times.items()}
    for by_name, heading in ((rates, "Learning rate"), (smooth, title)):
        if any(len(steps) for steps, _ in by_name.values()):
            charts.append(_measured_chart(heading, by_name))
    return tuple(charts)


def dice_strip(
    rows_by_name: Mapping[str, Sequence[Record]], *, regions: Sequence[str]
) -> page.Figure:
    """Dice of every case as a dot, means as lines, by region and method."""

    def draw(axes: Axes, theme: Theme) -> None:
        colours = cycle(SERIES[theme])
        width = 0.8 / max(len(rows_by_name), 1)
        for i, (name, rows) in enumerate(rows_by_name.items()):
            colour = next(colours)
            for j, region in enumerate(regions):
                values = _finite(row.get(f"dice_{region}") for row in rows)
                centre = j - 0.4 + (i + 0.5) * width
                x = centre + _spread(values, width * 0.55)
                label = name if j == 0 else None
                axes.scatter(x, values, s=22, color=colour, alpha=0.75, lw=0)
                if len(values):
                    half, mean = width * 0.36, float(values.mean())
                    ends = [centre - half, centre + half]
                    axes.plot(ends, [mean, mean], color=colour, lw=2.4, label=label)
                    axes.annotate(
                        f"{mean:.2f}",
                        (centre + half, mean),
                        xytext=(2, 2),
                        textcoords="offset points",
                        fontsize=7.5,
                        color=INK[theme],
                    )
        axes.set_xticks(range(len(regions)), regions)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlim(-0.5, len(regions) - 0.4)
        axes.set_title("Dice by case (line: mean)")
        if len(rows_by_name) > 1:
            _legend(axes, len(rows_by_name))

    return chart(draw, alt="Dice of each case by region; lines are means.")


def lesion_scatter(
    lesions_by_name: Mapping[str, Sequence[Record]], *, region: str
) -> page.Figure:
    """Dice of each reference lesion against its diameter; missed ones are crosses."""

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
                [r["diameter_mm"] for r in found],
                [r["dice"] for r in found],
                s=20,
                color=colour,
                alpha=0.7,
                lw=0,
                label=f"{name}{': ' if name else ''}{len(found)} of {len(own)} found",
            )
            axes.scatter(
                [r["diameter_mm"] for r in missed],
                [0.0] * len(missed),
                s=26,
                marker="x",
                lw=1.3,
                color=colour,
            )
        for limit in DETECTION_LIMITS_MM:
            axes.axvline(limit, color=QUIET[theme], lw=0.7, ls=(0, (2, 3)), zorder=0)
        axes.set_xscale("log")
        axes.set_xticks([1, 3, 5, 10, 30, 60], ["1", "3", "5", "10", "30", "60"])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("equivalent diameter of the lesion [mm]")
        axes.set_ylim(-0.05, 1.03)
        axes.set_title(f"Dice of each {region} lesion (cross: missed)")
        _legend(axes, 2)

    return chart(draw, alt=f"Dice of each {region} lesion by its diameter.")


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
                    fontsize=7,
                    color=QUIET[theme],
                )
        axes.set_xticks(range(len(bins)), bins)
        axes.set_ylim(0, 1.12)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_title(f"{region} lesions found, by equivalent diameter")
        if len(summaries_by_name) > 1:
            _legend(axes, len(summaries_by_name))

    return chart(draw, alt=f"Share of {region} lesions found, by size.")


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
            _legend(axes, len(rows_by_name))

    return chart(draw, alt=f"Predicted against reference {region} volume of each case.")


Series = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


def _pseudo_dice_chart(region: str, by_run: Mapping[str, Series]) -> page.Figure:
    return chart(
        lambda a, t: draw_lines(a, t, by_run, f"Pseudo-Dice {region}, validation"),
        alt=f"Pseudo-Dice of {region} in validation patches by step.",
    )


def _measured_chart(title: str, by_run: Mapping[str, Series]) -> page.Figure:
    return chart(lambda a, t: draw_plain(a, t, by_run, title), alt=f"{title} by step.")


def draw_plain(
    axes: Axes, theme: Theme, by_name: Mapping[str, Series], title: str
) -> None:
    """Lines from zero up, one for each name."""
    for colour, (name, (steps, values)) in zip(
        cycle(SERIES[theme]), by_name.items(), strict=False
    ):
        axes.plot(steps, values, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_title(title)
    if len(by_name) > 1:
        _legend(axes, len(by_name))


def draw_loss(axes: Axes, theme: Theme, runs: Mapping[str, Sequence[Record]]) -> None:
    """Training and validation loss of one or more runs."""
    colours = SERIES[theme]
    for i, (name, records) in enumerate(runs.items()):
        colour = colours[i % len(colours)]
        val_colour = colours[1] if len(runs) == 1 else colour
        steps, values = series(records, "train", "loss")
        if len(values) > 40:
            axes.plot(steps, values, color=colour, lw=0.7, alpha=0.3)
            values = _smooth(values)
        label = "training" if len(runs) == 1 else name
        axes.plot(steps, values, color=colour, label=label)
        steps, values = series(records, "val", "loss")
        axes.plot(steps, values, "o--", color=val_colour, ms=3, lw=1.1)
        axes.lines[-1].set_label("validation" if len(runs) == 1 else "_")
    axes.set_xlabel("step")
    axes.set_title("Loss" if len(runs) == 1 else "Loss (dashed: validation)")
    _legend(axes, 3)


def draw_lines(
    axes: Axes, theme: Theme, by_name: Mapping[str, Series], title: str
) -> None:
    """Lines between 0 and 1, one for each name."""
    for colour, (name, (steps, values)) in zip(
        cycle(SERIES[theme]), by_name.items(), strict=False
    ):
        axes.plot(steps, values, color=colour, marker="o", ms=3, label=name)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("step")
    axes.set_title(title)
    _legend(axes, 3)


def _legend(axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.17 if axes.get_xlabel() else -0.1),
            ncols=min(columns, 3),
            handlelength=1.4,
            columnspacing=1.4,
        )


def series(
    records: Sequence[Record], kind: str, name: str, part: str | None = None
) -> Series:
    """Steps and values of one logged quantity, without what is missing."""
    points = []
    for record in records:
        value = record.get(name) if record.get("kind") == kind else None
        if part is not None and isinstance(value, Mapping):
            value = value.get(part)
        if isinstance(value, int | float) and np.isfinite(value):
            points.append((record["step"], value))
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, np.float64), np.array(values, np.float64)


def _smooth(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Exponential moving average over about a thirtieth of the curve."""
    keep = 1 - 1 / max(len(values) / 30, 1.0)
    smooth, average, weight = [], 0.0, 0.0
    for value in values:
        average, weight = keep * average + value, keep * weight + 1
        smooth.append(average / weight)
    return np.array(smooth)


def _spread(values: Float[np.ndarray, " n"], width: float) -> Float[np.ndarray, " n"]:
    """Sideways places of dots, the same each time, so that equal ones stay visible."""
    return width * (np.arange(len(values)) * 0.618 % 1.0 - 0.5)


def _finite(values: Any) -> Float[np.ndarray, " n"]:
    kept = [v for v in values if v is not None and np.isfinite(v)]
    return np.array(kept, np.float64)
