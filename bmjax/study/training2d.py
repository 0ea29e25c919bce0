"""One training of the 2-D study, as a folder: written, and read back."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bmjax import weights
from bmjax.data import streams
from bmjax.study.fit2d import Program, fit_network, write_rows
from bmjax.study.holdout import ThreeWay
from bmjax.study.slices2d import SliceStore
from bmjax.surgery import paths


@dataclass(frozen=True)
class Trained:
    """What one training left: its folder's facts.

    Attributes:
      scores: measures by set.
      epochs: lines of its log.
      num_params: trained parameters of the network.
    """

    scores: dict[str, dict[str, float]]
    epochs: list[dict[str, float]]
    num_params: int


def train_one(
    program: Program,
    store: SliceStore,
    split: ThreeWay,
    *,
    seed: int,
    folder: Path,
    console: Console,
) -> None:
    """Train a network and measure it on all three sets, into a run folder.

    The folder gets `log.csv` (one line an epoch), `weights.safetensors` (of the best
    validation loss), `exams.csv` (sound measures of each exam), and `scores.json` last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fitted = fit_network(
        program,
        store,
        train=split.train,
        val=split.val,
        seed=seed,
        log=folder / "log.csv",
        announce=console.print,
    )
    scores, exams = {}, []
    for name, ids in split.sets().items():
        batches = store.in_order(ids, batch_size=program.schedule.batch_size)
        tally = program.evaluate(fitted.variables, batches)
        # JSON has no NaN
        scores[name] = {
            measure: None if math.isnan(value) else value
            for measure, value in tally.scores().items()
        }
        exams += [{"set": name, **row} for row in tally.by_exam()]
    write_rows(folder / "exams.csv", exams)
    tensors = paths.flatten(fitted.variables)
    weights.write_weights(
        folder / "weights.safetensors",
        {name: np.asarray(value) for name, value in tensors.items()},
    )
    params = paths.flatten(fitted.variables["params"])
    facts = {
        "scores": scores,
        "best_epoch": fitted.best_epoch,
        "num_params": sum(int(np.size(value)) for value in params.values()),
    }
    text = json.dumps(facts, indent=1)
    streams.write_pieces(folder / "scores.json", [text.encode()])


def read_run(folder: Path) -> Trained:
    """What `train_one` wrote."""
    facts = json.loads((folder / "scores.json").read_text())
    with (folder / "log.csv").open(newline="") as file:
        lines = [
            {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]
    scores = {
        name: {m: math.nan if v is None else v for m, v in measures.items()}
        for name, measures in facts["scores"].items()
    }
    return Trained(scores, lines, facts["num_params"])


def read_variables(folder: Path) -> Mapping[str, Any]:
    """The weights that `train_one` wrote, as the network takes them."""
    return paths.unflatten(weights.read_weights(folder / "weights.safetensors").tensors)
