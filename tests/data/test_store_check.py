"""Tests of bmjax.data.store_check and estimate: a store is verified, and foreseen."""

import json
import shutil

import numpy as np
import pytest
from test_store import PLAN, raw

from bmjax.cli import main
from bmjax.data import estimate as module
from bmjax.data import nifti
from bmjax.data.estimate import estimate, free_memory_bytes
from bmjax.data.measure import measure_cases
from bmjax.data.store import Store, prepare_store
from bmjax.data.store_check import check_store, is_store


@pytest.fixture
def store(tmp_path):
    cases = raw(tmp_path / "raw", "a", "b")
    prepare_store(cases, PLAN, tmp_path / "store", num_workers=1)
    return tmp_path / "store"


def overwrite(path, array):
    np.save(path, array)


def test_a_whole_store_has_no_problem(store):
    report = check_store(store, num_workers=1)
    assert is_store(store) and report.ok and not report.warnings
    assert report.num_cases == 2 and report.num_bytes > 2 * 720 * 9
    assert "no problem found" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["ok"]


@pytest.mark.parametrize(
    "name", ["image.npy", "labels.npy", "locations.npy", "lesion_voxels.npy"]
)
def test_one_flipped_bit_is_found_in_any_array(store, name):
    path = store / "cases" / "a" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    report = check_store(store, num_workers=1)
    assert [p.case for p in report.problems] == ["a"]
    assert report.problems[0].file == path and "was written" in str(report)


def test_every_problem_of_every_case_is_listed_at_once(store):
    (store / "cases" / "a" / "labels.npy").unlink()
    image = np.load(store / "cases" / "b" / "image.npy")
    overwrite(store / "cases" / "b" / "image.npy", image[:4].astype(np.float16))
    shutil.copytree(store / "cases" / "b", store / "cases" / "old")
    report = check_store(store, num_workers=1)
    assert {p.case for p in report.problems} == {"a", "b"}
    texts = " ".join(str(p) for p in report.problems)
    assert "cannot be read" in texts and "dtype float16 where float32" in texts
    assert [w.file.name for w in report.warnings] == ["old"]


def test_what_contradicts_itself_is_found_though_its_hash_is_right(store):
    facts = json.loads((store / "cases" / "a" / "case.json").read_text())
    facts["plan_digest"] = "0123"
    facts["geometry"]["size_after_resampling"] = [8, 9, 11]
    (store / "cases" / "a" / "case.json").write_text(json.dumps(facts))
    (store / "cases" / "b" / "lesions.json").write_text("[]")
    texts = "\n".join(map(str, check_store(store, num_workers=1).problems))
    assert "prepared by plan 0123" in texts and "(8, 9, 11)" in texts
    assert "not the lesions of its labels" in texts


def test_sources_that_changed_or_went_are_warned_of(store):
    folder = store.parent / "raw"
    (folder / "a" / "a-t1c.nii").unlink()
    with (folder / "b" / "b-t1n.nii").open("ab") as file:
        file.write(b"0")
    report = check_store(store, num_workers=1)
    assert report.ok
    assert ["not there" in str(w) for w in report.warnings] == [True, False]


def test_the_command_checks_a_store_and_fails_on_damage(store, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", str(store), "--num-workers", "1"])
    assert ended.value.code == 0 and "a store of 2 cases" in capsys.readouterr().out
    (store / "cases" / "a" / "image.npy").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["check", str(store), "--num-workers", "1"])
    assert ended.value.code == 1
    assert "a: " in capsys.readouterr().out
    (store / "store.json").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["check", str(store)])
    assert ended.value.code == 1 and "prepare" in capsys.readouterr().err


def test_float16_takes_half_the_disk_and_is_close(tmp_path):
    cases = raw(tmp_path / "raw", "a")
    fine = prepare_store(cases, PLAN, tmp_path / "fine", num_workers=1).case("a")
    half = prepare_store(
        cases, PLAN, tmp_path / "half", dtype="float16", num_workers=1
    ).case("a")
    assert half.image.dtype == np.float16 and half.image.nbytes * 2 == fine.image.nbytes
    np.testing.assert_allclose(half.image, fine.image, atol=2e-3)
    assert check_store(tmp_path / "half", num_workers=1).ok
    # the other precision is another store
    prepare_store(cases, PLAN, tmp_path / "half", num_workers=1)
    assert Store(tmp_path / "half").case("a").image.dtype == np.float32


def test_values_beyond_float16_are_refused(tmp_path):
    plan = type(PLAN).from_dict(PLAN.to_dict() | {"normalization": ["none"] * 2})
    cases = raw(tmp_path / "raw", "a")
    image = np.arange(99_281, 100_001, dtype=np.int32).reshape(8, 9, 10)
    nifti.write(cases[0].images["t1c"], image, affine=np.eye(4))
    with pytest.raises(ValueError, match="100000 does not fit float16; prepare as"):
        prepare_store(cases, plan, tmp_path / "s", dtype="float16", num_workers=1)


def test_fault_5_odd_names_of_cases_are_kept(tmp_path):
    names = ("Fall Ä 1", "UPPER.lower", "x" * 120)
    cases = raw(tmp_path / "räw data", *names)
    store = prepare_store(cases, PLAN, tmp_path / "störe 1", num_workers=1)
    assert set(store.ids) == {case.id for case in cases} and len(store.ids) == 3
    assert check_store(tmp_path / "störe 1", num_workers=1).ok


# What it will take


def test_the_disk_is_foreseen_to_the_byte_and_done_cases_are_not_counted(tmp_path):
    cases = raw(tmp_path / "raw", "a", "b")
    facts = measure_cases(cases, num_workers=1)
    ahead = estimate(cases, facts, PLAN, tmp_path / "store")
    assert ahead.num_cases == 2 and ahead.seconds is not None and ahead.seconds > 0
    assert not list((tmp_path / "store" / "cases").iterdir())  # the trial is removed
    prepare_store(cases[:1], PLAN, tmp_path / "store", num_workers=1)
    case = Store(tmp_path / "store").case("a")
    assert case.labels is not None
    assert ahead.disk_bytes == 2 * (case.image.nbytes + case.labels.nbytes)
    assert estimate(cases, facts, PLAN, tmp_path / "store").num_cases == 1
    half = estimate(cases, facts, PLAN, tmp_path / "other", dtype="float16")
    assert half.disk_bytes == case.image.nbytes + 2 * case.labels.nbytes


def test_workers_are_as_many_as_fit_into_memory(tmp_path, monkeypatch):
    cases = raw(tmp_path / "raw", "a", "b", "c")
    facts = measure_cases(cases, num_workers=1)
    monkeypatch.setattr(module, "default_workers", lambda count: count)
    one = estimate(cases, facts, PLAN, tmp_path / "s").case_bytes
    for room, workers in ((10 * one, 3), (2 * one, 2), (one // 2, 1)):
        monkeypatch.setattr(module, "free_memory_bytes", lambda room=room: room)
        assert estimate(cases, facts, PLAN, tmp_path / "s").num_workers == workers
    text = str(estimate(cases, facts, PLAN, tmp_path / "s", num_workers=2))
    assert "3 cases" in text and "2 workers" in text and "GiB" in text


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
    tmp_path, monkeypatch
):
    cases = raw(tmp_path / "raw", "a")
    facts = measure_cases(cases, num_workers=1)
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: full)
    with pytest.raises(OSError, match="are needed and .* are free on its disk"):
        estimate(cases, facts, PLAN, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_smaller_of_machine_and_container_is_what_there_is(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 50 kB\n")
    assert free_memory_bytes(tmp_path / "meminfo", tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("40960\n")
    (tmp_path / "memory.current").write_text("10240\n")
    assert free_memory_bytes(tmp_path / "meminfo", tmp_path) == 30 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(tmp_path / "meminfo", tmp_path) == 50 * 1024
    assert free_memory_bytes(tmp_path / "none", tmp_path / "none") is None
