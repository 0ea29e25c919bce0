"""Many cases from NIfTI to NIfTI: geometry, failures of one case, and going on."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from exams import (
    CHANNELS,
    FLAT,
    PLAN,
    apply,
    expected,
    labels_of,
    network,
    outcomes,
    record,
    remove,
    truncate,
    write_case,
)
from jax.tree_util import Partial
from scipy.ndimage import binary_dilation

from bmjax.data.cases import find_cases, sort_cases
from bmjax.inference import SlidingWindow, predict_cases


def test_cases_without_labels_become_label_files_on_their_own_grid(tmp_path):
    oblique = np.array(
        [
            [-0.96, 0.2, 0.19, 80.0],
            [0.2, 0.98, 0.0, -60.0],
            [-0.19, 0.04, 0.98, 20.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    cases = [
        write_case(tmp_path, "A-001"),
        write_case(tmp_path, "B-001", affine=np.diag([-1.0, -1.0, 1.0, 1.0])),
        write_case(tmp_path, "C-001", affine=oblique, size=(22, 17, 12)),
    ]
    out = tmp_path / "out"
    steps = []
    results = predict_cases(
        network(),
        cases,
        PLAN,
        out,
        settings=SlidingWindow(batch_size=2),
        progress=lambda done, total, name: steps.append((done, total, name)),
    )
    assert [r.case for r in results] == ["A-001", "B-001", "C-001"]
    assert [r.error for r in results] == [None] * 3
    assert sorted(p.name for p in out.iterdir()) == [
        "A-001.nii.gz",
        "B-001.nii.gz",
        "C-001.nii.gz",
        "predict.json",
    ]
    for case, result in zip(cases[:2], results, strict=False):
        source, made = nib.load(case.images["t1c"]), nib.load(result.path)
        assert made.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(made.affine, source.affine)
        np.testing.assert_array_equal(labels_of(result.path), expected((20, 18, 16)))
    source = nib.load(cases[2].images["t1c"])
    made = nib.load(results[2].path)
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    # voxels of the oblique case are not exactly 1 mm, so its edges are resampled
    wrong = np.count_nonzero(np.asarray(made.dataobj) != expected((22, 17, 12)))
    assert wrong < 0.05 * np.prod(made.shape)
    assert results[0].seconds > 0
    et_ml = 12 * 10 * 14 / 1000
    assert results[0].volumes_ml == {
        "WT": pytest.approx(16 * 14 * 14 / 1000),
        "TC": pytest.approx(et_ml),
        "ET": pytest.approx(et_ml),
    }
    assert steps[-1] == (3, 3, "C-001")
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)


def test_labels_of_a_case_are_never_read(tmp_path):
    case = write_case(tmp_path, "A-001")
    case = replace(case, labels=tmp_path / "not-there.nii.gz")
    (result,) = predict_cases(network(), [case], PLAN, tmp_path / "out")
    assert result.error is None


def test_the_record_names_the_images_that_were_read(tmp_path):
    case = write_case(tmp_path, "A-001")
    predict_cases(network(), [case], PLAN, tmp_path / "out")
    (entry,) = record(tmp_path / "out")["cases"]
    assert entry["images"] == {c: str(p) for c, p in case.images.items()}
    assert all(Path(path).is_file() for path in entry["images"].values())


def test_fault_33_a_case_smaller_than_the_window_is_predicted(tmp_path):
    plan = replace(PLAN, patch_size=(32, 32, 32))
    case = write_case(tmp_path, "A-001", size=(12, 12, 3))
    (result,) = predict_cases(network(), [case], plan, tmp_path / "out")
    np.testing.assert_array_equal(labels_of(result.path), expected((12, 12, 3)))


def test_fault_1_a_missing_modality_fails_its_case_by_name_and_no_other(tmp_path):
    cases = [
        write_case(tmp_path, "A-001", channels=("t1c", "t1n", "t2w")),
        write_case(tmp_path, "B-001"),
    ]
    out = tmp_path / "out"
    broken, sound = predict_cases(network(), cases, PLAN, out)
    assert "A-001: t2f missing, expected as A-001-t2f.nii.gz" in broken.error
    assert sound.error is None
    assert outcomes(out) == {"A-001": "failed", "B-001": "done"}
    assert not (out / "A-001.nii.gz").exists()


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(truncate, "truncated"), (empty, "empty"), (remove, "No such file")],
    ids=["fault_6_truncated", "fault_8_empty", "removed"],
)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_damaged_file_fails_its_case_and_no_other(
    tmp_path, damage, message, position
):
    cases = [write_case(tmp_path, name) for name in ("A-001", "B-001", "C-001")]
    damage(cases[position].images["t2f"])
    results = predict_cases(network(), cases, PLAN, tmp_path / "out")
    assert [r.case for r in results] == ["A-001", "B-001", "C-001"]
    failed = results.pop(position)
    assert message in failed.error
    assert "t2f.nii.gz" in failed.error
    assert [r.error for r in results] == [None, None]


def test_fault_1_a_missing_modality_may_be_taken_as_zero(tmp_path):
    lacking = write_case(tmp_path / "raw", "A-001", channels=("t1c", "t1n", "t2w"))
    whole = write_case(tmp_path / "raw", "B-001")
    (without, full) = predict_cases(
        network(), [lacking, whole], PLAN, tmp_path / "out", allow_missing=True
    )
    assert without.error is None and full.error is None
    assert "t2f missing, taken as zero" in without.warnings
    assert not any("missing" in text for text in full.warnings)
    labels = labels_of(without.path)
    # without FLAIR this network sees the core alone
    assert set(np.unique(labels)) == {0, 3}
    assert set(np.unique(labels_of(full.path))) == {0, 2, 3}
    found, problems, _ = sort_cases(
        tmp_path / "raw", channels=CHANNELS, allow_missing=True
    )
    assert not problems and set(found[0].images) == {"t1c", "t1n", "t2w"}


def test_incomplete_cases_found_before_are_recorded_as_failed(tmp_path):
    out = tmp_path / "out"
    cases = [write_case(tmp_path, name) for name in ("B-001", "C-001")]
    unusable = {"A-001": "t1n is missing", "C-001": "t1c is there twice"}
    results = predict_cases(network(), cases, PLAN, out, unusable=unusable)
    assert {r.case: r.error for r in results} == {"B-001": None} | unusable
    assert outcomes(out) == {"A-001": "failed", "B-001": "done", "C-001": "failed"}


def test_a_fault_of_the_whole_data_set_is_raised(tmp_path):
    with pytest.raises(ValueError, match="no case found"):
        predict_cases(network(), [], PLAN, tmp_path, unusable={"": "no case found"})


def test_two_cases_of_one_name_are_refused(tmp_path):
    case = write_case(tmp_path, "A-001")
    with pytest.raises(ValueError, match=r"\['A-001'\] occur more than once"):
        predict_cases(network(), [case, case], PLAN, tmp_path / "out")


def test_a_case_name_cannot_lead_out_of_the_folder(tmp_path):
    with pytest.raises(ValueError, match=r"'../A-001' cannot name a case"):
        replace(write_case(tmp_path, "A-001"), id="../A-001")


def test_cases_of_any_size_share_one_compilation(tmp_path):
    traces = []

    def counted(params, image):
        traces.append(image.shape)
        return apply(params, image)

    cases = [
        write_case(tmp_path, "A-001"),
        write_case(tmp_path, "B-001", size=(14, 25, 9)),
        write_case(tmp_path, "C-001", size=(10, 10, 3)),
    ]
    forward = Partial(counted, {"level": jnp.float32(50)})
    results = predict_cases(forward, cases, PLAN, tmp_path / "out")
    assert [r.error for r in results] == [None] * 3
    assert traces == [(1, 8, 8, 8, 4)]


def test_a_2d_plan_predicts_every_slice(tmp_path):
    thick = write_case(tmp_path, "A-001", affine=np.diag([1.0, 1.0, 5.0, 1.0]))
    (result,) = predict_cases(network(), [thick], FLAT, tmp_path / "out")
    assert result.error is None
    np.testing.assert_array_equal(labels_of(result.path), expected((20, 18, 16)))


def test_a_real_case_keeps_its_geometry_at_another_spacing(tmp_path, real_cases):
    case, *_ = find_cases(real_cases)
    plan = replace(
        PLAN,
        spacing_mm=(2.0, 2.0, 2.0),
        normalization=("zscore",) * 4,
        use_mask_for_norm=True,
        patch_size=(64, 64, 64),
    )
    (result,) = predict_cases(network(level=1.5), [case], plan, tmp_path)
    source, made = nib.load(case.images["t1c"]), nib.load(result.path)
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    for name in ("sform_code", "qform_code", "pixdim"):
        np.testing.assert_array_equal(made.header[name], source.header[name])
    brain = np.asarray(nib.load(case.images["t2f"]).dataobj) > 0
    lesion = np.asarray(made.dataobj) > 0
    assert 0 < lesion.sum() < 0.3 * brain.sum()
    # resampling blurs the edge of the brain by less than two voxels of 2 mm
    assert not (lesion & ~binary_dilation(brain, iterations=4)).any()
