"""The 2-D study's split and slices: sizes, patients, memory, and what is refused."""

import dataclasses
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmjax.data import nifti
from bmjax.data.cases import find_cases
from bmjax.study.holdout import sizes, split_three_ways
from bmjax.study.kaur2024 import find_exams
from bmjax.study.networks2d import slice_plan
from bmjax.study.slices2d import CHANNELS, SliceStore, Slicing, write_slices


def test_413_exams_give_the_published_sizes():
    assert sizes(413) == (280, 83, 50)
    assert sizes(412) == (279, 83, 50)  # the paper's number of patients
    found = split_three_ways({f"e{i}": f"p{i}" for i in range(413)})
    assert [len(ids) for ids in found.sets().values()] == [280, 83, 50]


def test_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="2 patients or exams cannot be split"):
        split_three_ways({"a": "p", "b": "p", "c": "q"})


@given(st.lists(st.integers(0, 12), min_size=3, max_size=40), st.integers(0, 99))
def test_no_patient_is_on_two_sides_and_no_exam_is_lost(owners, seed):
    patients = {f"e{i:02d}": f"p{p}" for i, p in enumerate(owners)}
    if len(set(owners)) < 3:
        return
    found = split_three_ways(patients, seed=seed)
    assert found.shared_patients(patients) == ()
    assert sorted(found.train + found.val + found.test) == sorted(patients)
    assert found == split_three_ways(dict(reversed(patients.items())), seed=seed)


def test_as_published_one_patient_may_be_on_two_sides():
    patients = {f"e{i}": f"p{i // 4}" for i in range(40)}
    found = split_three_ways(patients, by="exam")
    assert [len(ids) for ids in found.sets().values()] == [27, 8, 5]
    shared = found.shared_patients(patients)
    assert shared
    for patient in shared:
        own = {case for case in patients if patients[case] == patient}
        assert sum(bool(own & set(ids)) for ids in found.sets().values()) > 1


@pytest.fixture(scope="module")
def store(phantom_raw, tmp_path_factory):
    cases = find_cases(phantom_raw, channels=CHANNELS, need_labels=True)
    folder = tmp_path_factory.mktemp("slices")
    return write_slices(cases, folder, Slicing(size=32, every=2))


def test_a_slice_is_the_scaled_and_resized_plane(store, phantom_raw):
    case = find_cases(phantom_raw, channels=CHANNELS, need_labels=True)[0]
    whole = nifti.read(case.images["t2f"]).array.astype(np.float32)
    found = np.stack([store.image(case.id, i) for i in range(5, 12)])[..., 3]
    scaled = (whole - whole.min()) / (whole.max() - whole.min())
    planes = scaled[10:24:2]
    assert whole.shape[1:] != (32, 32)
    assert 0 <= found.min() and found.max() <= 1
    # a resized plane keeps its mean, about
    np.testing.assert_allclose(found.mean((1, 2)), planes.mean((1, 2)), rtol=0.03)
    assert store.exams[case.id].num_slices == len(whole[::2])


def test_slices_of_the_own_size_are_left_as_they_are(phantom_raw, tmp_path):
    case = find_cases(phantom_raw, channels=CHANNELS, need_labels=True)[0]
    square = tmp_path / "square"
    for channel, path in {**case.images, "seg": case.labels}.items():
        read = nifti.read_labels if channel == "seg" else nifti.read
        array = read(path).array
        array = np.pad(array, ((0, 0), (0, 64), (0, 64)))[:, :64, :64]
        out = square / case.id / f"{case.id}-{channel}.nii.gz"
        out.parent.mkdir(parents=True, exist_ok=True)
        nifti.write(out, array, affine=np.diag([5.0, 5.0, 5.0, 1.0]))
    cases = find_cases(square, channels=CHANNELS, need_labels=True)
    store = write_slices(cases, tmp_path / "s", Slicing(size=64, first=3, stop=9))
    truth = nifti.read_labels(cases[0].labels).array[3:9]
    assert store.exams[case.id].num_slices == 6
    for i in range(6):
        np.testing.assert_array_equal(store.labels(case.id, i), truth[i])
    image = nifti.read(cases[0].images["t1n"]).array.astype(float)
    unit = (image - image.min()) / (image.max() - image.min())
    # half precision
    np.testing.assert_allclose(store.image(case.id, 2)[..., 0], unit[5], atol=5e-4)


def test_an_epoch_has_every_slice_once_in_an_order_of_its_own(store):
    ids = sorted(store.exams)

    def order(seed, epoch):
        batches = store.shuffled(ids, batch_size=4, seed=seed, epoch=epoch)
        return [batch["image"].tobytes() for batch in batches]

    first = order(0, 1)
    assert len(first) == len(store.pairs(ids)) // 4
    assert first == order(0, 1)
    assert first != order(0, 2) and first != order(1, 1)
    seen = [e for b in store.in_order(ids, batch_size=5) for e in b["exams"]]
    assert seen == [exam for exam, _ in store.pairs(ids)]


def test_a_batch_larger_than_the_set_is_refused(store):
    with pytest.raises(ValueError, match="do not fill a batch of 1000"):
        store.shuffled(sorted(store.exams), batch_size=1000, seed=0, epoch=1)


def test_a_store_of_the_same_exams_is_kept_and_of_other_rules_made_anew(
    store, phantom_raw
):
    cases = find_cases(phantom_raw, channels=CHANNELS, need_labels=True)
    path = store.folder / f"{cases[0].id}.image.npy"
    before = path.stat().st_mtime_ns
    write_slices(cases, store.folder, store.slicing)
    assert path.stat().st_mtime_ns == before
    other = dataclasses.replace(store.slicing, binary=True)
    again = write_slices(cases, store.folder.parent / "binary", other)
    assert again.classes == ("metastasis",) and store.classes == ("NETC", "SNFH", "ET")


def test_an_empty_range_of_slices_is_refused_and_leaves_nothing(phantom_raw, tmp_path):
    cases = find_cases(phantom_raw, channels=CHANNELS, need_labels=True)
    with pytest.raises(ValueError, match="none of its .* slices lies in the range"):
        write_slices(cases, tmp_path / "s", Slicing(first=900))
    assert not (tmp_path / "s").exists()


def fake_store(folder, num_exams):
    """Exams of 12 slices of 64 x 64 that share their bytes on disk."""
    folder.mkdir()
    exams = []
    np.save(folder / "e0.image.npy", np.zeros((12, 64, 64, 4), np.float16))
    np.save(folder / "e0.labels.npy", np.ones((12, 64, 64), np.int8))
    for i in range(num_exams):
        for kind in ("image", "labels"):
            if i:
                (folder / f"e{i}.{kind}.npy").symlink_to(folder / f"e0.{kind}.npy")
        facts = {"id": f"e{i}", "patient": f"p{i}", "num_slices": 12}
        exams.append({**facts, "labelled": [1] * 12, "largest_label": 1})
    index = {"slicing": {"size": 64}, "sources": {}, "exams": exams}
    (folder / "index.json").write_text(json.dumps(index))
    return SliceStore(folder)


def test_memory_of_an_epoch_does_not_grow_with_the_number_of_exams(tmp_path):
    peaks = []
    for num_exams in (4, 24):
        store = fake_store(tmp_path / str(num_exams), num_exams)
        ids = sorted(store.exams)
        tracemalloc.start()
        for batch in store.shuffled(ids, batch_size=4, seed=0, epoch=1):
            assert batch["image"].shape == (4, 64, 64, 4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 24 exams hold 10 MB on disk; the order of slices grows, by 100 bytes each
    assert peaks[1] < peaks[0] + 0.3e6 < 2e6


@pytest.mark.slow
def test_the_command_that_measures_memory_by_number_of_exams():
    command = [sys.executable, "-m", "benchmarks.study2d_memory", "--exams", "8", "24"]
    done = subprocess.run(
        [*command, "--size", "32", "--spacing-mm", "6"],
        cwd=Path(__file__).resolve().parents[2],
        check=True,
        capture_output=True,
        text=True,
    )
    few, many = (
        [float(value) for value in row.strip("| ").split("|")]
        for row in done.stdout.splitlines()[-2:]
    )
    assert (few[0], many[0]) == (8, 24)
    assert many[1] == 3 * few[1] and many[2] > few[2]  # whole megabytes
    # the compiler takes a little more or less each time
    assert many[-1] < few[-1] + 100


def ucsf(folder, exam, kinds):
    """An exam named as in UCSF-BMSR."""
    rng = np.random.default_rng(0)
    for name in ("T1pre", "T1post", "FLAIR", "T2Synth", *kinds):
        is_label = name in kinds
        array = np.zeros((6, 8, 8), np.int16)
        if is_label:
            array[2, 2, 2] = 3 if name == "BraTS-seg" else 1
        else:
            array[:] = rng.integers(1, 99, array.shape)
        path = folder / exam / f"{exam}_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nifti.write(path, array, affine=np.eye(4))


def test_ucsf_exams_without_brats_seg_are_left_out_and_named(tmp_path):
    ucsf(tmp_path, "100101A", ("seg", "BraTS-seg"))
    ucsf(tmp_path, "100102A", ("seg",))
    found = find_exams(tmp_path, binary=False)
    assert [case.id for case in found.cases] == ["100101A"]
    assert found.left_out == ("100102A: no labels of this kind",)
    both = find_exams(tmp_path, binary=True)
    assert [case.labels.name for case in both.cases] == [
        "100101A_seg.nii.gz",
        "100102A_seg.nii.gz",
    ]


def test_ucsf_with_seg_alone_is_studied_as_one_class(tmp_path):
    ucsf(tmp_path / "raw", "100101A", ("seg",))
    found = find_exams(tmp_path / "raw", binary=False)
    store = write_slices(found.cases, tmp_path / "s", Slicing(size=32))
    assert store.classes == ("metastasis",)
    assert found.cases[0].patient == "100101"


def test_data_without_labels_are_refused(tmp_path):
    ucsf(tmp_path, "100101A", ())
    with pytest.raises(ValueError, match="none of its 1 exams has labels"):
        find_exams(tmp_path, binary=False)


def test_the_plan_of_a_network_has_the_pixels_of_the_study(phantom_raw):
    found = find_exams(phantom_raw, binary=False)
    chosen = {"classes": ("NETC", "SNFH", "ET"), "features": (4, 8), "batch_size": 2}
    plan = slice_plan(found.cases, Slicing(size=32), **chosen)
    size, affine = nifti.grid_of(found.cases[0].images["t1c"])
    _, y_mm, x_mm = nifti.spacing_of(affine)
    assert plan.spacing_mm == pytest.approx((size[1] * y_mm / 32, size[2] * x_mm / 32))
    assert plan.patch_size == (32, 32) and plan.channels == CHANNELS
    assert dict(plan.regions) == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    one = slice_plan(
        found.cases, Slicing(size=32), **{**chosen, "classes": ("metastasis",)}
    )
    assert one.regions == (("lesion", (1,)),)
    with pytest.raises(ValueError, match="train with --scaling unit"):
        slice_plan(found.cases, Slicing(size=32, scaling="zscore"), **chosen)
