"""Draws the figures of the 2-D study (Kaur and Singh 2024): its numbers 3 to 11."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from bmjax.planning.labels import LABEL_COLOURS
from bmjax.report import page, slices
from bmjax.report.curves import panels
from bmjax.report.slices import PLANES
from bmjax.report.style import INK, QUIET, SERIES, Theme

CHANNEL_TITLES = {"t1n": "T1", "t2w": "T2", "t1c": "T1c", "t2f": "FLAIR"}
# a mask without classes is drawn as enhancing tumour
_COLOURS = {**LABEL_COLOURS, "metastasis": LABEL_COLOURS["ET"]}
_NAMES = {
    "NETC": "necrosis",
    "SNFH": "oedema",
    "ET": "enhancing tumour",
    "metastasis": "metastasis",
}
Grey = Float[np.ndarray, "y x"]
Mask = Integer[np.ndarray, "y x"]


def modalities(
    image: Float[np.ndarray, "y x c"],
    labels: Mask,
    *,
    channels: Sequence[str],
    classes: Sequence[str],
    exam: str,
) -> page.Figure:
    """Figure 3: a slice in every channel, and its labels."""

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots(1, len(channels) + 1)
        for ax, channel, i in zip(axes, channels, range(len(channels)), strict=False):
            _show(ax, image[..., i], CHANNEL_TITLES.get(channel, channel))
        _show(axes[-1], _painted(np.zeros_like(labels, float), labels, classes), "mask")
        _key(canvas, axes[-1], classes)

    return panels(
        draw,
        name="figure_03_modalities",
        size_in=(9.4, 2.6),
        alt=f"The channels of a slice of {exam}, and its labels.",
        caption=f"Figure 3. The four channels as the networks see them, and the labels "
        f"({exam}).",
    )


def primaries(counts: Mapping[str, int]) -> page.Figure:
    """Figure 4: primary cancers, as the manifest lists them."""
    total = sum(counts.values())

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.add_subplot()
        axes.pie(
            list(counts.values()),
            labels=[f"{name} {n / total:.1%}" for name, n in counts.items()],
            colors=SERIES[theme][: len(counts)],
            startangle=90,
            counterclock=False,
            wedgeprops={"linewidth": 1, "edgecolor": canvas.get_facecolor()},
        )

    return panels(
        draw,
        name="figure_04_primaries",
        size_in=(4.7, 3.4),
        alt="Shares of primary cancers among the exams.",
        caption=f"Figure 4. Primary cancers of {total} exams. The paper: lung 39.0 %, "
        "breast 24.5 %, melanoma 16.3 %, renal 4.3 %, other 15.8 %.",
    )


def planes(
    flair: Float[np.ndarray, "z y x"],
    centre_vox: tuple[int, int, int],
    *,
    spacing_mm: tuple[float, float, float],
    exam: str,
) -> page.Figure:
    """Figure 5: FLAIR in three planes that meet in a voxel."""
    low, high = slices.window(flair)
    size = (flair.shape[0], flair.shape[1], flair.shape[2])
    widths_mm = [
        slices.cut(flair, plane, 0).shape[1] * slices.pixel_mm(spacing_mm, plane)[1]
        for plane in PLANES
    ]

    def draw(canvas: Canvas, theme: Theme) -> None:
        grid = canvas.subplots(1, 3, width_ratios=widths_mm)  # one scale for all
        for ax, plane in zip(grid, PLANES, strict=True):
            cut = slices.cut(flair, plane, centre_vox[slices.CUT_AXIS[plane]])
            height_mm, width_mm = slices.pixel_mm(spacing_mm, plane)
            extent = (0, cut.shape[1] * width_mm, cut.shape[0] * height_mm, 0)
            _show(ax, slices.grey(cut, low=low, high=high), plane, extent=extent)
            top, left = slices.place_mm(
                centre_vox, plane, size=size, spacing_mm=spacing_mm
            )
            ax.axvline(left, color=SERIES["dark"][0], lw=0.8)
            ax.axhline(top, color=SERIES["dark"][0], lw=0.8)

    return panels(
        draw,
        name="figure_05_planes",
        size_in=(8.4, 3.0),
        alt=f"FLAIR of {exam} in three planes with a crosshair.",
        caption=f"Figure 5. FLAIR of {exam}; the planes meet in its largest lesion. "
        "The patient's right is on the left.",
    )


def split(sets: Mapping[str, tuple[int, int]], *, by: str) -> page.Figure:
    """Figure 6: exams and patients of each set."""

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.add_subplot()
        for shift, title, i in ((-0.2, "exams", 0), (0.2, "patients", 1)):
            places = np.arange(len(sets)) + shift
            heights = [counts[i] for counts in sets.values()]
            bars = axes.bar(places, heights, 0.38, color=SERIES[theme][i], label=title)
            axes.bar_label(bars, color=INK[theme], fontsize=8)
        axes.set_xticks(range(len(sets)), list(sets))
        axes.margins(y=0.12)
        axes.legend()

    return panels(
        draw,
        name="figure_06_split",
        size_in=(4.7, 2.8),
        alt="Bars: exams and patients of each set.",
        caption=f"Figure 6. The three sets, drawn by {by}. The paper's 413 exams gave "
        "280, 83 and 50.",
    )


@dataclass(frozen=True)
class Stage:
    """One stage of a network, as it was run.

    Attributes:
      name: path of the module.
      size: rows and columns of its output.
      features: channels of its output.
      num_params: trained parameters of it.
    """

    name: str
    size: tuple[int, int]
    features: int
    num_params: int

    @property
    def is_encoder(self) -> bool:
        """Whether it is on the way down."""
        return self.name.startswith("encoder")


def network(stages: Sequence[Stage], *, title: str, num_skips: int) -> page.Figure:
    """Figure 7: a network, drawn from the outputs of its own modules.

    Args:
      stages: in the order in which they run.
      title: of the network.
      num_skips: levels whose encoder output goes on to the decoder.
    """
    down = [stage for stage in stages if stage.is_encoder]
    up = [stage for stage in stages if not stage.is_encoder]
    depth_of = {size: i for i, size in enumerate(dict.fromkeys(s.size for s in down))}

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.add_subplot()
        axes.set_axis_off()
        places = []
        for i, stage in enumerate((*down, *up)):
            x, y = 1.55 * i, -depth_of[stage.size]
            colour = SERIES[theme][0 if stage.is_encoder else 2]
            box = Rectangle((x, y), 1.25, 0.56, fc=colour, ec="none", alpha=0.22)
            axes.add_patch(box)
            rows, columns = stage.size
            text = (
                f"{stage.name}\n{rows} x {columns} x {stage.features}\n"
                f"{stage.num_params:,} params"
            )
            axes.text(x + 0.625, y + 0.28, text, ha="center", va="center", fontsize=6.2)
            places.append((x, y))
        arrow = {"arrowstyle": "-|>", "color": QUIET[theme], "lw": 0.9}
        for (x0, y0), (x1, y1) in zip(places, places[1:], strict=False):
            below = y1 < y0
            start = (x0 + 1.25, y0 + (0.1 if below else 0.28))
            axes.annotate("", (x1, y1 + 0.28), start, arrowprops=arrow)
        for i in range(num_skips):
            twin = next(
                len(down) + j for j, s in enumerate(up) if s.size == down[i].size
            )
            start = (places[i][0] + 1.25, places[i][1] + 0.45)
            end = (places[twin][0], places[twin][1] + 0.45)
            axes.annotate(
                "",
                end,
                start,
                arrowprops={**arrow, "ls": "--", "color": SERIES[theme][1]},
            )
        axes.set_xlim(-0.1, 1.55 * len(places))
        axes.set_ylim(-len(depth_of) + 0.9, 0.75)

    total = sum(stage.num_params for stage in stages)
    return panels(
        draw,
        name="figure_07_network",
        size_in=(10.4, 3.6),
        alt=f"{title}: its stages with size, channels and parameters.",
        caption=f"Figure 7. {title}, drawn from its modules as they run "
        f"({total:,} trained parameters). Down: two times convolution, ReLU, batch "
        "norm; max pool, dropout. Up: nearest upsampling. Dashed: skips.",
    )


def prediction(
    flair: Grey, truth: Mask, predicted: Mask, *, classes: Sequence[str], exam: str
) -> page.Figure:
    """Figure 8: FLAIR, reference and prediction of one slice."""

    def draw(canvas: Canvas, theme: Theme) -> None:
        axes = canvas.subplots(1, 3)
        _show(axes[0], flair, "FLAIR")
        _show(axes[1], _painted(flair, truth, classes), "reference")
        _show(axes[2], _painted(flair, predicted, classes), "prediction")
        _key(canvas, axes[-1], classes)

    return panels(
        draw,
        name="figure_08_prediction",
        size_in=(8.4, 3.5),
        alt=f"FLAIR, reference labels and the U-Net's labels of a slice of {exam}.",
        caption=f"Figure 8. The U-Net on the test slice with most tumour ({exam}).",
    )


def history(
    lines: Sequence[Mapping[str, float]], *, number: int, name: str, title: str
) -> page.Figure:
    """Figures 9 to 11: a network's measures by epoch, both definitions.

    Args:
      lines: of its log.
      number: of the figure.
      name: of the network, for the file.
      title: of the network.
    """
    epochs = [line["epoch"] for line in lines]
    charts = (
        ("accuracy", {"": "accuracy"}),
        ("loss", {"": "loss"}),
        ("Dice", {"as published": "legacy_dice", "sound": "dice"}),
        ("IoU", {"as published": "legacy_iou", "sound": "iou"}),
    )
    dashes = {"training": "-", "validation": "--"}

    def draw(canvas: Canvas, theme: Theme) -> None:
        colours = {"": INK[theme], "as published": SERIES[theme][0]}
        colours |= {"sound": SERIES[theme][1]}
        grid = canvas.subplots(2, 2).flat
        for ax, (heading, measures) in zip(grid, charts, strict=True):
            for definition, measure in measures.items():
                for start, dash in (("", "-"), ("val_", "--")):
                    values = [line[start + measure] for line in lines]
                    # one epoch would be no line
                    mark = dash if len(epochs) > 1 else "o"
                    ax.plot(epochs, values, mark, color=colours[definition])
            ax.set_title(heading)
            ax.xaxis.get_major_locator().set_params(integer=True)
            if heading in ("Dice", "IoU"):
                ax.set_xlabel("epoch")
                ax.set_ylim(-0.02, 1.02)
        keys = [Line2D([], [], color=colours[n]) for n in ("as published", "sound")]
        keys += [Line2D([], [], color=INK[theme], ls=dash) for dash in dashes.values()]
        names = ["as published", "sound", *dashes]
        canvas.legend(keys, names, loc="outside lower center", ncols=len(names))

    return panels(
        draw,
        name=f"figure_{number:02d}_{name}",
        size_in=(7.2, 5.2),
        alt=f"Accuracy, loss, Dice and IoU of {title} by epoch.",
        caption=f"Figure {number}. {title}, seed 0: training (running, with dropout) "
        "and validation; Dice and IoU as published and sound (lesion, mean over "
        "exams).",
    )


def _show(
    ax: Axes,
    picture: Shaped[np.ndarray, "..."],
    title: str,
    *,
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    ax.imshow(picture, cmap="gray", interpolation="nearest", extent=extent)
    ax.set_title(title, loc="center", fontsize=9, pad=4)
    ax.set_axis_off()


def _painted(
    grey: Grey, labels: Mask, classes: Sequence[str]
) -> Float[np.ndarray, "y x rgb"]:
    """A grey slice with its labels in their colours."""
    low, high = float(grey.min()), float(grey.max())
    scaled = (grey - low) / (high - low) if high > low else np.zeros_like(grey)
    picture = np.repeat(scaled[..., None], 3, axis=-1)
    for value, name in enumerate(classes, start=1):
        picture[labels == value] = to_rgb(_COLOURS[name])
    return picture


def _key(canvas: Canvas, ax: Axes, classes: Sequence[str]) -> None:
    chips = [Rectangle((0, 0), 1, 1, fc=_COLOURS[name]) for name in classes]
    canvas.legend(
        chips,
        [_NAMES[name] for name in classes],
        loc="outside lower center",
        ncols=len(classes),
    )
