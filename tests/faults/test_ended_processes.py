"""Faults that end a process, or need one of its own (rows 43, 48, 50 and 52)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
        data=Loader(patch_size=(16, 16, 16), batch_size=8, num_folds=4),
        optimizer=Optimizer(num_steps=12, momentum=0.9),
        fit=Fit(log_every=1, validate_every=12, num_val_batches=1, checkpoint_every=2),
    )
"""
DEADLINE_S = 100


@pytest.fixture
def command(tmp_path, phantom_store):
    """`bmjax train` into `run`, as a list of words."""
    config = tmp_path / "config.py"
    config.write_text(CONFIG)
    flags = ["--workdir", str(tmp_path / "run"), "--data.store", str(phantom_store)]
    return [sys.executable, "-m", "bmjax", "train", str(config), *flags]


def wait_for(condition, process):
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()) and process.poll() is None:
        assert time.monotonic() < deadline, "nothing happened"
        os.sched_yield()
    return found


def steps(run):
    path = run / "metrics.jsonl"
    return path.read_text().count('"train"') if path.exists() else 0


def half_written(run):
    folder = run / "checkpoints"
    return folder.is_dir() and [p for p in folder.iterdir() if "tmp" in p.name]


def digests(run):
    (path,) = (run / "checkpoints" / "12" / "meta").rglob("metadata")
    return json.loads(path.read_text())["digests"]


def workers_of(process):
    """Processes that read patches for a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = path.read_text().rpartition(")")[2].split()
            argv = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(facts[1]) == process.pid and b"spawn_main" in argv:
            found.append(int(path.parent.name))
    return found


def test_fault_43_killed_while_it_saves_or_asked_to_stop(command, tmp_path):
    run = tmp_path / "run"
    one = [*command, "--num-devices", "1"]
    for _ in range(20):  # until the kill falls between beginning and end of a save
        process = subprocess.Popen(one, stderr=subprocess.PIPE)
        wait_for(lambda: half_written(run), process)
        process.kill()
        process.communicate()
        if half_written(run):
            break
    else:
        pytest.fail("no kill fell into a save")
    # what was saved before is whole, and the kill's remains are no obstacle
    process = subprocess.Popen(one, stderr=subprocess.PIPE)
    begun = steps(run)
    wait_for(lambda: steps(run) > begun, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1].decode()
    if process.returncode != 0:  # not over before it heard of it
        assert process.returncode == 75, said
        assert "all is saved; the same command goes on" in " ".join(said.split())
    assert subprocess.run(one, check=False).returncode == 0
    assert not half_written(run)
    whole = [part.replace(str(run), str(tmp_path / "whole")) for part in one]
    subprocess.run(whole, check=True)
    assert digests(run) == digests(tmp_path / "whole")


def test_fault_43_a_full_disk_ends_the_run_and_keeps_what_was_saved(command, tmp_path):
    run = tmp_path / "run"
    # stands in for a full disk: no file may grow beyond four kilobytes
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "bash", *command]
    full = subprocess.run(limited, capture_output=True)
    assert full.returncode == 1
    assert b"the checkpoint of step 2 could not be written" in full.stderr
    assert not [p for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    assert subprocess.run(command, check=False).returncode == 0
    assert read_run(run, checkpoint="last").step == 12


def test_fault_48_saved_on_eight_devices_and_gone_on_with_on_one(command, tmp_path):
    run = tmp_path / "run"
    many = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    short = [*command, "--optimizer.num-steps", "4"]
    first = subprocess.run(
        [*short, "--num-devices", "8"], env=many, capture_output=True, text=True
    )
    assert first.returncode == 0, first.stderr
    assert "8 devices in 1 processes" in first.stderr
    one = {**many, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    longer = [*command, "--optimizer.num-steps", "6", "--override"]
    second = subprocess.run(longer, env=one, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    said = " ".join(second.stderr.split())
    assert "began with 8 devices in 1 processes and goes on with 1 devices" in said
    assert read_run(run, checkpoint="last").step == 6


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_fault_50_a_worker_that_dies_or_hangs_ends_the_run(command, tmp_path, number):
    run = tmp_path / "run"
    flags = ["--data.num-workers", "1", "--data.timeout-s", "20"]
    flags += ["--optimizer.num-steps", "100000", "--fit.checkpoint-every", "5"]
    process = subprocess.Popen([*command, *flags], stderr=subprocess.PIPE)
    wait_for(lambda: steps(run) > 5, process)
    (worker,) = workers_of(process)
    os.kill(worker, number)
    begin = time.monotonic()
    said = " ".join(process.communicate(timeout=DEADLINE_S)[1].decode().split())
    assert time.monotonic() - begin < 60
    assert process.returncode == 1
    if number == signal.SIGKILL:
        assert "ended with exit code -9 before batch" in said
        assert "--data.num-workers 0" in said
    else:
        assert f"processes that read patches ({worker}), which were ended" in said
        assert "--data.timeout-s" in said
    assert not Path(f"/proc/{worker}").exists()
    assert any((run / "checkpoints").glob("[0-9]*"))


def test_fault_52_a_platform_that_is_not_there_is_no_silent_fallback(command):
    done = subprocess.run(
        command,
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "JAX_PLATFORMS: cuda cannot be used" in said
    assert "install its plugin" in said and "unset JAX_PLATFORMS" in said
    assert "Traceback" not in said
