"""Cases that cannot be prepared say why."""

import numpy as np
import pytest
from planned_cases import PLAN, make_case

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.measure import measure_case, measure_cases
from bmjax.data.preprocess import preprocess


def test_faults_22_and_24_files_on_different_grids_are_refused(tmp_path):
    case = make_case(tmp_path)
    array = nifti.read(case.images["t1n"]).array
    shifted = np.eye(4)
    shifted[0, 3] = 0.2
    nifti.write(case.images["t1n"], array, affine=shifted)
    with pytest.raises(ValueError, match="c: t1n lies up to 0.2 voxels away from t1c"):
        preprocess(case, PLAN)
    nifti.write(case.images["t1n"], array[1:], affine=np.eye(4))
    with pytest.raises(ValueError, match="c: files differ in size .*t1n 11 x 14 x 16"):
        preprocess(case, PLAN)


def test_fault_23_a_tiny_difference_of_affines_is_accepted(tmp_path):
    case = make_case(tmp_path)
    nifti.write(
        case.images["t1n"],
        nifti.read(case.images["t1n"]).array,
        affine=np.eye(4) * (1 + 1e-5),
    )
    preprocess(case, PLAN)


def test_fault_13_nan_voxels_are_refused(tmp_path):
    case = make_case(tmp_path)
    array = nifti.read(case.images["t1n"]).array
    array[5, 5, 5] = np.nan
    nifti.write(case.images["t1n"], array, affine=np.eye(4))
    with pytest.raises(ValueError, match="c: .*c-t1n.nii.gz: 1 voxels are NaN"):
        preprocess(case, PLAN)


def test_fault_36_unknown_labels_are_refused(tmp_path):
    case = make_case(tmp_path)
    assert case.labels is not None
    labels = nifti.read_labels(case.labels).array
    labels[5, 5, 5:7] = 4
    nifti.write(case.labels, labels, affine=np.eye(4))
    with pytest.raises(
        ValueError, match=r"unexpected label 4 \(2 voxels\); expected 0,"
    ):
        preprocess(case, PLAN)


def test_a_damaged_file_names_its_case(tmp_path):
    case = make_case(tmp_path)
    path = case.images["t1c"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="^c: .*c-t1c.nii.gz: truncated"):
        preprocess(case, PLAN)


def test_a_case_without_labels_or_channel(tmp_path):
    whole = make_case(tmp_path)
    case = Case(id="c", patient="c", images=whole.images)
    assert preprocess(case, PLAN).labels is None
    case = Case(id="c", patient="c", images={"t1c": whole.images["t1c"]})
    with pytest.raises(ValueError, match="c: t1n missing; it has t1c"):
        preprocess(case, PLAN)


def test_labels_that_do_not_fit_a_store_are_refused(tmp_path):
    case = make_case(tmp_path)
    assert case.labels is not None
    labels = nifti.read_labels(case.labels).array
    labels[5, 5, 5] = 255
    nifti.write(case.labels, labels, affine=np.eye(4))
    with pytest.raises(ValueError, match=r"label 255 \(1 voxels\); expected 0 to 127"):
        measure_case(case, channels=("t1c",))


def test_measuring_names_every_bad_case(tmp_path):
    case = make_case(tmp_path)
    case.images["t1c"].write_bytes(b"")
    with pytest.raises(
        ValueError, match="1 of 1 cases could not be measured:\n  c: .*empty"
    ):
        measure_cases([case], num_workers=1)
