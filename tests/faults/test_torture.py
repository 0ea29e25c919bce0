"""A short torture, and that it would notice what it looks for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.torture import Chain, _differences, summary
from tests.faults.torture_jobs import faults_of, result

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_killed_commands_lose_nothing(tmp_path):
    out = tmp_path / "torture.md"
    words = ["--rounds", "4", "--jobs", "prepare", "train", "predict"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.faults.torture", *words, "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 losses" in out.read_text()


@pytest.fixture
def work(tmp_path):
    """A folder in which all is well."""
    run, out = tmp_path / "run", tmp_path / "out"
    lines = [{"kind": "train", "step": i, "loss": 1.0, "step_ms": i} for i in (1, 2, 3)]
    run.mkdir()
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out.mkdir()
    (out / "A.nii.gz").touch()
    cases = [{"case": "A", "status": "done", "seconds": 1.5}]
    (out / "predict.json").write_text(json.dumps({"cases": cases}))
    assert faults_of(tmp_path) == []
    return tmp_path


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"), [('"step": 2', '"step": 1'), ('"step": 3', '"step": 4')]
)
def test_a_step_that_is_missing_or_there_twice_is_noticed(work, old, new):
    replace(work / "run" / "metrics.jsonl", old, new)
    (fault,) = faults_of(work)
    assert fault.startswith("log not continuous: run/metrics.jsonl")


@pytest.mark.parametrize(
    "name", [".a.json.12-0123abcd.part", "4.orbax-checkpoint-tmp-9", ".b.tmp", ".tmp-c"]
)
def test_a_temporary_is_noticed(work, name):
    (work / "run" / name).touch()
    assert faults_of(work) == [f"temporary left: run/{name}"]


def test_a_case_that_is_lost_doubled_or_failed_is_noticed(work):
    (work / "out" / "B.nii.gz").touch()
    assert len(faults_of(work)) == 1
    (work / "out" / "B.nii.gz").unlink()
    replace(work / "out" / "predict.json", "done", "failed")
    assert faults_of(work) == ["failed: A"]


def test_results_differ_by_what_a_user_gets_and_not_by_what_it_cost(work):
    before = result(work)
    replace(work / "out" / "predict.json", "1.5", "9.5")
    replace(work / "run" / "metrics.jsonl", '"step_ms": 3', '"step_ms": 9')
    assert _differences(before, result(work)) == []
    replace(work / "run" / "metrics.jsonl", '"loss": 1.0', '"loss": 1.1')
    (work / "out" / "A.nii.gz").rename(work / "out" / "C.nii.gz")
    assert _differences(before, result(work)) == [
        "lost: out/A.nii.gz",
        "too many: out/C.nii.gz",
        "different: run/metrics.jsonl",
    ]


def test_the_summary_counts_kills_by_command_and_signal():
    kills = [("SIGKILL", 1.0), ("SIGTERM", 2.0), ("SIGKILL", 3.0)]
    chains = [Chain("train", 0, kills), Chain("train", 1, [], ["lost: x"])]
    text = summary(chains, "command")
    assert "3 kills in 2 working folders; 1 losses." in text
    assert "| train | 2 | 1 | 2 | 1 |" in text and "- train, seed 1: lost: x" in text
