"""The study's table of results: three networks, three sets, published numbers beside.

Kaur and Singh 2024, Table 4 and section 6.5.2. The paper has no test rows.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bmjax.study.overfit2d import ENOUGH_DICE, NUM_SLICES, Overfit

NETWORKS = {
    "unet2d": "U-Net with dropout",
    "convnet": "ConvNet (no skips)",
    "fcn": "FCN-8s",
}
SETS = {"train": "training", "val": "validation", "test": "test"}
MEASURES = (
    *("accuracy", "loss", "dice", "iou"),
    *("precision", "sensitivity", "specificity"),
)
# of these the published and the sound definition are one
ONE_DEFINITION = ("accuracy", "loss")

# the paper's "FCN validation loss 0.32" stands beside a training loss of 0.035, and is
# likely to be 0.032 misprinted; printed as published
_TABLE_4 = {
    ("unet2d", "train"): (0.9975, 0.0052, 0.6449, 0.9681),
    ("unet2d", "val"): (0.993, 0.0025, 0.631, 0.9681),
    ("convnet", "train"): (0.9676, 0.038, 0.388, 0.707),
    ("convnet", "val"): (0.9778, 0.036, 0.372, 0.705),
    ("fcn", "train"): (0.9699, 0.035, 0.44, 0.6999),
    ("fcn", "val"): (0.97, 0.32, 0.423, 0.703),
}
PUBLISHED: dict[tuple[str, str, str], float] = {
    (*place, measure): value
    for place, values in _TABLE_4.items()
    for measure, value in zip(MEASURES[:4], values, strict=True)
} | {
    # section 6.5.2, whose other numbers are those of the training row
    ("unet2d", "train", "precision"): 0.9975,
    ("unet2d", "train", "sensitivity"): 0.9970,
    ("unet2d", "train", "specificity"): 0.9990,
}

Lines = list[list[str]]
# scores by network, then seed, then set: name of the measure -> value
Results = Mapping[str, Mapping[int, Mapping[str, Mapping[str, float]]]]
Overfits = Mapping[str, Overfit]
MARK = "(!)"  # of a network that did not learn eight slices


def rows(
    results: Results, *, classes: Sequence[str], overfits: Overfits
) -> list[dict[str, Any]]:
    """One row for each network, set, measure and scope, with its spread over seeds.

    Args:
      results: measures by network, seed and set.
      classes: names of the classes without background.
      overfits: how each network learned eight slices; `counts` is whether it did.
    """
    found = []
    for network, by_seed in results.items():
        for name in SETS:
            for measure in MEASURES:
                for scope in ("all", *classes):
                    row = _row(by_seed, network, name, measure, scope)
                    if row is not None:
                        found.append({**row, "counts": overfits[network].is_enough})
    return found


def _row(
    by_seed: Mapping[int, Mapping[str, Mapping[str, float]]],
    network: str,
    set_name: str,
    measure: str,
    scope: str,
) -> dict[str, Any] | None:
    end = "" if scope == "all" else f"_{scope}"
    legacy_name = f"legacy_{measure}{end}"
    if measure in ONE_DEFINITION:
        if scope != "all":
            return None
        legacy_name = measure
    own = [scores[set_name] for scores in by_seed.values()]
    # of single classes the notebooks report Dice alone
    legacy = [scores.get(legacy_name, math.nan) for scores in own]
    sound = [scores[measure + end] for scores in own]
    published = PUBLISHED.get((network, set_name, measure)) if scope == "all" else None
    return {
        "network": network,
        "set": set_name,
        "measure": measure,
        "scope": "lesion" if scope == "all" else scope,
        "published": published,
        "as_published": statistics.fmean(legacy),
        "as_published_sd": _spread(legacy),
        "sound": statistics.fmean(sound),
        "sound_sd": _spread(sound),
        "num_seeds": len(own),
    }


def told(found: Overfit) -> str:
    """In words, how a network learned eight slices."""
    answer = "yes" if found.is_enough else "no"
    return (
        f"learned {NUM_SLICES} slices by heart: {answer}, Dice {found.dice:.3f} after "
        f"{found.steps} updates"
    )


def learned(overfits: Overfits) -> tuple[list[str], Lines]:
    """Headings and lines: whether each network learned eight slices by heart."""
    heads = ["Model", f"Dice >= {ENOUGH_DICE:g}", "Dice", "Dice in training", "updates"]
    lines = [
        [
            NETWORKS[name],
            "yes" if found.is_enough else "no",
            f"{found.dice:.3f}",
            f"{found.running_dice:.3f}",
            str(found.steps),
        ]
        for name, found in overfits.items()
    ]
    return heads, lines


def remarks(overfits: Overfits) -> tuple[str, ...]:
    """What the marks of the table mean, where there are any."""
    unfit = [NETWORKS[n] for n, found in overfits.items() if not found.is_enough]
    if not unfit:
        return ()
    return (
        f"{MARK} {', '.join(unfit)}: did not reach a Dice of {ENOUGH_DICE:g} on "
        f"{NUM_SLICES} slices it was trained on, so these rows are no comparison.",
    )


def markdown(found: Sequence[Mapping[str, Any]], overfits: Overfits) -> str:
    """The rows as in the paper, what was learned by heart, and each class."""
    note = (
        "As published beside sound (\\*: lesion against background, of each exam, mean "
        "over exams); mean over seeds ± standard deviation."
    )
    heart = (
        f"{NUM_SLICES} training slices by heart, with the study's own settings "
        "(weights fixed; in training: with dropout and the batch's statistics):"
    )
    tables = (
        _lines(*as_published(found, overfits)),
        heart,
        _lines(*learned(overfits)),
        _lines(*by_class(found)),
    )
    return "\n\n".join((note, *remarks(overfits), *tables)) + "\n"


def as_published(
    found: Sequence[Mapping[str, Any]],
    overfits: Overfits,
    measures: Sequence[str] = MEASURES,
) -> tuple[list[str], Lines]:
    """Headings and lines of Table 4: our value, the sound one, the paper's.

    Args:
      found: from `rows`.
      overfits: how each network learned eight slices.
      measures: of the table, or some of them where it would be too wide.
    """
    heads = ["Model", "Set"]
    for measure in measures:
        heads += [measure] if measure in ONE_DEFINITION else [measure, f"{measure} *"]
        heads += ["paper"]
    lines = []
    for network, set_name in _places(found):
        mark = "" if overfits[network].is_enough else f" {MARK}"
        cells = [NETWORKS[network] + mark, SETS[set_name]]
        for measure in measures:
            row = _find(found, network, set_name, measure, "lesion")
            digits = 4 if measure in ("accuracy", "loss", "specificity") else 3
            cells.append(cell(row, "as_published", digits))
            if measure not in ONE_DEFINITION:
                cells.append(cell(row, "sound", digits))
            value = row["published"]
            cells.append("-" if value is None else f"{value:g}")
        lines.append(cells)
    return heads, lines


def by_class(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], Lines]:
    """Headings and lines: each class's sound measures, the published code's Dice."""
    scopes = list(dict.fromkeys(row["scope"] for row in found if row["scope"]))
    heads = ["Model", "Set", "Class", "Dice as published"]
    sound = [m for m in MEASURES if m not in ONE_DEFINITION]
    heads += [f"{measure} *" for measure in sound]
    lines = []
    for network, set_name in _places(found):
        for scope in scopes[1:]:
            cells = [NETWORKS[network], SETS[set_name], scope]
            row = _find(found, network, set_name, "dice", scope)
            cells.append(cell(row, "as_published", 3))
            for measure in sound:
                digits = 4 if measure == "specificity" else 3
                row = _find(found, network, set_name, measure, scope)
                cells.append(cell(row, "sound", digits))
            lines.append(cells)
    return heads, lines


def cell(row: Mapping[str, Any], name: str, digits: int) -> str:
    """Mean and, of several seeds, spread."""
    mean, spread = row[name], row[f"{name}_sd"]
    if math.isnan(mean):
        return "-"
    text = f"{mean:.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {spread:.{digits}f}"


def _places(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["network"], row["set"]) for row in found))


def _find(found: Sequence[Mapping[str, Any]], *wanted: str) -> Mapping[str, Any]:
    names = ("network", "set", "measure", "scope")
    return next(
        row for row in found if tuple(row[name] for name in names) == tuple(wanted)
    )


def _spread(values: Sequence[float]) -> float:
    is_known = len(values) > 1 and not any(map(math.isnan, values))
    return statistics.stdev(values) if is_known else math.nan


def _lines(heads: list[str], lines: Lines) -> str:
    texts = [[head.replace("*", "\\*") for head in heads], ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in texts)
