"""A run killed without warning ends as one that was not (faults 43 and 51)."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from bmjax.checkpoint import digest
from bmjax.runs import read_run

pytestmark = pytest.mark.slow
CONFIG = """
from bmjax import Experiment, models
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment():
    return Experiment(
        model=models.PlainUNet(
            features=(4, 8, 8),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
            kernel_sizes=((3, 3, 3),) * 3,
        ),
        data=Loader(patch_size=(16, 16, 16), batch_size=2, num_folds=4),
        optimizer=Optimizer(num_steps=60, momentum=0.9),
        fit=Fit(log_every=5, validate_every=20, num_val_batches=2, checkpoint_every=4),
    )
"""


def command(folder, store, run):
    config = folder / "config.py"
    config.write_text(CONFIG)
    flags = ["--workdir", str(run), "--data.store", str(store), "--num-devices", "1"]
    return [sys.executable, "-m", "bmjax", "train", str(config), *flags]


COST = ("_ms", "_mib", "_per_s")


def timeless(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith(COST)}
        for line in lines
    ]


def steps(run):
    path = run / "metrics.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, phantom_store):
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run(command(folder, phantom_store, folder / "whole"), check=True)
    return folder / "whole"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_at_a_random_step_and_resumed_equals_undisturbed(
    undisturbed, phantom_store, tmp_path, number
):
    run = tmp_path / "run"
    argv = command(tmp_path, phantom_store, run)
    process = subprocess.Popen(argv)
    records = random.Random(os.getpid()).randint(1, 9)
    deadline = time.monotonic() + 300
    while steps(run) < records and process.poll() is None:
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(number)
    code = process.wait()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75)
    subprocess.run(argv, check=True)
    ours, theirs = (
        read_run(r, checkpoint="last").variables for r in (run, undisturbed)
    )
    assert digest(ours) == digest(theirs)
    assert timeless(run) == timeless(undisturbed)
    left = [p.name for p in run.rglob("*tmp*")]
    assert left == []


def test_fault_43_a_full_disk_ends_the_run_and_keeps_what_was_saved(
    phantom_store, tmp_path
):
    run = tmp_path / "run"
    argv = command(tmp_path, phantom_store, run)
    # stands in for a full disk: no file may grow beyond four kilobytes
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *argv]
    full = subprocess.run(limited, capture_output=True)
    assert full.returncode == 1
    assert b"the checkpoint of step 4 could not be written" in full.stderr
    assert not [p for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    assert subprocess.run(argv, check=False).returncode == 0
    assert read_run(run, checkpoint="last").step == 60
