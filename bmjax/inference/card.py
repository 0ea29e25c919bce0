"""The model card of a bundle: what a network is for, from what, and what it is not."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax.planning.plan import Plan

_SCORES = ("dice", "hd95")


def model_card(
    plan: Plan,
    *,
    title: str,
    network: str,
    splits: Mapping[int, Mapping[str, Sequence[str]]],
    steps: Mapping[int, int],
    scores: Mapping[int, Mapping[str, float]],
) -> str:
    """Markdown; what is not known is said to be not known.

    Args:
      plan: how images are prepared.
      title: name of the model.
      network: its class and size, in words.
      splits: ids of the cases trained on and held out, by fold; empty if unknown.
      steps: updates of each fold.
      scores: mean of each score over the held-out cases, by fold.
    """
    spacing = " x ".join(f"{s:g}" for s in plan.spacing_mm)
    trained = [len(split["train"]) for split in splits.values()]
    lines = [
        f"# {title}",
        "",
        "**Research only. Not a medical device; not for diagnosis or treatment.**",
        "",
        "## What it does",
        "",
        f"Segments {', '.join(name for name, _ in plan.regions)} on MRI of the head. "
        f"Network: {network}, folds {', '.join(map(str, steps))}.",
        "",
        "| value | label | part of |",
        "|---|---|---|",
        *(
            f"| {value} | {name} | "
            f"{' '.join(r for r, members in plan.regions if value in members)} |"
            for name, value in plan.labels
        ),
        "",
        "## What it needs",
        "",
        f"- Channels, co-registered: {', '.join(plan.channels)}.",
        f"- Images prepared as those it was trained on; resampled to {spacing} mm and "
        f"normalised ({', '.join(sorted(set(plan.normalization)))}) by itself. Skulls "
        "are not removed.",
        "",
        "## What it was trained on",
        "",
        "Cases of each fold: "
        + (", ".join(map(str, trained)) if trained else "not known")
        + f". Updates: {', '.join(map(str, steps.values()))}. Whose images these were, "
        "and under which terms, is for the one to say who passes this file on.",
        "",
        "## Scores of the cases held out",
        "",
        *_score_table(scores),
        "",
        "## Limits",
        "",
        "Other scanners, sequences, and states after surgery or radiation than those "
        "trained on were not tested unless the table says so. Small metastases are "
        "missed more often than large ones. A person must look at every result.",
        "",
        "Terms of the weights: not stated by bmjax; its code is Apache-2.0.",
        "",
    ]
    return "\n".join(lines)


def held_out_scores(validation: Path, regions: Sequence[str]) -> dict[str, float]:
    """Mean of each region's scores over the cases of a run's validation.

    Args:
      validation: folder of cases.csv; without it nothing is known.
      regions: names.
    """
    path = validation / "cases.csv"
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    found = {}
    for name in (f"{score}_{region}" for region in regions for score in _SCORES):
        values = [float(row[name]) for row in rows if row.get(name)]
        if values:
            found[name] = sum(values) / len(values)
    return found


def _score_table(scores: Mapping[int, Mapping[str, float]]) -> list[str]:
    known = {fold: values for fold, values in scores.items() if values}
    if not known:
        return ["Not known: no run that was bundled has been validated."]
    names = list(dict.fromkeys(name for values in known.values() for name in values))
    rows = [f"| fold | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for fold, values in known.items():
        cells = [f"{values[n]:.3f}" if n in values else "" for n in names]
        rows.append(f"| {fold} | {' | '.join(cells)} |")
    return rows
