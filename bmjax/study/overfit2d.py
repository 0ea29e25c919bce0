"""Whether a network of the 2-D study can learn eight slices by heart.

A network that cannot is not fit to be compared: its scores would tell of a fault and
not of its design. The network, its dropout, loss, optimiser and batch are those of the
study. It is measured as it is used, with fixed weights and batch norm's running
statistics: with Keras' momentum of 0.99 these lag some hundred updates behind, so that
a network whose training Dice is 1 may still find nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bmjax.data import streams
from bmjax.study.fit2d import Program
from bmjax.study.slices2d import SliceStore

NUM_SLICES = 8
ENOUGH_DICE = 0.9
LOOK_EVERY = 100  # updates


@dataclass(frozen=True, kw_only=True)
class Overfit:
    """How far a network came on the slices it was trained on.

    Attributes:
      dice: lesion against background, of all slices together, fixed weights.
      running_dice: the same over the last updates, with dropout and the statistics of
        the batch, as training reports it.
      steps: updates made.
    """

    dice: float
    running_dice: float
    steps: int

    @property
    def is_enough(self) -> bool:
        """Whether the network may be compared."""
        return self.dice >= ENOUGH_DICE


def overfit(
    program: Program, slices: Mapping[str, Any], *, max_steps: int, seed: int = 0
) -> Overfit:
    """Train on a few slices until they are known, or the updates are over.

    Args:
      program: the network, with its schedule's batch size.
      slices: `image`, `labels` and the names of the `exams`; a multiple of the batch.
      max_steps: most updates.
      seed: of parameters and dropout.
    """
    size = program.schedule.batch_size
    parts = [
        {name: values[i : i + size] for name, values in slices.items()}
        for i in range(0, len(slices["exams"]), size)
    ]
    state = program.begin(slices["image"], seed=seed)
    steps, dice, running = 0, 0.0, {"pooled_dice": 0.0}
    while steps < max_steps and not dice >= ENOUGH_DICE:
        count = min(LOOK_EVERY, max_steps - steps)
        state, running = program.train(state, _round(parts, steps, count), seed=seed)
        steps += count
        dice = program.evaluate(state.variables, iter(parts)).scores()["pooled_dice"]
    return Overfit(dice=dice, running_dice=running["pooled_dice"], steps=steps)


def overfit_once(
    program: Program,
    store: SliceStore,
    ids: Sequence[str],
    *,
    max_steps: int,
    path: Path,
) -> Overfit:
    """As `overfit`, of the fullest slices; what is written at `path` is kept.

    Args:
      program: the network.
      store: where the slices are.
      ids: exams to take them from.
      max_steps: most updates.
      path: JSON file of the outcome.
    """
    if path.is_file():
        return Overfit(**json.loads(path.read_text()))
    slices = fullest(store, ids)
    found = overfit(program, slices, max_steps=max_steps)
    streams.write_pieces(path, [json.dumps(asdict(found), indent=1).encode()])
    return found


def fullest(store: SliceStore, ids: Sequence[str]) -> dict[str, Any]:
    """Eight slices with most labelled pixels, of as many exams as there are."""
    ranked = []
    for exam in ids:
        labelled = store.exams[exam].labelled
        order = sorted(range(len(labelled)), key=lambda i: -labelled[i])
        ranked += [(rank, -labelled[i], exam, i) for rank, i in enumerate(order)]
    chosen = [(exam, i) for _, _, exam, i in sorted(ranked)[:NUM_SLICES]]
    return {
        "image": np.stack([store.image(*pair) for pair in chosen]),
        "labels": np.stack([store.labels(*pair) for pair in chosen]),
        "exams": [exam for exam, _ in chosen],
    }


def _round(
    parts: Sequence[Mapping[str, Any]], start: int, count: int
) -> Iterator[Mapping[str, Any]]:
    """So many batches in turn, from one on."""
    return (parts[(start + i) % len(parts)] for i in range(count))
