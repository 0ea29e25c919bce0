"""Faults of data sets as a person meets them: at the command line."""

import json

import numpy as np
import pytest

from bmjax.cli import FAILED, OK, main
from bmjax.data import nifti
from bmjax.data.store import Store

CHANNELS = ("t1c", "t1n")
DATASET = {
    "channel_names": {"0": "T1Gd", "1": "T1"},
    "labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3},
    "regions_class_order": [2, 1, 3],
    "file_ending": ".nii.gz",
    "numTraining": 2,
}


def run(*argv):
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in argv])
    return stopped.value.code


def lesions(size, values=(1, 2, 3)):
    labels = np.zeros(size, np.uint8)
    for i, value in enumerate(values):
        labels[2 + i, 2:6, 2:6] = value
    return labels


def image(size, seed):
    array = np.random.default_rng(seed).integers(1, 900, size).astype(np.int16)
    array[..., -4:] = 0
    return array


def write(path, array, spacing=(1.0, 1.0, 1.0)):
    nifti.write(path, array, affine=np.diag([*spacing, 1.0]))


def brats(root, case, *, size=(12, 16, 20), spacing=(1.0, 1.0, 1.0), labels=None):
    for i, name in enumerate(CHANNELS):
        seed = [*case.encode(), i]
        write(root / case / f"{case}-{name}.nii.gz", image(size, seed), spacing)
    labels = lesions(size) if labels is None else labels
    write(root / case / f"{case}-seg.nii.gz", labels, spacing)


def nnunet(root, *cases, size=(12, 16, 20)):
    for case in cases:
        for i in range(2):
            path = root / "imagesTr" / f"{case}_000{i}.nii.gz"
            write(path, image(size, [*case.encode(), i]))
        write(root / "labelsTr" / f"{case}.nii.gz", lesions(size))
    (root / "dataset.json").write_text(json.dumps(DATASET))
    return root


def prepare(raw, store, *flags):
    return run("prepare", raw, store, "--num-workers", "1", *flags)


def test_nnunet_raw_data_are_checked_planned_and_prepared_in_place(tmp_path, capsys):
    raw = nnunet(tmp_path / "raw", "a", "b")
    assert run("check", raw, "--num-workers", "1") == OK
    assert "channels t1c (zscore), t1n (zscore)" in capsys.readouterr().out
    out, folder = tmp_path / "plan.json", tmp_path / "Dataset001_Mine"
    flags = ("--out", out, "--nnunet", folder, "--num-workers", "1")
    assert run("plan", raw, "--preset", "resenc_m", *flags) == OK
    text = capsys.readouterr().out
    assert "2 cases, resenc_m" in text and "median of 2 cases" in text
    theirs = json.loads((folder / "nnUNetResEncUNetMPlans.json").read_text())
    ours = json.loads(out.read_text())
    found = theirs["configurations"]["3d_fullres"]
    assert found["patch_size"] == ours["patch_size"]
    assert json.loads((folder / "dataset.json").read_text())["labels"]["TC"] == [1, 3]
    assert prepare(raw, tmp_path / "store", "--plan", out) == OK
    assert "carried over, as its own would be" in capsys.readouterr().err
    store = Store(tmp_path / "store")
    assert store.ids == ("a", "b") and store.plan.channels == ("t1c", "t1n")
    assert prepare(raw, tmp_path / "other", "--plan", folder / "plans.json") == FAILED
    assert "no such plan" in capsys.readouterr().err
    theirs_path = folder / "nnUNetResEncUNetMPlans.json"
    assert prepare(raw, tmp_path / "other", "--plan", theirs_path) == OK
    assert run("plan", tmp_path / "store", "--json") == OK
    assert Store(tmp_path / "other").plan.patch_size == store.plan.patch_size


def test_fault_36_an_old_release_is_mapped_and_its_map_printed(tmp_path, capsys):
    raw = tmp_path / "raw"
    for case in ("BraTS20_Training_001", "BraTS20_Training_002"):
        brats(raw, case, labels=lesions((12, 16, 20), (1, 2, 4)))
    flags = ("--channels", *CHANNELS)
    assert prepare(raw, tmp_path / "store", *flags) == OK
    text = " ".join(capsys.readouterr().err.split())
    assert "label map of 2 of 2 cases:" in text and "4 3 ET" in text
    case = Store(tmp_path / "store").case("BraTS20_Training_001")
    assert set(np.unique(case.labels)) == {0, 1, 2, 3}
    assert case.source.reading.label_map == ((4, 3),)


def test_fault_36_a_resection_cavity_needs_a_word(tmp_path, capsys):
    raw = tmp_path / "raw"
    for case in ("M-00001-000", "M-00002-000"):
        brats(raw, case, labels=lesions((12, 16, 20), (1, 2, 3, 4)))
    flags = ("--channels", *CHANNELS)
    assert prepare(raw, tmp_path / "store", *flags) == FAILED
    text = capsys.readouterr().err
    assert "unexpected label 4 (16 voxels)" in text and "--label-map 4=" in text
    assert not (tmp_path / "store").exists()
    assert prepare(raw, tmp_path / "a", *flags, "--label-map", "4=0") == OK
    assert prepare(raw, tmp_path / "b", *flags, "--labels", "brats-rc") == OK
    assert [len(Store(tmp_path / s).plan.regions) for s in "ab"] == [3, 4]
    assert prepare(raw, tmp_path / "a", *flags, "--label-map", "4=9") == FAILED
    assert "9 is no label here" in capsys.readouterr().err


def test_fault_40_a_region_that_never_occurs_is_an_error_before_training(
    tmp_path, capsys
):
    for case in ("a", "b"):
        brats(tmp_path / "raw", case, labels=lesions((12, 16, 20), (2,)))
    store = tmp_path / "store"
    assert prepare(tmp_path / "raw", store, "--channels", *CHANNELS) == FAILED
    assert "TC, ET occurs in none of the 2 cases" in capsys.readouterr().err
    assert not store.exists()


def test_fault_24_other_grids_are_resampled_when_asked_for(tmp_path, capsys):
    raw = tmp_path / "raw"
    brats(raw, "a")
    path = raw / "a" / "a-t1n.nii.gz"
    write(path, image((6, 8, 10), 1), (2.0, 2.0, 2.0))
    flags = ("--channels", *CHANNELS, "--num-workers", "1")
    assert run("check", raw, *flags) == FAILED
    assert "--resample-to t1c" in capsys.readouterr().out
    assert run("check", raw, *flags, "--resample-to", "t1c") == OK
    assert "(will be done)" in capsys.readouterr().out
    store = tmp_path / "store"
    assert prepare(raw, store, *flags[:3], "--resample-to", "t1c") == OK
    case = Store(store).case("a")
    assert any("resampled from 6 x 8 x 10" in text for text in case.warnings)
    assert case.source.reading.resample_to == "t1c"


def test_fault_12_links_to_outside_are_followed_when_allowed(tmp_path, capsys):
    brats(tmp_path / "elsewhere", "a")
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a").symlink_to(tmp_path / "elsewhere" / "a")
    flags = ("--channels", *CHANNELS, "--num-workers", "1")
    assert run("check", raw, *flags) == FAILED
    assert "outside of the data folder" in capsys.readouterr().out
    assert run("check", raw, *flags, "--allow-outside") == OK


def test_fault_5_long_odd_and_shouted_names_work(tmp_path, capsys):
    raw = tmp_path / ("long folder " * 12) / "Bilder Größe (neu)"
    brats(raw, "PATIENT Ä 1")
    for path in list((raw / "PATIENT Ä 1").iterdir()):
        path.rename(path.with_name(path.name.upper()))
    flags = ("--channels", *CHANNELS, "--num-workers", "1")
    assert run("check", raw, *flags) == OK
    assert "1 complete cases" in capsys.readouterr().out
    assert prepare(raw, tmp_path / "s", *flags[:3]) == OK


def test_faults_31_and_39_thick_slices_keep_a_lesion_of_one_voxel(tmp_path):
    size, spacing = (8, 48, 48), (0.5, 0.5, 6.0)
    for case in ("a", "b"):
        labels = lesions(size)
        labels[0, 0, 0] = 3  # touches the border
        labels[7, 30, 30] = 1
        brats(tmp_path / "raw", case, size=size, spacing=spacing, labels=labels)
    store = tmp_path / "store"
    flags = ("--channels", *CHANNELS)
    assert prepare(tmp_path / "raw", store, *flags) == OK
    plan = Store(store).plan
    assert plan.spacing_mm == (6.0, 0.5, 0.5) and plan.kernel_sizes[0] == (1, 3, 3)
    coarse = ("--spacing-mm", "6", "1.2", "1.2")
    assert prepare(tmp_path / "raw", tmp_path / "coarse", *flags, *coarse) == OK
    for folder in (store, tmp_path / "coarse"):
        case = Store(folder).case("a")
        assert len(case.lesions) == 3
        assert min(lesion["stop"] - lesion["start"] for lesion in case.lesions) == 1


@pytest.mark.parametrize("value", [0.0, float("nan"), -1.0])
def test_fault_32_an_odd_voxel_size_is_refused_or_the_affine_used(
    tmp_path, capsys, value
):
    raw = tmp_path / "raw"
    brats(raw, "a")
    path = raw / "a" / "a-t1c.nii.gz"
    header = bytearray(_unpacked(path))
    header[84:88] = np.float32(value).tobytes()  # pixdim[2]
    path.write_bytes(header)  # a plain file by a .gz name: the content decides
    flags = ("--channels", *CHANNELS, "--num-workers", "1")
    assert run("check", raw, *flags) == OK  # its sform says the size
    capsys.readouterr()
    header[252:256] = bytes(4)  # neither qform nor sform
    path.write_bytes(header)
    assert run("check", raw, *flags) == FAILED
    assert "a-t1c.nii.gz" in capsys.readouterr().out


def test_the_plan_of_a_store_is_its_own_and_anew_with_a_preset(tmp_path, capsys):
    brats(tmp_path / "raw", "a")
    store = tmp_path / "store"
    flags = ("--channels", *CHANNELS, "--spacing-mm", "2", "2", "2")
    assert prepare(tmp_path / "raw", store, *flags) == OK
    capsys.readouterr()
    assert run("plan", store) == OK
    assert "given; the rule's own is 1 x 1 x 1 mm" in capsys.readouterr().out
    assert run("plan", store, "--preset", "resenc_m", "--json") == OK
    assert json.loads(capsys.readouterr().out)["spacing_mm"] == [1.0, 1.0, 1.0]


def _unpacked(path):
    import gzip

    return gzip.decompress(path.read_bytes())


def test_fault_42_one_case_and_too_few_cases_are_said(tmp_path, capsys):
    from bmjax.data.splits import split_cases

    with pytest.raises(ValueError, match="1 patient cannot be split"):
        split_cases({"a": "a"})
    with pytest.raises(ValueError, match="3 patients cannot be split into 5 folds"):
        split_cases({"a": "a", "b": "b", "c": "c"})
