"""Draws training curves, and any chart in the two colourings of a page."""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import matplotlib.figure
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bmjax.report import page
from bmjax.report.style import DPI, SERIES, Theme, house_style

SIZE_IN = (4.7, 2.95)
_BY_REGION = {
    "pseudo_dice": "Pseudo-Dice, validation",
    "volume_dice": "Dice of whole cases, validation",
}
TICKS = [1, 2, 2.5, 5, 10]  # matplotlib's own
SHARES = {"accuracy": "Accuracy", "dice": "Dice", "iou": "IoU"}
Record = Mapping[str, Any]
Draw = Callable[[Axes, Theme], None]


def chart(
    draw: Draw,
    *,
    name: str,
    alt: str,
    caption: str = "",
    size_in: tuple[float, float] = SIZE_IN,
) -> page.Figure:
    """Draw once for light and once for dark pages.

    Args:
      draw: draws on the axes, given the theme.
      name: of the file that the figure gets where files are asked for.
      alt: what it shows, for those who cannot see it.
      caption: text below it.
      size_in: width and height [inch]; 200 pixels to the inch.
    """

    def draw_all(figure: matplotlib.figure.Figure, theme: Theme) -> None:
        draw(figure.add_subplot(), theme)

    return panels(draw_all, name=name, alt=alt, caption=caption, size_in=size_in)


def panels(
    draw: Callable[[matplotlib.figure.Figure, Theme], None],
    *,
    name: str,
    alt: str,
    caption: str = "",
    size_in: tuple[float, float],
) -> page.Figure:
    """As `chart`, for what makes its own axes on a figure."""

    def drawn(theme: Theme, form: str) -> bytes:
        with house_style(theme):
            figure = matplotlib.figure.Figure(figsize=size_in, layout="constrained")
            draw(figure, theme)
            buffer = io.BytesIO()
            # without a date the same figure is the same file
            undated = {"CreationDate": None} if form == "pdf" else None
            figure.savefig(buffer, format=form, dpi=DPI, metadata=undated)
        return buffer.getvalue()

    width, height = (round(side * DPI) for side in size_in)
    return page.Figure(
        name=name,
        light=drawn("light", "png"),
        dark=drawn("dark", "png"),
        to_pdf=lambda: drawn("light", "pdf"),
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
        chart(
            lambda a, t: draw_loss(a, t, runs),
            name="loss",
            alt=f"Loss by step of {names}.",
        )
    ]
    for kind, title in _BY_REGION.items():
        charts += _dice_charts(runs, kind, title)
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
    charts += _logged_charts(runs)
    for name, by_name, heading in (
        ("learning_rate", rates, "Learning rate"),
        ("time_per_step", smooth, title),
    ):
        if any(len(steps) for steps, _ in by_name.values()):
            charts.append(_measured_chart(name, heading, by_name))
    return tuple(charts)


def _logged_charts(runs: Mapping[str, Sequence[Record]]) -> list[page.Figure]:
    """Those of accuracy, Dice and IoU that the log holds, training and validation."""
    charts = []
    for metric, title in SHARES.items():
        by_name = {
            f"{run} {kind}" if len(runs) > 1 else kind: found
            for run, records in runs.items()
            for kind, short in (("training", "train"), ("validation", "val"))
            if len((found := series(records, short, metric))[0])
        }
        if by_name:
            charts.append(
                chart(
                    partial(draw_lines, by_name=by_name, title=title),
                    name=metric,
                    alt=f"{title} by step.",
                )
            )
    return charts


Series = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


def _dice_charts(
    runs: Mapping[str, Sequence[Record]], kind: str, title: str
) -> list[page.Figure]:
    """Of one run all regions together; of several, each region by run."""
    regions = dict.fromkeys(
        region
        for records in runs.values()
        for record in records
        for region in record.get(kind) or ()
    )
    if len(runs) == 1 and regions:
        ((name, records),) = runs.items()
        by_name = {region: series(records, "val", kind, region) for region in regions}
        return [
            chart(
                partial(draw_lines, by_name=by_name, title=title),
                name=kind,
                alt=f"{title}, by step of {name}.",
            )
        ]
    return [
        chart(
            partial(
                draw_lines,
                by_name={n: series(r, "val", kind, region) for n, r in runs.items()},
                title=f"{region}: {title}",
            ),
            name=f"{kind}_{region}",
            alt=f"{title}: {region} by step.",
        )
        for region in regions
    ]


def _measured_chart(name: str, title: str, by_run: Mapping[str, Series]) -> page.Figure:
    return chart(
        lambda a, t: draw_plain(a, t, by_run, title), name=name, alt=f"{title} by step."
    )


def draw_plain(
    axes: Axes, theme: Theme, by_name: Mapping[str, Series], title: str
) -> None:
    """Lines from zero up, one for each name."""
    for colour, (name, (steps, values)) in zip(
        cycle(SERIES[theme]), by_name.items(), strict=False
    ):
        axes.plot(steps, values, _dot(steps), color=colour, label=name)
    axes.set_ylim(bottom=0)
    _by_step(axes)
    axes.set_title(title)
    if len(by_name) > 1:
        legend(axes, len(by_name))


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
        axes.plot(steps, values, _dot(steps), color=colour, label=label)
        steps, values = series(records, "val", "loss")
        axes.plot(steps, values, "o--", color=val_colour, ms=3, lw=1.1)
        axes.lines[-1].set_label("validation" if len(runs) == 1 else "_")
    _by_step(axes)
    axes.set_title("Loss" if len(runs) == 1 else "Loss (dashed: validation)")
    legend(axes, 3)


def draw_lines(
    axes: Axes, theme: Theme, by_name: Mapping[str, Series], title: str
) -> None:
    """Lines between 0 and 1, one for each name."""
    for colour, (name, (steps, values)) in zip(
        cycle(SERIES[theme]), by_name.items(), strict=False
    ):
        axes.plot(steps, values, color=colour, marker="o", ms=3, label=name)
    axes.set_ylim(-0.02, 1.02)
    _by_step(axes)
    axes.set_title(title)
    legend(axes, 3)


def _by_step(axes: Axes) -> None:
    """Steps are whole, also where the log has only one."""
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, steps=TICKS))


def _dot(steps: Float[np.ndarray, " n"]) -> str:
    """A line of one point would not be seen."""
    return "o" if len(steps) == 1 else "-"


def legend(axes: Axes, columns: int) -> None:
    """What the lines are, below the axes."""
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
