"""The timed choice: what is timed, what is kept, and that a run keeps it."""

import json

import jax
import pytest

import bmjax
from bmjax import models, sharding
from bmjax.checkpoint import digest
from bmjax.ops.choices import ALGORITHMS, PARTS
from bmjax.runs import read_run
from bmjax.training import algorithms, time_convolutions


def mesh(count=1):
    return sharding.data_mesh(jax.devices()[:count])


@pytest.fixture
def clock(monkeypatch):
    """`taps` is twice as fast as the rule in kernel gradients, and nothing else."""

    def seconds(call, part, mesh):
        taps = 0.5 if part == "kernel gradient" else 0.99
        return {None: 1.0, **dict.fromkeys(ALGORITHMS, 1.0), "taps": taps}

    monkeypatch.setattr(algorithms, "_seconds_by_algorithm", seconds)


def test_what_is_faster_is_kept_and_told(clock):
    net = models.PlainUNet(
        features=(4, 8),
        strides=((1, 1, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 3),) * 2,
        num_classes=3,
    )
    told = []
    found = time_convolutions(net, (2, 16, 16, 16, 4), mesh(2), tell=told.append)
    assert ("16x16x16 b2 4>4 3x3x3 kernel gradient", "taps") in found
    assert {name.rpartition("3x3x3 ")[2] for name, _ in found} == {"kernel gradient"}
    assert len(told) == len(found)
    assert all(line.endswith("taps, 0.50 of the rule") for line in told)


def test_every_algorithm_is_timed():
    net = models.ConvNet(features=(2,), num_classes=2)
    for _, algorithm in time_convolutions(net, (2, 8, 8, 1), mesh(2)):
        assert algorithm in ALGORITHMS
    call = algorithms.Call((2, 8, 8, 1), (3, 3, 1, 2))
    for part in PARTS:
        seconds = algorithms._seconds_by_algorithm(call, part, mesh(2))
        assert set(seconds) == {None, *ALGORITHMS}
        assert all(0 < s < 60 for s in seconds.values())


@pytest.mark.slow
def test_a_run_keeps_the_algorithms_that_it_began_with(
    clock, tiny_experiment, tmp_path, monkeypatch
):
    whole, run = tmp_path / "whole", tmp_path / "run"
    bmjax.train(tiny_experiment, workdir=whole, num_devices=1, time_convolutions=True)
    kept = json.loads((whole / "experiment.json").read_text())["convolutions"]
    assert ["16x16x16 b2 4>4 3x3x3 kernel gradient", "taps"] in kept

    short = tiny_experiment.replace({"optimizer.num_steps": 3})
    bmjax.train(short, workdir=run, num_devices=1, time_convolutions=True)
    monkeypatch.delattr(algorithms, "_seconds_by_algorithm")  # never timed again
    longer = tiny_experiment.replace({"optimizer.num_steps": 4})
    bmjax.train(
        longer, workdir=run, num_devices=1, time_convolutions=True, override=True
    )
    assert json.loads((run / "experiment.json").read_text())["convolutions"] == kept

    again = tmp_path / "again"  # from the values that were kept, without timing
    bmjax.train(bmjax.load(whole), workdir=again, num_devices=1)
    assert digest(read_run(again).variables) == digest(read_run(whole).variables)
