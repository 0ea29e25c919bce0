"""Tests of bmjax.data.store, index and parallel."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cc3d
import numpy as np
import pytest

from bmjax.data import nifti
from bmjax.data.cases import find_cases
from bmjax.data.index import index_lesions, region_locations
from bmjax.data.parallel import Outcome, require_all, run_all
from bmjax.data.store import Store, prepare_store
from bmjax.locks import HeldError, held
from bmjax.planning import BRATS_METS, Plan

PLAN = Plan(
    channels=("t1c", "t1n"),
    labels=BRATS_METS.labels,
    regions=BRATS_METS.regions,
    paint=BRATS_METS.paint,
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore", "zscore"),
    use_mask_for_norm=True,
    patch_size=(8, 8, 8),
    batch_size=2,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 2)),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    batch_dice=False,
    median_size=(16, 16, 16),
)


def raw(root, *names, has_labels=True):
    for name in names:
        rng = np.random.default_rng(len(name))
        labels = np.zeros((8, 9, 10), np.uint8)
        labels[1:4, 1:4, 1:4] = 2
        labels[2, 2, 2] = 3
        labels[6, 6, 6] = 1
        for channel in PLAN.channels:
            image = rng.integers(1, 99, labels.shape).astype(np.int16)
            nifti.write(root / name / f"{name}-{channel}.nii", image, affine=np.eye(4))
        if has_labels:
            nifti.write(root / name / f"{name}-seg.nii", labels, affine=np.eye(4))
    return find_cases(root, channels=PLAN.channels)


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")}


def times(store):
    return {p: p.stat().st_mtime_ns for p in store.rglob("image.npy")}


def test_a_case_comes_back_from_the_store(tmp_path):
    cases = raw(tmp_path / "raw", "p1-000", "p0-000")
    store = prepare_store(
        cases, PLAN, tmp_path / "store", fingerprint={"x": 1}, num_workers=1
    )
    assert store.plan == PLAN and store.fingerprint == {"x": 1}
    assert store.ids == ("p0-000", "p1-000") and store.patients["p0-000"] == "p0-000"
    case = store.case("p0-000")
    assert isinstance(case.image, np.memmap) and case.image.shape == (8, 9, 10, 2)
    assert case.labels is not None and case.labels.dtype == np.int8
    assert case.source.images == cases[0].images and case.source.labels is not None
    assert [lesion["volume_mm3"] for lesion in case.lesions] == [27.0, 1.0]
    for name, members in PLAN.regions:
        assert np.isin(case.labels[tuple(case.voxels[name].T)], members).all()
    assert {name: len(voxels) for name, voxels in case.voxels.items()} == {
        "WT": 28,
        "TC": 2,
        "ET": 1,
    }
    with pytest.raises(KeyError, match="no case p9"):
        store.case("p9")


def test_free_columns_and_visits_travel_with_the_case(tmp_path):
    raw(tmp_path, "a")
    row = "a,P,2,a/a-t1c.nii,a/a-t1n.nii,a/a-seg.nii,lung\n"
    (tmp_path / "m.csv").write_text("case,patient,visit,t1c,t1n,seg,primary\n" + row)
    cases = find_cases(tmp_path / "m.csv", channels=PLAN.channels)
    case = prepare_store(cases, PLAN, tmp_path / "store", num_workers=1).case("a")
    assert (case.patient, case.visit, case.columns) == ("P", "2", {"primary": "lung"})


def test_a_case_without_lesions_or_labels_has_no_voxels(tmp_path):
    cases = raw(tmp_path / "raw", "a", has_labels=False)
    case = prepare_store(cases, PLAN, tmp_path / "store", num_workers=1).case("a")
    assert case.labels is None and not case.voxels and not case.lesions
    path = tmp_path / "raw" / "a" / "a-seg.nii"
    nifti.write(path, np.zeros((8, 9, 10), np.uint8), affine=np.eye(4))
    cases = find_cases(tmp_path / "raw", channels=PLAN.channels)
    case = prepare_store(cases, PLAN, tmp_path / "store", num_workers=1).case("a")
    assert case.labels is not None and not case.lesions
    assert all(len(voxels) == 0 for voxels in case.voxels.values())


def test_a_second_run_keeps_what_is_done_and_redoes_what_changed(tmp_path):
    cases = raw(tmp_path / "raw", "a", "b")
    folder = tmp_path / "store"
    prepare_store(cases, PLAN, folder, num_workers=1)
    before = times(folder)
    prepare_store(cases, PLAN, folder, num_workers=1)
    assert times(folder) == before
    # another image: that case alone is done again
    image = nifti.read(cases[0].images["t1c"]).array
    nifti.write(cases[0].images["t1c"], image + 1, affine=np.eye(4))
    prepare_store(cases, PLAN, folder, num_workers=1)
    changed = [p.parent.name for p, t in times(folder).items() if before[p] != t]
    assert changed == ["a"]
    # another plan: all are done again
    before = times(folder)
    other = Plan.from_dict(PLAN.to_dict() | {"spacing_mm": [2.0, 2.0, 2.0]})
    store = prepare_store(cases, other, folder, num_workers=1)
    assert all(before[p] != t for p, t in times(folder).items())
    assert store.case("a").image.shape == (4, 4, 5, 2)


def test_data_that_moved_are_not_prepared_again_but_followed(tmp_path):
    cases = raw(tmp_path / "raw", "a")
    prepare_store(cases, PLAN, tmp_path / "store", num_workers=1)
    before = times(tmp_path / "store")
    (tmp_path / "raw").rename(tmp_path / "moved")
    moved = find_cases(tmp_path / "moved", channels=PLAN.channels)
    store = prepare_store(moved, PLAN, tmp_path / "store", num_workers=1)
    assert times(tmp_path / "store") == before
    assert store.case("a").source.images == moved[0].images
    assert store.case("a").geometry.source == str(moved[0].images["t1c"])


def test_processes_and_one_process_write_the_same_bytes(tmp_path):
    cases = raw(tmp_path / "raw", "a", "b", "c")
    prepare_store(cases, PLAN, tmp_path / "one", num_workers=1)
    prepare_store(cases, PLAN, tmp_path / "two", num_workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_failed_cases_are_listed_and_the_others_done(tmp_path):
    cases = raw(tmp_path / "raw", "a", "b", "c")
    for name in "ac":
        path = tmp_path / "raw" / name / f"{name}-t1c.nii"
        path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ValueError, match="(?s)2 of 3 cases could not be prepared.*a: .*c: "
    ):
        prepare_store(cases, PLAN, tmp_path / "store", num_workers=1)
    assert [p.name for p in (tmp_path / "store" / "cases").iterdir()] == ["b"]
    with pytest.raises(FileNotFoundError, match="no complete store here; run"):
        Store(tmp_path / "store")


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    left = tmp_path / "store" / "cases" / ".tmp-a-0123"
    left.mkdir(parents=True)
    (left / "image.npy").write_bytes(b"half")
    prepare_store(raw(tmp_path / "raw", "a"), PLAN, tmp_path / "store", num_workers=1)
    assert [p.name for p in (tmp_path / "store" / "cases").iterdir()] == ["a"]


SCRIPT = """
    import sys
    from pathlib import Path
    from bmjax.data.cases import find_cases
    from bmjax.data.store import prepare_store
    from bmjax.planning import Plan
    import json
    raw, store, plan = sys.argv[1:]
    print("started", flush=True)
    plan = Plan.from_dict(json.loads(plan))
    prepare_store(find_cases(raw, channels=plan.channels), plan, store, num_workers=2)
    print("jax" in sys.modules, flush=True)
"""


def start(tmp_path, store):
    """A script without a main guard, which must not run again in each process."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    args = [tmp_path / "raw", store, json.dumps(PLAN.to_dict())]
    command = [sys.executable, tmp_path / "script.py", *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_script_without_a_main_guard_starts_once_and_needs_no_jax(tmp_path):
    raw(tmp_path / "raw", "a", "b")
    out, err = start(tmp_path, tmp_path / "store").communicate(timeout=120)
    assert out.split() == ["started", "False"], err


def test_a_killed_run_is_taken_up_again(tmp_path):
    cases = raw(tmp_path / "raw", *(f"c{i:02d}" for i in range(24)))
    process = start(tmp_path, tmp_path / "store")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "store").glob("cases/c*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(100):  # its workers end by themselves
        done = sorted((tmp_path / "store" / "cases").glob("c*"))
        time.sleep(0.02)
        if done == sorted((tmp_path / "store" / "cases").glob("c*")):
            break
    for folder in done:
        assert (folder / "case.json").is_file()
    prepare_store(cases, PLAN, tmp_path / "store", num_workers=1)
    prepare_store(cases, PLAN, tmp_path / "whole", num_workers=1)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_two_programs_do_not_prepare_one_store(tmp_path):
    store = tmp_path / "store"
    with (
        held(store, doing="preparing", otherwise=""),
        pytest.raises(HeldError, match="has been preparing since"),
    ):
        prepare_store(raw(tmp_path / "raw", "a"), PLAN, store)


def test_a_store_is_small_to_send_to_other_processes(tmp_path):
    store = prepare_store(raw(tmp_path, "a"), PLAN, tmp_path / "store", num_workers=1)
    store.case("a")
    sent = pickle.dumps(store)
    assert len(sent) < 5000
    assert pickle.loads(sent).case("a").image.shape == (8, 9, 10, 2)


def test_a_store_of_another_version_is_refused(tmp_path):
    prepare_store(raw(tmp_path, "a"), PLAN, tmp_path / "store", num_workers=1)
    path = tmp_path / "store" / "store.json"
    path.write_text(path.read_text().replace('"version": 2', '"version": 99'))
    with pytest.raises(ValueError, match="a store of version 99"):
        Store(tmp_path / "store")


def test_opening_a_store_loads_no_framework():
    code = (
        "import sys, bmjax.data.store, bmjax.data.patches, bmjax.data.measure;"
        "print([m for m in ('jax', 'flax', 'optax', 'orbax') if m in sys.modules])"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert got.stdout.strip() == "[]", got.stderr


# The index


def test_lesions_are_26_connected_components(rng):
    labels = (rng.random((20, 21, 22)) > 0.97).astype(np.int8)
    lesions = index_lesions(labels, spacing_mm=(1.0, 2.0, 0.5))
    components = cc3d.connected_components(labels, connectivity=26)
    assert len(lesions.facts) == components.max()
    assert len(lesions.voxels) == labels.sum()
    for lesion in lesions.facts:
        own = lesions.voxels[lesion["start"] : lesion["stop"]]
        assert len(own) == lesion["num_voxels"] == lesion["volume_mm3"]
        assert len(np.unique(components[tuple(own.T)])) == 1
        assert labels[tuple(lesion["centre"])]
        low, high = np.array(lesion["box"])
        assert (own >= low).all() and (own < high).all()


def test_many_locations_are_thinned_to_10000_or_a_hundredth():
    labels = np.zeros((10, 60, 60), np.int8)
    labels[:, :40] = 2
    labels[5, 5, 5] = 3
    locations = region_locations(labels, {"WT": (1, 2, 3), "ET": (3,), "NETC": (1,)})
    assert len(locations["WT"]) == 10_000
    assert len(np.unique(locations["WT"], axis=0)) == 10_000
    assert locations["ET"].tolist() == [[5, 5, 5]] and len(locations["NETC"]) == 0
    again = region_locations(labels, {"WT": (1, 2, 3)})
    np.testing.assert_array_equal(again["WT"], locations["WT"])


# Processes


def half(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def broken(number):
    raise TypeError("a bug, not bad data")


def die(number):
    os._exit(9)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_outcomes_come_in_order_and_errors_stop_nothing(num_workers):
    outcomes = run_all(half, [0, 1, 2, 4], num_workers=num_workers)
    assert [outcome.value for outcome in outcomes] == [0, None, 1, 2]
    assert str(outcomes[1].error) == "1 is odd"
    with pytest.raises(
        ValueError, match="1 of 4 cases could not be halved:\n  b: 1 is odd"
    ):
        require_all(outcomes, list("abcd"), "be halved")
    assert require_all([Outcome(3)], ["a"], "be halved") == [3]
    with pytest.raises(TypeError, match="a bug"):
        run_all(broken, [1, 2], num_workers=num_workers)


def test_a_worker_that_dies_is_reported():
    with pytest.raises(
        RuntimeError, match="a worker process died near .* fewer than 2"
    ):
        run_all(die, [1, 2], num_workers=2)


def hang(number):
    threading.Event().wait()


def test_a_worker_that_hangs_is_ended_in_time():
    with pytest.raises(RuntimeError, match="done for 0.5 s; at work on a, b: .*disk"):
        run_all(hang, [1, 2], num_workers=2, names=["a", "b"], timeout_s=0.5)
    assert multiprocessing.active_children() == []


def test_many_threads_may_open_cases_at_once(phantom_store):
    store = Store(phantom_store)
    with ThreadPoolExecutor(16) as pool:
        cases = list(pool.map(store.case, [*store.ids] * 100))
    assert {case.id for case in cases} == set(store.ids)
