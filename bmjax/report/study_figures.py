"""Figures of a study: means by region with intervals, and missed lesions by size.

Each is drawn for light and dark pages, and may be written as PNG and PDF for a paper.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.figure
from matplotlib.axes import Axes

from bmjax.report import page
from bmjax.report.curves import panels
from bmjax.report.style import INK, QUIET, SERIES, Theme

Described = Mapping[str, float | int]
Draw = Callable[[Sequence[Axes], Theme], None]
_BAR_IN = 0.26  # of a bar with its count above it
_LETTER_IN = 0.08  # of a legend


def means_figure(
    regions: Mapping[str, Mapping[str, Mapping[str, Described]]],
    *,
    title: str,
    unit: str = "",
    stem: Path | None = None,
) -> page.Figure:
    """Figures 1 and 2 of Luu et al. (2024): means with 95 % CI, one panel a region.

    Args:
      regions: region -> series (such as fine-tuned, from scratch) -> model -> n, mean,
        ci95_low, ci95_high.
      title: the quantity.
      unit: of it, for the axis.
      stem: where to write it as .png and .pdf too, without the suffix.
    """

    def draw(axes: Sequence[Axes], theme: Theme) -> None:
        letters = "abcdefgh"
        for letter, axis, (region, series) in zip(
            letters, axes, regions.items(), strict=False
        ):
            _draw_means(axis, theme, series)
            axis.set_title(f"({letter}) {region}")
        axes[0].set_ylabel(f"{title}{f' [{unit}]' if unit else ''}")
        handles, labels = axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure = axes[0].figure
            figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return _figure(
        draw,
        num_panels=len(regions),
        size_in=(3.1 * len(regions) + 0.4, 3.1) if len(regions) > 1 else (5.0, 3.1),
        alt=f"{title} by region and model; bars are 95 % confidence intervals.",
        caption=f"Mean {title} over the test cases; bars: 95 % CI by Student's t.",
        stem=stem,
    )


def missed_figure(
    missed: Mapping[str, Mapping[str, tuple[int, int]]],
    *,
    region: str,
    stem: Path | None = None,
) -> page.Figure:
    """Share of reference lesions that each method missed, by size.

    Args:
      missed: method -> size -> lesions missed, and lesions there.
      region: what the lesions are of.
      stem: where to write it as .png and .pdf too, without the suffix.
    """
    sizes = list(dict.fromkeys(size for found in missed.values() for size in found))
    num_bars = len(missed) * len(sizes)
    width_in = max(5.0, 0.8 + _BAR_IN * num_bars)
    longest_in = _LETTER_IN * max(map(len, missed), default=0) + 0.5
    columns = max(1, min(3, int(width_in / longest_in)))

    def draw(axes: Sequence[Axes], theme: Theme) -> None:
        (axis,) = axes
        width = 0.84 / len(missed)
        for i, (name, found) in enumerate(missed.items()):
            colour = SERIES[theme][i % len(SERIES[theme])]
            for j, size in enumerate(sizes):
                lost, total = found.get(size, (0, 0))
                x = j - 0.42 + (i + 0.5) * width
                share = lost / total if total else 0.0
                label = name if j == 0 else None
                axis.bar(x, share, width * 0.9, color=colour, label=label)
                axis.annotate(
                    f"{lost}/{total}" if total else "none",
                    (x, share),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=6.5,
                    color=QUIET[theme],
                )
        axis.set_xticks(range(len(sizes)), sizes)
        axis.set_ylim(0, 1.1)
        axis.set_ylabel("share of lesions missed")
        axis.set_title(f"{region} lesions missed, by equivalent diameter")
        axis.figure.legend(loc="outside lower center", ncols=columns)

    return _figure(
        draw,
        num_panels=1,
        size_in=(width_in, 2.9 + 0.2 * -(-len(missed) // columns)),
        alt=f"Share of {region} lesions missed by each method, by size.",
        caption="Above each bar: lesions missed / lesions there.",
        stem=stem,
    )


def _draw_means(
    axis: Axes, theme: Theme, series: Mapping[str, Mapping[str, Described]]
) -> None:
    models = list(dict.fromkeys(model for found in series.values() for model in found))
    width = 0.4 / max(len(series), 1)
    for i, (name, found) in enumerate(series.items()):
        colour = SERIES[theme][i % len(SERIES[theme])]
        for j, model in enumerate(models):
            described = found.get(model)
            if described is None or described["mean"] != described["mean"]:
                continue
            x, mean = j - 0.2 + (i + 0.5) * width, described["mean"]
            low, high = described["ci95_low"], described["ci95_high"]
            if low == low:
                axis.plot([x, x], [low, high], color=colour, lw=1.4)
                for end in (low, high):
                    axis.plot([x - 0.05, x + 0.05], [end, end], color=colour, lw=1.4)
            axis.plot([x], [mean], "o", color=colour, ms=5.5, label=None)
            if j == 0:
                axis.lines[-1].set_label(name)
            is_left = i < len(series) // 2  # away from the bars of the other series
            axis.annotate(
                f"{mean:.3f}" if mean < 1 else f"{mean:.1f}",
                (x, mean),
                xytext=(-5 if is_left else 5, 0),
                textcoords="offset points",
                ha="right" if is_left else "left",
                va="center",
                fontsize=7,
                color=INK[theme],
            )
    names = [model.replace("_", "\n") if len(model) > 11 else model for model in models]
    axis.set_xticks(range(len(models)), names)
    axis.set_xlim(-0.6, len(models) - 0.4)


def _figure(
    draw: Draw,
    *,
    num_panels: int,
    size_in: tuple[float, float],
    alt: str,
    caption: str,
    stem: Path | None,
) -> page.Figure:
    def draw_all(figure: matplotlib.figure.Figure, theme: Theme) -> None:
        axes = figure.subplots(1, num_panels, sharey=num_panels > 1, squeeze=False)
        draw(list(axes[0]), theme)

    found = panels(
        draw_all,
        name="" if stem is None else stem.name,
        alt=alt,
        caption=caption,
        size_in=size_in,
    )
    if stem is not None:
        found.write(stem.parent)
    return found
