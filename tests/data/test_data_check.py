"""Tests of check: every fault of every case, in one report."""

import gzip
import json

import numpy as np
import pytest

from bmjax.data import nifti
from bmjax.data.check import check
from bmjax.data.description import RawData

CHANNELS = ("t1c", "t1n")


def write_case(root, case, *, size=(4, 5, 6), **replaced):
    """A sound case; arrays given by channel replace its own."""
    rng = np.random.default_rng(list(case.encode()))
    labels = np.zeros(size, np.uint8)
    labels[1, 1:3, 1:3] = [[1, 2], [3, 3]]
    arrays = {name: rng.integers(1, 100, size).astype(np.int16) for name in CHANNELS}
    for array in arrays.values():
        array[..., 4:] = 0  # a background, as of a stripped image
    for name, array in ({**arrays, "seg": labels} | replaced).items():
        if array is not None:
            path = root / case / f"{case}-{name}.nii.gz"
            nifti.write(path, array, affine=np.eye(4))
    return root / case


def run(root, **options):
    return check(root, data=RawData(channels=CHANNELS), num_workers=1, **options)


def only_problem(report):
    (problem,) = report.problems
    assert not report.ok
    return str(problem)


def test_a_sound_data_set_has_no_problem(tmp_path):
    for case in ("b", "a"):
        write_case(tmp_path, case)
    seen = []
    report = run(tmp_path, need_labels=True, progress=lambda *at: seen.append(at))
    assert report.ok and not report.warnings
    assert [case.id for case in report.cases] == ["a", "b"]
    assert report.label_voxels == {1: 2, 2: 2, 3: 4} and report.num_files == 6
    assert seen == [(1, 2, "a"), (2, 2, "b")]
    text = str(report)
    assert "2 complete cases of 2 patients, 2 with labels, 6 files" in text
    assert "2 x 4 x 5 x 6 voxels of 1 x 1 x 1 mm" in text
    assert text.endswith("no problem found")


def test_all_problems_of_all_cases_are_listed_at_once(tmp_path):
    write_case(tmp_path, "a", t1n=None)
    (write_case(tmp_path, "b") / "b-t1c.nii.gz").write_bytes(b"")
    write_case(tmp_path, "c", t1n=np.zeros((4, 5, 5), np.int16))
    folder = write_case(tmp_path, "d")
    labels = np.full((4, 5, 6), 4, np.uint8)
    nifti.write(folder / "d-seg.nii.gz", labels, affine=np.eye(4))
    report = run(tmp_path)
    assert [problem.case for problem in report.problems] == ["a", "b", "c", "c", "d"]
    assert "5 problems in 4 of the cases" in str(report)
    assert "repair these" in str(report)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is False and len(values["problems"]) == 5
    assert values["problems"][0]["case"] == "a"


def test_processes_give_the_same_report(tmp_path):
    for case in ("a", "b"):
        write_case(tmp_path, case)
    (write_case(tmp_path, "c") / "c-t1c.nii.gz").write_bytes(b"")
    several = check(tmp_path, data=RawData(channels=CHANNELS), num_workers=2)
    assert str(several) == str(run(tmp_path)) and len(several.problems) == 1


def test_faults_6_and_7_damage_at_the_end_of_a_file_is_noticed(tmp_path):
    path = write_case(tmp_path, "a") / "a-t1c.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    assert "a: " in only_problem(run(tmp_path))
    assert "truncated" in only_problem(run(tmp_path))
    path.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    assert "damaged gzip stream" in only_problem(run(tmp_path))


def test_faults_8_to_10_files_that_are_no_volumes(tmp_path):
    path = write_case(tmp_path, "a") / "a-t1c.nii.gz"
    whole = gzip.decompress(path.read_bytes())
    for content, message in (
        (b"", "the file is empty"),
        (b"hello" * 200, "not a NIfTI file"),
        (gzip.compress(whole[:-3]), "the header promises"),
    ):
        path.write_bytes(content)
        assert message in only_problem(run(tmp_path))


def test_faults_13_and_14_voxels_without_information(tmp_path):
    image = np.ones((4, 5, 6), np.float32)
    write_case(tmp_path, "a", t1c=image)
    assert "every voxel is 1" in only_problem(run(tmp_path))
    image[0, 0, :2] = np.nan, np.inf
    write_case(tmp_path, "a", t1c=image)
    assert "2 voxels are NaN or infinite" in only_problem(run(tmp_path))


def test_fault_20_a_series_is_a_problem_and_one_volume_a_warning(tmp_path):
    import nibabel as nib

    path = write_case(tmp_path, "a") / "a-t1c.nii.gz"
    image = nifti.read(path).array.T
    nib.save(nib.Nifti1Image(image[..., None], np.eye(4)), path)
    report = run(tmp_path)
    assert report.ok and "4-D file with one volume" in str(report.warnings[0])
    nib.save(nib.Nifti1Image(np.stack([image, image], -1), np.eye(4)), path)
    assert "one volume is expected" in only_problem(run(tmp_path))


def test_fault_22_sizes_that_differ_are_shown_as_a_table(tmp_path):
    write_case(tmp_path, "a", t1n=np.arange(4 * 5 * 7).reshape(4, 5, 7))
    text = only_problem(run(tmp_path))
    assert "t1c 4 x 5 x 6, t1n 4 x 5 x 7, labels 4 x 5 x 6" in text


@pytest.mark.parametrize(
    ("shift_mm", "is_ok"), [(1e-5, True), (0.09, True), (0.2, False)]
)
def test_faults_23_and_24_affines_may_differ_by_a_tenth_of_a_voxel(
    tmp_path, shift_mm, is_ok
):
    path = write_case(tmp_path, "a") / "a-t1n.nii.gz"
    affine = np.eye(4)
    affine[1, 3] = shift_mm
    nifti.write(path, nifti.read(path).array, affine=affine)
    report = run(tmp_path)
    assert report.ok == is_ok
    if not is_ok:
        assert "t1n lies up to 0.2 voxels away from t1c" in only_problem(report)


def test_the_same_grid_stored_in_another_orientation_is_accepted(tmp_path):
    path = write_case(tmp_path, "a") / "a-t1n.nii.gz"
    array = nifti.read(path).array
    flipped = np.diag([-1.0, 1, 1, 1])
    flipped[0, 3] = array.shape[2] - 1
    nifti.write(path, array[:, :, ::-1], affine=flipped)
    assert run(tmp_path).ok


def test_fault_35_an_empty_mask_is_only_mentioned(tmp_path):
    write_case(tmp_path, "a", seg=np.zeros((4, 5, 6), np.uint8))
    write_case(tmp_path, "b")
    report = run(tmp_path)
    assert report.ok and "no lesion in its labels" in str(report.warnings[0])


def test_fault_36_unexpected_labels_are_counted(tmp_path):
    labels = np.zeros((4, 5, 6), np.int16)
    labels[0, 0, :3] = 4, 4, 255
    labels[1, 1, 1] = 1
    write_case(tmp_path, "a", seg=labels)
    text = only_problem(run(tmp_path))
    assert "unexpected label 4 (2 voxels), 255 (1 voxels); expected 0, 1, 2, 3" in text
    assert "say what it is, such as --label-map 4=3" in text
    both = RawData(channels=CHANNELS, label_map=("4=3", "255=0"))
    report = check(tmp_path, data=both, num_workers=1)
    assert report.ok and report.label_voxels == {1: 1, 3: 2}


def test_fault_37_float_labels_are_rounded_or_refused(tmp_path):
    labels = np.zeros((4, 5, 6), np.float32)
    labels[0, 0, :3] = 1, 2.0000001, 2.9995
    write_case(tmp_path, "a", seg=labels)
    assert run(tmp_path).ok
    labels[0, 0, 0] = 1.5
    write_case(tmp_path, "a", seg=labels)
    assert "1 label values are no integers (1.5)" in only_problem(run(tmp_path))


def test_faults_38_and_40_odd_masks_are_mentioned(tmp_path):
    write_case(tmp_path, "a", seg=np.full((4, 5, 6), 2, np.uint8))
    report = run(tmp_path)
    text = "\n".join(map(str, report.warnings))
    assert report.ok and "no background" in text
    assert "label 1, 3 occurs in no case" in text


def test_real_cases_are_sound(real_cases):
    folder = sorted(real_cases.iterdir())[0]
    report = check(folder, num_workers=1)
    assert report.ok and report.num_files == 5
    gli = check(real_cases.parent / "brats_gli", num_workers=1)
    assert gli.ok and gli.label_voxels == {1: 11738, 2: 12836, 3: 32731}
