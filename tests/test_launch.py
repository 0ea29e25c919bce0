"""The launch scripts, with a `bmjax` that only says what it was asked."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parents[1] / "launch"


@pytest.fixture
def call(tmp_path):
    """Run a script in a copy of the checkout's shape with a `bmjax` of this text."""
    copy = tmp_path / "checkout" / "launch"
    copy.mkdir(parents=True)
    for script in LAUNCH.iterdir():
        (copy / script.name).write_bytes(script.read_bytes())

    def start(script, *args, bmjax, **environment):
        command = tmp_path / "bin" / "bmjax"
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/usr/bin/env bash\n{bmjax}\n")
        command.chmod(0o755)
        clean = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        path = f"{command.parent}:{clean['PATH']}"
        return subprocess.Popen(
            ["bash", str(copy / script), *args],
            env={**clean, "PATH": path, "OUT": str(tmp_path / "out"), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    start.out = tmp_path / "out"
    return start


SAY = 'echo "${CUDA_VISIBLE_DEVICES-unset} $*" >> "$OUT"'


def test_folds_run_one_after_the_other(call):
    process = call("folds.sh", "c.py", "--workdir", "runs", "--seed", "1", bmjax=SAY)
    assert process.wait() == 0
    process.communicate()
    assert call.out.read_text().splitlines() == [
        f"unset train c.py --seed 1 --workdir runs/fold_{i} --data.fold {i} "
        "--data.num-folds 5"
        for i in range(5)
    ]


def test_folds_share_the_devices_that_are_given(call):
    process = call(
        "folds.sh", "c.py", "--workdir", "runs", bmjax=SAY, DEVICES="2 5", FOLDS="0 1 3"
    )
    assert process.wait() == 0
    process.communicate()
    lines = call.out.read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"2", "5"}
    assert sorted(line.split()[4][-1] for line in lines) == ["0", "1", "3"]


def test_a_failed_fold_does_not_stop_the_others_and_is_not_forgotten(call):
    fails = f'{SAY}; case "$*" in *fold_1*) exit 1;; esac'
    process = call("folds.sh", "c.py", "--workdir", "runs", bmjax=fails)
    assert process.wait() == 1
    process.communicate()
    assert len(call.out.read_text().splitlines()) == 5


def test_a_stopped_fold_is_saved_and_the_next_one_is_not_begun(call):
    saves = """
trap 'echo saved >> "$OUT.saved"; kill $!; exit 75' TERM
echo ready >> "$OUT"
sleep 600 &
wait $!
"""
    process = call("folds.sh", "c.py", "--workdir", "runs", bmjax=saves)
    while not call.out.exists():
        os.sched_yield()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert Path(f"{call.out}.saved").read_text() == "saved\n"
    assert call.out.read_text() == "ready\n"


def test_the_processes_share_the_gpus_that_are_visible(call):
    process = call("multihost.sh", "2", "c.py", bmjax=SAY, CUDA_VISIBLE_DEVICES="4,7")
    assert process.wait() == 0
    process.communicate()
    lines = call.out.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == ["4", "7"]


def test_each_process_is_told_who_it_is(call):
    process = call("multihost.sh", "3", "c.py", "--workdir", "run", bmjax=SAY)
    assert process.wait() == 0
    process.communicate()
    lines = sorted(call.out.read_text().splitlines(), key=lambda line: line[-1])
    for i, line in enumerate(lines):
        assert line.startswith(f"{i} train c.py --workdir run --coordinator 127.0.0.1:")
        assert line.endswith(f"--num-processes 3 --process-id {i}")


def test_a_process_that_dies_ends_the_others_and_is_named(call):
    dies = 'case "$*" in *"id 1") kill -KILL $$;; esac; exec sleep 600'
    begin = time.monotonic()
    process = call("multihost.sh", "3", "c.py", bmjax=dies)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 137
    assert "process 1 of 3 ended with code 137; ending the others" in said
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_passed_on_and_their_saving_is_waited_for(call, number):
    saves = """
trap 'echo saved >> "$OUT.saved"; kill $!; exit 75' TERM USR1
echo ready >> "$OUT"
sleep 600 &
wait $!
"""
    process = call("multihost.sh", "2", "c.py", bmjax=saves)
    while not call.out.exists() or call.out.read_text().count("ready") < 2:
        os.sched_yield()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert Path(f"{call.out}.saved").read_text().count("saved") == 2


@pytest.mark.parametrize("code", [0, 1, 75])
def test_slurm_puts_only_a_stopped_run_back_into_the_queue(call, tmp_path, code):
    for name, text in (
        ("srun", 'shift; exec "$@"'),
        ("scontrol", 'echo "$*" > "$OUT.queue"'),
    ):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)
    process = call(
        *("slurm.sbatch", "c.py", "--workdir", "run"),
        bmjax=f"{SAY}; exit {code}",
        SLURM_JOB_ID="7",
        SLURM_NTASKS="4",
        SLURM_SUBMIT_DIR=str(tmp_path),
    )
    process.communicate(timeout=60)
    assert process.returncode == (0 if code == 75 else code)
    assert "train c.py --workdir run --coordinator auto" in call.out.read_text()
    queue = Path(f"{call.out}.queue")
    assert queue.is_file() == (code == 75)
    if code == 75:
        assert queue.read_text() == "requeue 7\n"


LISTS = """
case "$*" in
  *--list-stages\\ prepare/) printf 'prepare/target\\nprepare/source\\n';;
  *--list-stages\\ pretrain/) printf 'pretrain/a/fold_0\\npretrain/a/fold_1\\n';;
  *--list-stages\\ report) echo report;;
esac
"""


def _pretend(tmp_path, **commands):
    for name, text in commands.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)


def test_the_study_is_one_command_on_one_host(call):
    process = call("transfer_study.sh", "--workdir", "w", bmjax=SAY)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert call.out.read_text() == "unset study transfer --workdir w\n"


def test_the_study_is_an_array_job_for_each_part_after_the_one_before(call, tmp_path):
    submits = 'echo "$STAGES" | tr "\\n" "," >> "$OUT"; echo "$*" >> "$OUT"; echo 7'
    _pretend(tmp_path, sbatch=submits)
    process = call("transfer_study.sh", "--workdir", "w", bmjax=LISTS, SLURM="1")
    process.communicate(timeout=60)
    assert process.returncode == 0
    job = "--ntasks 1 launch/slurm.sbatch study transfer --workdir w"
    assert call.out.read_text().splitlines() == [
        f"prepare/target,prepare/source,--parsable --array 0-0 {job}",
        "pretrain/a/fold_0,pretrain/a/fold_1,--parsable --array 0-1 "
        f"--dependency afterok:7 {job}",
        f"report,--parsable --array 0-0 --dependency afterok:7 {job}",
    ]


@pytest.mark.parametrize(
    ("stages", "task", "wanted"),
    [
        ("pretrain/a/fold_0\npretrain/a/fold_1", "1", "pretrain/a/fold_1"),
        ("prepare/target\nprepare/source", "0", "prepare/target prepare/source"),
    ],
)
def test_an_array_task_does_its_own_stage(call, tmp_path, stages, task, wanted):
    _pretend(tmp_path, srun='shift; exec "$@"', scontrol='echo "$*" > "$OUT.queue"')
    process = call(
        *("slurm.sbatch", "study", "transfer", "--workdir", "w"),
        bmjax=f"{SAY}; exit 75",
        STAGES=stages,
        SLURM_ARRAY_JOB_ID="7",
        SLURM_ARRAY_TASK_ID=task,
        SLURM_JOB_ID="9",
        SLURM_SUBMIT_DIR=str(tmp_path),
    )
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"study transfer --workdir w --only {wanted}\n" in call.out.read_text()
    assert Path(f"{call.out}.queue").read_text() == f"requeue 7_{task}\n"
