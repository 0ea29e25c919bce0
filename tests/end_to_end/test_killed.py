"""A run killed without warning ends as one that was not (fault 43)."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
        optimizer=Optimizer(num_steps=40, momentum=0.9),
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


def digests(run):
    """Of all parameters, and of the optimiser's state, after the last step."""
    (path,) = (run / "checkpoints" / "40" / "meta").rglob("metadata")
    return json.loads(path.read_text())["digests"]


def workers_of(run):
    """Living processes that read patches for a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"BMJAX_TEST_RUN={run}".encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize(
    "number, num_workers",
    [(signal.SIGTERM, 0), *((signal.SIGKILL, count) for count in (0, 1, 3))],
)
def test_killed_at_a_random_step_and_resumed_equals_undisturbed(
    undisturbed, phantom_store, tmp_path, number, num_workers
):
    run = tmp_path / "run"
    argv = command(tmp_path, phantom_store, run)
    argv += ["--data.num-workers", str(num_workers)]
    marked = {**os.environ, "BMJAX_TEST_RUN": str(run)}
    process = subprocess.Popen(argv, env=marked)
    records = random.Random(os.getpid()).randint(1, 7)
    deadline = time.monotonic() + 300
    while steps(run) < records and process.poll() is None:
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(number)
    code = process.wait()
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75)
    while workers_of(run):  # they notice that their parent is gone
        assert time.monotonic() < deadline
        os.sched_yield()
    subprocess.run(argv, check=True)
    assert digests(run) == digests(undisturbed)
    assert timeless(run) == timeless(undisturbed)
    left = [p.name for p in run.rglob("*tmp*")]
    assert left == []
