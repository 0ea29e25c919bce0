"""A short fuzz of every kind of file, and what longer ones once found."""

import json
from pathlib import Path

import pytest

from tests.faults import fuzz, fuzz_models, fuzz_tables
from tests.faults.fuzz_tables import DATASET, OURS, THEIRS

KINDS = list(fuzz.kinds())


@pytest.mark.parametrize("kind", KINDS, ids=[kind.split()[0] for kind in KINDS])
def test_every_file_gives_a_value_or_an_error_that_names_it(kind):
    counts, failure = fuzz.run(kind, inputs=50, seed=0)
    assert failure is None, failure
    assert counts["refused"] > 0


def test_a_reader_that_names_no_file_or_takes_too_much_is_noticed(tmp_path):
    def silent(path):
        raise ValueError("bad")

    def greedy(path):
        return bytearray(fuzz.PEAK_BYTES + 1)

    for read, complaint in ((silent, "does not name the file"), (greedy, "MiB for a")):
        with pytest.raises(AssertionError, match=complaint):
            fuzz.outcome(read, tmp_path / "x")


def refused(check, content, folder: Path) -> bool:
    return check(content, folder) is False


def plan_files(**changes):
    return {"plan.json": json.dumps(OURS | changes).encode()}


@pytest.mark.parametrize(
    "content",
    [
        {"plan.json": b"[" * 100_000},
        plan_files(strides=[[0, 1, 1]] * 3),
        plan_files(spacing_mm=[float("nan"), 1.0, 1.0]),
        plan_files(patch_size=[32.0, 32.0, 32.0]),
        plan_files(labels=[["a", 300]]),
        plan_files(channels="t1c"),
        {
            "plan.json": json.dumps(THEIRS).encode(),
            "dataset.json": json.dumps({**DATASET, "channel_names": ["0"]}).encode(),
        },
    ],
    ids=["nested", "stride", "spacing", "float", "label", "text", "channels"],
)
def test_plans_that_were_once_taken_are_refused(tmp_path, content):
    assert refused(fuzz_tables.check_plan, content, tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"case,t1c\na," + b"x" * 140_000,
        "case,t1c\na,b\n".encode("utf-16"),
        b"case,t1c\n" + b"a" * 300 + b",in.nii.gz\n",
        b"case,t1c\na\0b,in.nii.gz\n",
        b"case,t1c\na,in\0.nii.gz\n",
    ],
    ids=["long cell", "utf-16", "long name", "null in name", "null in path"],
)
def test_manifests_that_once_ended_otherwise_are_refused(tmp_path, content):
    table = {"name": "cases.csv", "bytes": content}
    assert refused(fuzz_tables.check_manifest, table, tmp_path)


def test_a_torch_file_named_npz_is_refused(tmp_path):
    content = fuzz_models.WEIGHTS[".pth"]
    file = {"name": "weights.npz", "bytes": content}
    assert refused(fuzz_models.check_weights, file, tmp_path)
