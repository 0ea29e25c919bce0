"""Faults of labels and data sets (rows 35 to 42): empty, unknown, lost, too few."""

import json

import numpy as np
from scene import (
    BROKEN,
    SIZE,
    SOUND,
    assert_said,
    image,
    labels,
    write_exam,
)

from bmjax.cli import FAILED, OK
from bmjax.data import nifti
from bmjax.data.store import Store

FILE = "A-001-seg.nii.gz"
CONFIG = """
from bmjax import Experiment, models


def experiment():
    return Experiment(model=models.PlainUNet(features=(4, 8)))
"""


def put(scene, array, case=BROKEN):
    nifti.write(scene.path("seg", case), array, affine=np.eye(4))


def train(scene, *flags):
    config = scene.folder / "config.py"
    config.write_text(CONFIG)
    run = scene.folder / "run"
    where = ("--workdir", run, "--data.store", scene.store)
    return scene.run("train", config, *where, *flags)


def test_fault_35_an_empty_mask_is_allowed_counted_and_scored_as_said(scene, tmp_path):
    put(scene, np.zeros(SIZE, np.uint8))
    done = scene.check("--need-labels")
    assert done.code == OK
    assert_said(done, f"{FILE}: no lesion in its labels")
    assert scene.prepare().code == OK
    assert len(Store(scene.store).case(BROKEN).lesions) == 0
    scores = {}
    for both_empty in ("exclude", "one"):
        out = tmp_path / both_empty
        argv = ("--out", out, "--both-empty", both_empty)
        assert scene.run("evaluate", scene.raw, scene.raw, *argv).code == OK
        summary = json.loads((out / "summary.json").read_text())
        assert summary["empty_predictions"] == [BROKEN]
        scores[both_empty] = summary["regions"]["WT"]
        convention = json.loads((out / "conventions.json").read_text())["both_empty"]
        assert ("are 1 where" in convention) == (both_empty == "one")
    assert scores["exclude"]["dice"]["n"] == 1
    assert scores["one"]["dice"]["n"] == 2


def test_fault_36_unknown_labels_are_counted_and_need_a_word(scene):
    odd = labels()
    odd[odd == 1] = 4
    odd[0, 0, :3] = 255
    put(scene, odd)
    said = ("unexpected label", "4 (16 voxels)", "255 (3 voxels)", "--label-map 4=")
    done = scene.check()
    assert done.code == FAILED
    assert_said(done, FILE, *said)
    scene.cannot_be_prepared(BROKEN, *said)
    done = scene.prepare("--label-map", "4=9", "255=0")
    assert done.code == FAILED
    assert_said(done, "9 is no label here")
    done = scene.prepare("--label-map", "4=1", "255=0")
    assert done.code == OK
    assert_said(done, "label map of 2 of 2 cases:", "255 0")
    found = np.unique(Store(scene.store).case(BROKEN).labels)
    np.testing.assert_array_equal(found, [0, 1, 2, 3])
    reading = Store(scene.store).case(BROKEN).source.reading
    assert reading.label_map == ((4, 1), (255, 0))


def test_fault_36_an_old_release_is_mapped_and_its_map_printed(scene, tmp_path):
    raw = tmp_path / "old"
    old = np.where(labels() == 3, 4, labels()).astype(np.uint8)
    for case in ("BraTS20_Training_001", "BraTS20_Training_002"):
        write_exam(raw, case, seg=old)
    done = scene.prepare(raw=raw)
    assert done.code == OK
    assert_said(done, "label map of 2 of 2 cases:", "4 3 ET")
    found = np.unique(Store(scene.store).case("BraTS20_Training_001").labels)
    np.testing.assert_array_equal(found, [0, 1, 2, 3])


def test_fault_36_a_resection_cavity_needs_a_word(scene):
    for case in (BROKEN, SOUND):
        cavity = labels()
        cavity[2, 8, 8] = 4
        put(scene, cavity, case)
    scene.cannot_be_prepared("unexpected label 4 (1 voxels)", "--label-map 4=")
    assert scene.prepare("--labels", "brats-rc").code == OK
    assert "RC" in dict(Store(scene.store).plan.regions)


def test_fault_37_float_labels_are_rounded_only_when_close(scene):
    near = labels().astype(np.float32)
    near[near == 2] = 2.0000002
    near[near == 1] = 0.9999
    put(scene, near)
    assert scene.check().code == OK
    assert scene.prepare().code == OK
    case = Store(scene.store).case(BROKEN)
    assert np.count_nonzero(case.labels) == np.count_nonzero(labels())
    far = near.copy()
    far[far == 3] = 2.7
    put(scene, far)
    done = scene.check()
    assert done.code == FAILED
    assert_said(done, BROKEN, FILE, "2.7")
    scene.store = scene.folder / "other"
    scene.cannot_be_prepared(BROKEN, FILE, "2.7")


def test_fault_38_labels_without_background_are_remarked(scene):
    put(scene, np.full(SIZE, 3, np.uint8))
    done = scene.check()
    assert done.code == OK
    assert_said(done, f"{FILE}: its labels have no background")
    done = scene.prepare()
    assert done.code == OK
    assert_said(done, BROKEN, "its labels have no background")


def test_fault_39_a_lesion_of_one_voxel_or_at_the_border_is_not_lost(scene):
    for case in (BROKEN, SOUND):
        picture = image(case, "t1c")
        picture[0, 0, 0] = picture[-1, -1, -1] = 50  # content up to the border
        nifti.write(scene.path("t1c", case), picture, affine=np.eye(4))
        array = labels()
        array[0, 0, 0] = 3
        array[8, 3, 9] = 1
        put(scene, array, case)
    assert scene.prepare("--spacing-mm", "2.5", "2.5", "2.5").code == OK
    case = Store(scene.store).case(BROKEN)
    assert case.labels.shape == (6, 7, 8)
    assert case.labels[0, 0, 0] == 3
    assert case.labels[2:5, 1:3, 2:5].max() >= 1  # around 8 3 9, every 2.5th voxel
    # both are there to be drawn from
    assert [0, 0, 0] in case.lesion_voxels.tolist()
    assert min(lesion["stop"] - lesion["start"] for lesion in case.lesions) == 1
    assert not any("lost" in text for text in case.warnings)


def test_fault_40_what_never_occurs_is_an_error_before_training(scene):
    for case in (BROKEN, SOUND):
        put(scene, np.where(labels() == 2, 2, 0).astype(np.uint8), case)
    scene.cannot_be_prepared("TC, ET occurs in none of the 2 cases", "add cases")
    assert_said(scene.check(), "label 1, 3 occurs in no case")
    for case in (BROKEN, SOUND):
        put(scene, np.zeros(SIZE, np.uint8), case)
    done = scene.check()
    assert done.code == FAILED
    assert_said(done, "no case has a lesion in its labels")
    scene.cannot_be_prepared("occurs in none of the 2 cases")
    # with ET in one case alone, which a fold holds out
    put(scene, labels())
    assert scene.prepare().code == OK
    done = train(scene, "--data.held-out", BROKEN)
    assert done.code == FAILED
    assert_said(done, "WT, TC, ET occurs in none of the 1 cases to train on")
    assert not (scene.folder / "run").exists()


def test_fault_41_a_patient_on_both_sides_is_an_error(scene, tmp_path):
    raw = tmp_path / "visits"
    for case in ("BraTS-MET-00001-000", "BraTS-MET-00001-001", "BraTS-MET-00002-000"):
        write_exam(raw, case)
    assert scene.prepare(raw=raw).code == OK
    done = train(scene, "--data.held-out", "BraTS-MET-00001-001")
    assert done.code == FAILED
    both = "BraTS-MET-00001 (BraTS-MET-00001-000, BraTS-MET-00001-001)"
    assert_said(done, f"cases share patients: {both}", "on one side")
    assert not (scene.folder / "run").exists()


def test_fault_42_too_few_cases_for_the_folds_are_said(scene, tmp_path):
    assert scene.prepare().code == OK
    done = train(scene)
    assert done.code == FAILED
    assert_said(done, "2 patients cannot be split into 5 folds")
    raw = tmp_path / "one"
    write_exam(raw, SOUND)
    scene.store = tmp_path / "single"
    assert scene.prepare(raw=raw).code == OK
    done = train(scene, "--data.num-folds", 2)
    assert done.code == FAILED
    assert_said(done, "1 patient cannot be split")
    assert not (scene.folder / "run").exists()
