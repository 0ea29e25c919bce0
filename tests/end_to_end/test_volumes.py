"""Held-out cases that are predicted whole while a network trains."""

import json

import pytest

import bmjax
from bmjax.training import Fit


def test_the_dice_of_whole_cases_is_that_of_the_evaluation(tiny_experiment, tmp_path):
    """The store has the scans' own grid, so both count the same voxels."""
    short = tiny_experiment.replace(
        {
            "optimizer.num_steps": 2,
            "fit": Fit(
                log_every=1, validate_every=2, num_val_batches=1, num_val_volumes=9
            ),
        }
    )
    done = bmjax.train(short, workdir=tmp_path / "run", num_devices=1)
    *_, last = map(json.loads, (done.run / "metrics.jsonl").read_text().splitlines())
    assert done.validation is not None
    (held_out,) = short.data.held_out
    for region, value in last["volume_dice"].items():
        (score,) = (
            row[f"dice_{region}"]
            for row in done.validation.rows
            if row["case"] == held_out
        )
        assert value == pytest.approx(score, abs=1e-6)
    mean = sum(last["volume_dice"].values()) / len(last["volume_dice"])
    assert last["score"] == pytest.approx(mean)  # it decides, not the pseudo-Dice
