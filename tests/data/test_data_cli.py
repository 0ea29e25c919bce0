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
