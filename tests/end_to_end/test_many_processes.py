"""Several processes train as one does, and none waits for one that is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
LAUNCH = Path(__file__).resolve().parents[2] / "launch"
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
        data=Loader(patch_size=(16, 16, 16), batch_size=4, num_folds=4),
        optimizer=Optimizer(num_steps=20, momentum=0.9),
        fit=Fit(log_every=1, validate_every=20, num_val_batches=2, checkpoint_every=5),
    )
"""
STEPS = "--optimizer.num-steps"


@pytest.fixture(scope="module")
def place(tmp_path_factory, phantom_store):
    """A config, the store, and an environment in which `bmjax` is this bmjax."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "config.py").write_text(CONFIG)
    shim = folder / "bin" / "bmjax"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m bmjax "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}:{os.environ['PATH']}"
    flags = ["--data.store", str(phantom_store)]
    cpu = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return folder, flags, {**cpu, "PATH": path, "JAX_PLATFORMS": "cpu"}


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [r["loss"] for r in records if r["kind"] == "train"]


def train(place, run, *flags, num_processes):
    """Run to the end in so many processes, through the launch script."""
    folder, common, environment = place
    script = [str(LAUNCH / "multihost.sh"), str(num_processes)]
    argv = ["bash", *script, str(folder / "config.py"), "--workdir", str(run)]
    return subprocess.run(
        [*argv, *common, *flags],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def alone(place):
    """The losses of one process on one device."""
    run = place[0] / "alone"
    done = train(place, run, "--num-devices", "1", num_processes=1)
    assert done.returncode == 0, done.stderr
    return losses(run)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_several_processes_have_the_losses_of_one(place, alone, num_processes):
    run = place[0] / f"run_{num_processes}"
    done = train(place, run, num_processes=num_processes)
    assert done.returncode == 0, done.stderr
    assert len(alone) == 20
    np.testing.assert_allclose(losses(run), alone, rtol=1e-5)
    assert (run / "validation" / "summary.json").is_file()


def start(place, run, num_processes, *flags):
    """Processes that know each other, without the launch script."""
    folder, common, environment = place
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "bmjax", "train", str(folder / "config.py")]
    argv += ["--workdir", str(run), *common, *flags]
    argv += ["--coordinator", f"127.0.0.1:{port}"]
    argv += ["--num-processes", str(num_processes), "--process-id"]
    return [
        subprocess.Popen(
            [*argv, str(i)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for i in range(num_processes)
    ]


def wait_for_steps(run, processes, count):
    deadline = time.monotonic() + 300
    while not (run / "metrics.jsonl").is_file() or len(losses_so_far(run)) < count:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        os.sched_yield()


def losses_so_far(run):
    return (run / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_a_clear_error(place, victim):
    run = place[0] / f"killed_{victim}"
    processes = start(place, run, 2, STEPS, "100000")
    wait_for_steps(run, processes, 3)
    begin = time.monotonic()
    processes[victim].kill()
    processes[victim].communicate()
    other = processes[1 - victim]
    said = other.communicate(timeout=60)[1]
    assert time.monotonic() - begin < 60
    assert other.returncode not in (0, 75)
    assert f"process {1 - victim} of 2 lost another one" in said
    assert "the same command goes on from the last checkpoint" in " ".join(said.split())


def test_one_stopped_process_stops_all_and_another_number_goes_on(place, alone):
    run = place[0] / "moved"
    # as if nobody else would be told: any process may hear it, all save
    processes = start(place, run, 2)
    wait_for_steps(run, processes, 3)
    processes[1].send_signal(signal.SIGUSR1)
    codes = [process.wait(timeout=120) for process in processes]
    for process in processes:
        process.communicate()
    assert codes == [75, 75]
    done = train(place, run, num_processes=4)
    assert done.returncode == 0, done.stderr
    assert "goes on with 4 devices in 4 processes" in " ".join(done.stderr.split())
    np.testing.assert_allclose(losses(run), alone, rtol=1e-5)
