"""Figures and page of the 2-D study, from what its runs left."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bmjax
from bmjax.data import nifti
from bmjax.report import page, slices, study2d
from bmjax.study import iou_beside_dice, table4
from bmjax.study.fit2d import Program
from bmjax.study.kaur2024 import Outcome
from bmjax.study.slices2d import CHANNELS, SliceStore
from bmjax.study.training2d import read_variables
from bmjax.surgery import paths

_HISTORY_NUMBER = {"unet2d": 9, "convnet": 10, "fcn": 11}
# of Table 4, each as wide as a page
_PARTS = (("dice", "iou"), ("accuracy", "loss"), ("precision", "sensitivity"))
_PARTS += (("specificity",),)
_UPSIDE = (slice(None, None, -1), slice(None, None, -1))  # as radiologists look


def write_page(outcome: Outcome, *, workdir: Path) -> Path:
    """Write figures 3 to 11 as files, and report.html with tables and explanation."""
    figures = draw_figures(outcome, workdir=workdir)
    for figure in figures:
        figure.write(workdir / "figures")
    study, split = outcome.study, outcome.split
    validation = outcome.store.in_order(split.val, batch_size=study.schedule.batch_size)
    nothing = iou_beside_dice.finding_nothing(validation, classes=outcome.store.classes)
    ours = outcome.runs["unet2d"][0].scores["val"]
    why = iou_beside_dice.explain(ours, nothing)
    by_name = {figure.name[7:9]: figure for figure in figures}
    histories = page.Grid(blocks=tuple(by_name[n] for n in ("09", "10", "11")))
    charts = tuple(by_name[n] for n in ("04", "06") if n in by_name)
    data = (by_name["03"], by_name["05"], page.Grid(blocks=charts))
    left_out: tuple[page.Block, ...] = ()
    if outcome.exams.left_out:
        title = f"{len(outcome.exams.left_out)} exams left out"
        texts = tuple(page.Text(text=text) for text in outcome.exams.left_out)
        left_out = (page.Details(title=title, blocks=texts),)
    if "04" not in by_name:
        missing = "Figure 4 needs a column 'primary' in the manifest of the data."
        left_out += (page.Text(text=missing, kind="missing"),)
    result = page.Page(
        title="2-D U-Net, ConvNet and FCN on slices",
        subtitle="Kaur and Singh 2024, on "
        + ("synthetic exams" if outcome.exams.is_synthetic else "given data"),
        sections=(
            page.Section(title="Results", blocks=(_facts(outcome), *_tables(outcome))),
            page.Section(
                title="Why IoU 0.968 stands beside Dice 0.645",
                blocks=tuple(page.Text(text=text) for text in why),
            ),
            page.Section(title="Data", blocks=(*data, *left_out)),
            page.Section(title="Networks", blocks=(by_name["07"], by_name["08"])),
            page.Section(title="Training", blocks=(histories,)),
        ),
        footer="Research use only; not a medical device. Made by bmjax.",
    )
    return result.write(workdir / "report.html")


def draw_figures(outcome: Outcome, *, workdir: Path) -> list[page.Figure]:
    """Figures 3 to 11; number 4 only where the manifest tells primary cancers."""
    store, split, classes = outcome.store, outcome.split, outcome.store.classes
    exam, index = fullest_slice(store, split.test)
    image, labels = store.image(exam, index), store.labels(exam, index)
    case = next(case for case in outcome.exams.cases if case.id == exam)
    figures = [
        study2d.modalities(
            image[_UPSIDE],
            labels[_UPSIDE].astype(int),
            channels=CHANNELS,
            classes=classes,
            exam=exam,
        )
    ]
    primary = [
        c.columns["primary"] for c in outcome.exams.cases if "primary" in c.columns
    ]
    if primary:
        figures.append(study2d.primaries(dict(Counter(primary).most_common())))
    flair = nifti.read(case.images["t2f"])
    truth = nifti.read_labels(case.labels or "").array
    figures.append(
        study2d.planes(
            flair.array.astype(np.float32),
            slices.focus(truth, core=(1, 3)),
            spacing_mm=flair.spacing_mm,
            exam=exam,
        )
    )
    patients = store.patients
    counts = {
        table4.SETS[name]: (len(ids), len({patients[case] for case in ids}))
        for name, ids in split.sets().items()
    }
    figures.append(study2d.split(counts, by=outcome.study.split_by))
    networks = outcome.study.networks(len(classes) + 1)
    unet = networks["unet2d"]
    figures.append(
        study2d.network(
            stages(unet, image.shape),
            title=table4.NETWORKS["unet2d"],
            num_skips=len(unet.features) - 1,
        )
    )
    program = Program(unet, classes, outcome.study.schedule)
    probs = program.probs(read_variables(workdir / "runs" / "unet2d-0"), image[None])
    figures.append(
        study2d.prediction(
            image[_UPSIDE][..., CHANNELS.index("t2f")],
            labels[_UPSIDE].astype(int),
            probs[0].argmax(-1)[_UPSIDE],
            classes=classes,
            exam=exam,
        )
    )
    for name, number in _HISTORY_NUMBER.items():
        lines = outcome.runs[name][0].epochs
        title = table4.NETWORKS[name]
        figures.append(study2d.history(lines, number=number, name=name, title=title))
    return figures


def fullest_slice(store: SliceStore, ids: tuple[str, ...]) -> tuple[str, int]:
    """Exam and number of the slice with most labelled pixels."""
    return max(
        store.pairs(ids), key=lambda pair: store.exams[pair[0]].labelled[pair[1]]
    )


def stages(model: Any, image_size: tuple[int, ...]) -> list[study2d.Stage]:
    """The stages of a network in the order in which they run, without running it."""
    image = jax.ShapeDtypeStruct((1, *image_size), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)

    def outputs(variables: Any, image: Any) -> Any:
        _, seen = model.apply(
            variables, image, capture_intermediates=True, mutable=["intermediates"]
        )
        return seen["intermediates"]

    seen = paths.flatten(jax.eval_shape(outputs, variables, image))
    params = paths.flatten(variables["params"])
    found = []
    for path, (output, *_) in seen.items():
        whole = path.removesuffix("/__call__")
        if not re.fullmatch(r"(encoder|decoder)/stage_\d+", whole):
            continue
        num_params = sum(
            int(np.prod(leaf.shape))
            for leaf_path, leaf in params.items()
            if leaf_path.startswith(f"{whole}/")
        )
        _, rows, columns, features = output.shape
        found.append(study2d.Stage(whole, (rows, columns), features, num_params))
    down = sorted((s for s in found if s.is_encoder), key=lambda s: -s.size[0])
    up = sorted((s for s in found if not s.is_encoder), key=lambda s: s.size[0])
    return [*down, *up]


def _facts(outcome: Outcome) -> page.Facts:
    study, slicing = outcome.study, outcome.study.slicing
    device = jax.devices()[0]
    num_slices = sum(exam.num_slices for exam in outcome.store.exams.values())
    params = {
        table4.NETWORKS[name]: f"{by_seed[0].num_params:,} parameters"
        for name, by_seed in outcome.runs.items()
    }
    return page.Facts(
        items=(
            ("exams", str(len(outcome.store.exams))),
            ("slices", f"{num_slices} of {slicing.size} x {slicing.size}"),
            ("split by", study.split_by),
            ("epochs at most", str(study.schedule.epochs)),
            ("seeds", str(study.num_seeds)),
            *params.items(),
            ("device", device.device_kind),
            ("versions", f"bmjax {bmjax.__version__}, JAX {jax.__version__}"),
        )
    )


def _tables(outcome: Outcome) -> tuple[page.Block, ...]:
    rows, overfits = outcome.rows, outcome.overfits
    texts = (
        *table4.remarks(overfits),
        "As published beside sound: every measure twice, and the paper's value, where "
        "it has one. Sound (*) is lesion against background of each exam, mean over "
        "exams. The paper has no test rows; its FCN validation loss of 0.32 is likely "
        "to be 0.032 misprinted. Mean over seeds ± standard deviation; best validation "
        "loss.",
        "The paper does not describe its CNN and FCN: ours are interpretations, with "
        "the encoder of the U-Net. Our weights are measured without dropout.",
    )
    blocks: list[page.Block] = [page.Text(text=text) for text in texts]
    for table, caption in (
        *(
            (
                table4.as_published(rows, overfits, part),
                f"Table 4, {' and '.join(part)}",
            )
            for part in _PARTS
        ),
        (table4.learned(overfits), "Eight training slices by heart, before all else"),
        (table4.by_class(rows), "Each class. *: sound"),
    ):
        blocks.append(_table(*table, caption))
    return tuple(blocks)


def _table(heads: list[str], lines: list[list[str]], caption: str) -> page.Table:
    return page.Table(
        columns=tuple(heads),
        rows=tuple(
            tuple(
                page.Cell(
                    text=text,
                    kind="name" if i == 0 else "plain",
                    is_number=text[:1].isdigit() or text == "-",
                )
                for i, text in enumerate(line)
            )
            for line in lines
        ),
        caption=caption,
    )
