"""Predictions given as probabilities, in each of the namings that are accepted."""

import csv
import json

import numpy as np
import pytest

from bmjax.data import nifti
from bmjax.evaluation import evaluate

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
CASES = ("a-0001-000", "a-0002-000")
REGIONS = ("WT", "TC", "ET")
SHAPE = (6, 12, 14)


def reference():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:7, 3:8] = 2
    labels[2, 3:5, 4:7] = 3
    labels[2, 4, 5] = 1
    return labels


def region_probs(labels):
    """Probabilities whose painted labels are these, with one false candidate."""
    probs = {
        name: np.where(np.isin(labels, values), 0.875, 0.03125).astype(np.float32)
        for name, values in zip(REGIONS, ((1, 2, 3), (1, 3), (3,)), strict=True)
    }
    probs["ET"][-1, -1, -1] = 0.25
    return probs


@pytest.fixture
def folders(tmp_path):
    for case in CASES:
        path = tmp_path / "ref" / f"{case}.nii.gz"
        nifti.write(path, reference(), affine=AFFINE)
    (tmp_path / "pred").mkdir()
    return tmp_path / "pred", tmp_path / "ref"


def write_volumes(folder, case, probs, *, affine=AFFINE):
    for name, values in probs.items():
        nifti.write(folder / f"{case}_prob_{name}.nii.gz", values, affine=affine)


def write_npz(folder, case, channels):
    np.savez_compressed(folder / f"{case}.npz", probabilities=np.float16(channels))


def test_volumes_of_probability_make_labels_and_a_curve(folders, tmp_path):
    for case in CASES:
        write_volumes(folders[0], case, region_probs(reference()))
    evaluation = evaluate(*folders, out=tmp_path / "eval")
    assert evaluation.ok
    assert all(row["dice_ET"] == row["dice_NETC"] == 1 for row in evaluation.rows)
    assert evaluation.summary["not_evaluated"] == []
    froc = evaluation.summary["regions"]["ET"]["froc"]
    assert (froc["num_cases"], froc["score"], froc["area"]) == (2, 1.0, 1.0)
    with (tmp_path / "eval" / "froc.csv").open(newline="") as file:
        points = [row for row in csv.DictReader(file) if row["region"] == "ET"]
    assert [float(p["threshold"]) for p in points] == [np.inf, 0.875, 0.25]
    assert [float(p["sensitivity"]) for p in points] == [0, 1, 1]
    assert [float(p["false_positives_per_case"]) for p in points] == [0, 0, 1]
    lesions = [row for row in evaluation.lesions if row["region"] == "ET"]
    assert {row["confidence"] for row in lesions} == {0.875}


def test_a_label_file_beside_probabilities_is_the_prediction(folders):
    for case in CASES:
        write_volumes(folders[0], case, region_probs(reference()))
        path = folders[0] / f"{case}.nii.gz"
        nifti.write(path, np.zeros(SHAPE, np.uint8), affine=AFFINE)
    evaluation = evaluate(*folders)
    assert evaluation.rows[0]["dice_ET"] == 0
    missed = next(row for row in evaluation.lesions if row["region"] == "ET")
    assert (missed["is_found"], missed["confidence"]) == (False, 0.875)


def test_an_npz_of_regions_equals_the_volumes(folders, tmp_path):
    probs = region_probs(reference())
    other = tmp_path / "volumes"
    for case in CASES:
        write_npz(folders[0], case, list(probs.values()))
        write_volumes(other, case, probs)
    first, second = (evaluate(f, folders[1]).to_dict() for f in (folders[0], other))
    assert first["cases"] == second["cases"]
    assert first["summary"]["regions"] == second["summary"]["regions"]


def test_an_npz_of_labels_sums_them_to_regions(folders):
    labels = reference()
    channels = np.full((4, *SHAPE), 0.125, np.float32)
    for value in range(4):
        channels[value][labels == value] = 0.625
    for case in CASES:
        write_npz(folders[0], case, channels)
    evaluation = evaluate(*folders)
    assert evaluation.rows[0]["dice_SNFH"] == evaluation.rows[0]["dice_ET"] == 1
    by_region = {row["region"]: row["confidence"] for row in evaluation.lesions}
    assert by_region == {"WT": 0.875, "TC": 0.75, "ET": 0.625}


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR"])
def test_an_npz_lies_as_the_image_file_does(folders, axes):
    """nnU-Net stores the array of the file; the reader turns both alike."""
    labels = reference()
    labels[0, 0, 0] = 2  # no symmetry
    turned = np.zeros((4, 4))
    turned[3, 3] = 1
    spacing = {"R": 1.0, "A": 1.0, "S": 3.0, "L": 1.0, "P": 1.0, "I": 3.0}
    size = {"R": 14, "L": 14, "A": 12, "P": 12, "S": 6, "I": 6}
    stored = labels.transpose(2, 1, 0)  # x y z, RAS
    order = [next(i for i, p in enumerate(("RL", "AP", "SI")) if a in p) for a in axes]
    stored = stored.transpose(order)
    for i, letter in enumerate(axes):
        world = order[i]
        if letter in "LPI":
            stored = np.flip(stored, i)
            turned[world, i] = -spacing[letter]
            turned[world, 3] = (size[letter] - 1) * spacing[letter]
        else:
            turned[world, i] = spacing[letter]
    stored = np.ascontiguousarray(stored.transpose(2, 1, 0))
    for case in CASES:
        nifti.write(folders[1] / f"{case}.nii.gz", stored, affine=turned)
        write_npz(folders[0], case, list(region_probs(stored).values()))
    evaluation = evaluate(*folders)
    assert evaluation.ok, evaluation.failures
    assert all(row["dice_WT"] == row["dice_ET"] == 1 for row in evaluation.rows)


def failure_of(folders):
    evaluation = evaluate(*folders, cases=CASES[:1])
    (failure,) = evaluation.failures
    return failure["message"]


def test_a_region_without_its_volume_is_named(folders):
    probs = region_probs(reference())
    del probs["TC"]
    write_volumes(folders[0], CASES[0], probs)
    assert f"{CASES[0]}_prob_TC.nii.gz" in failure_of(folders)


def test_logits_are_refused(folders):
    probs = {
        name: 20 * values - 10 for name, values in region_probs(reference()).items()
    }
    write_volumes(folders[0], CASES[0], probs)
    assert "no probabilities" in failure_of(folders)


def test_probabilities_on_another_grid_are_refused(folders):
    probs = region_probs(reference())
    moved = AFFINE.copy()
    moved[0, 3] = 5
    write_volumes(folders[0], CASES[0], probs, affine=moved)
    assert "voxels apart" in failure_of(folders)


@pytest.mark.parametrize(
    ("shape", "text"),
    [((3, 6, 12, 13), "is expected"), ((5, *SHAPE), "5 channels")],
)
def test_an_npz_of_another_shape_is_refused(folders, shape, text):
    write_npz(folders[0], CASES[0], np.full(shape, 0.5))
    assert text in failure_of(folders)


def test_an_npz_without_probabilities_is_refused(folders):
    np.savez(folders[0] / f"{CASES[0]}.npz", softmax=np.zeros(SHAPE))
    assert "no readable array `probabilities`" in failure_of(folders)


def test_a_damaged_npz_is_refused(folders):
    write_npz(folders[0], CASES[0], list(region_probs(reference()).values()))
    path = folders[0] / f"{CASES[0]}.npz"
    path.write_bytes(path.read_bytes()[:-400])
    assert "no readable array" in failure_of(folders)


def test_labels_alone_leave_no_curve(folders, tmp_path):
    for case in CASES:
        nifti.write(folders[0] / f"{case}.nii.gz", reference(), affine=AFFINE)
    evaluation = evaluate(*folders, out=tmp_path / "eval")
    assert "froc" not in evaluation.summary["regions"]["ET"]
    assert not (tmp_path / "eval" / "froc.csv").exists()
    assert "froc" in json.loads((tmp_path / "eval" / "conventions.json").read_text())
