"""The same exam, however its voxels lie in the files, is predicted the same."""

import shutil
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from exams import CHANNELS, FLAT, PLAN, labels_of, network, write_case
from jax.tree_util import Partial
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from bmjax.data.cases import Case, find_cases
from bmjax.inference import SlidingWindow, estimate, predict_cases
from bmjax.inference.outputs import Outputs

SHARED = Path(__file__).resolve().parents[3] / "shared"

CODES = [
    "".join(letters[i] for i in order)
    for order in permutations(range(3))
    for letters in product("RL", "AP", "SI")
]


def crooked(params, image):
    """Looks in one direction along each axis, so that no mirror or turn fits it."""
    x = image @ params["mix"]
    for axis, weight in ((1, 0.5), (2, 0.3), (3, 0.2)):
        x = x + weight * jnp.roll(x, 1, axis) - 0.2 * jnp.roll(x, 2, axis)
    return x


def crooked_network():
    mix = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    return Partial(crooked, {"mix": jnp.asarray(mix)})


def turned(case, code, folder):
    """The same exam with its voxels in another order."""
    name, images = f"{case.id}-{code}", {}
    folder.mkdir(exist_ok=True)
    for channel, path in case.images.items():
        image = nib.load(path)
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(code)))
        images[channel] = folder / f"{name}-{channel}.nii.gz"
        nib.save(image.as_reoriented(turn), images[channel])
    return Case(id=name, patient=name, images=images)


def in_ras(path):
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def noisy_case(folder):
    rng = np.random.default_rng(1)
    images = {}
    affine = np.diag([1.0, 2.0, 1.5, 1.0])
    affine[:3, 3] = (-8, 5, 3)
    for channel in CHANNELS:
        values = rng.integers(1, 1000, size=(14, 9, 11)).astype(np.int16)
        images[channel] = folder / f"phantom-{channel}.nii.gz"
        nib.save(nib.Nifti1Image(values, affine), images[channel])
    return Case(id="phantom", patient="phantom", images=images)


def test_fault_29_all_48_orientations_are_predicted_the_same(tmp_path):
    case = noisy_case(tmp_path)
    plan = replace(PLAN, spacing_mm=(1.5, 2.0, 1.0), normalization=("zscore",) * 4)
    assert len(set(CODES)) == 48
    cases = [turned(case, code, tmp_path / "turned") for code in CODES]
    results = predict_cases(crooked_network(), [case, *cases], plan, tmp_path / "out")
    assert [result.error for result in results] == [None] * 49
    want = in_ras(results[0].path)
    assert 0.1 < np.mean(want > 0) < 0.95
    for code, result in zip(CODES, results[1:], strict=True):
        made = nib.load(result.path)
        assert "".join(nib.aff2axcodes(made.affine)) == code
        np.testing.assert_array_equal(in_ras(result.path), want, err_msg=code)


def test_a_plan_of_stored_axes_sees_them_as_they_lie(tmp_path):
    case = noisy_case(tmp_path)
    plan = replace(
        PLAN,
        spacing_mm=(1.5, 2.0, 1.0),
        normalization=("zscore",) * 4,
        orientation="stored",
    )
    flipped = turned(case, "LAS", tmp_path / "turned")
    one, other = predict_cases(
        crooked_network(), [case, flipped], plan, tmp_path / "out"
    )
    assert (in_ras(one.path) != in_ras(other.path)).any()


def test_a_real_exam_and_its_flip_are_predicted_the_same(tmp_path):
    source = SHARED / "data" / "brats_met" / "BraTS-MET-00110-000"
    if not source.is_dir():
        pytest.skip("BraTS-MET-00110-000 is not on this machine")
    shutil.copytree(source, tmp_path / "raw" / source.name)
    (case,) = find_cases(tmp_path / "raw", channels=CHANNELS)
    assert nib.aff2axcodes(nib.load(case.images["t1c"]).affine) == tuple("RAS")
    flipped = turned(case, "LPS", tmp_path / "turned")
    plan = replace(
        PLAN,
        spacing_mm=(2.0, 2.0, 2.0),
        normalization=("zscore",) * 4,
        use_mask_for_norm=True,
        patch_size=(64, 64, 64),
    )
    one, other = predict_cases(
        crooked_network(), [case, flipped], plan, tmp_path / "out"
    )
    assert one.error is None and other.error is None
    assert nib.aff2axcodes(nib.load(other.path).affine) == tuple("LPS")
    want = in_ras(one.path)
    assert np.count_nonzero(want) > 10_000
    np.testing.assert_array_equal(in_ras(other.path), want)


def test_fault_30_an_oblique_exam_is_predicted_on_its_own_grid(tmp_path):
    turn = nib.affines.from_matvec(
        nib.eulerangles.euler2mat(0.2, 0.1, 0.3), (80, -60, 20)
    )
    straight = write_case(tmp_path, "A-001")
    oblique = write_case(tmp_path, "B-001", affine=turn)
    one, other = predict_cases(network(), [straight, oblique], PLAN, tmp_path / "out")
    source, made = nib.load(oblique.images["t1c"]), nib.load(other.path)
    np.testing.assert_array_equal(made.affine, source.affine)
    assert made.affine[0, 1] != 0
    np.testing.assert_array_equal(labels_of(other.path), labels_of(one.path))


def test_fault_21_a_2d_image_for_a_3d_network_is_one_slice_and_said(tmp_path):
    images = {}
    for channel in CHANNELS:
        values = np.full((20, 18), 10, np.int16)
        values[4:12, 4:12] = 100
        images[channel] = tmp_path / f"A-001-{channel}.nii.gz"
        nib.save(nib.Nifti1Image(values, np.eye(4)), images[channel])
    case = Case(id="A-001", patient="A-001", images=images)
    (result,) = predict_cases(network(), [case], PLAN, tmp_path / "out")
    assert result.error is None
    assert any("a single slice" in text for text in result.warnings)
    labels = labels_of(result.path)
    assert labels.shape[:2] == (20, 18) and labels.size == 360
    assert np.count_nonzero(labels) == 64
    (slicewise,) = predict_cases(network(), [case], FLAT, tmp_path / "flat")
    np.testing.assert_array_equal(labels_of(slicewise.path), labels)
    assert not any("a single slice" in text for text in slicewise.warnings)


def header_alone(path, size):
    """A file that promises many voxels and holds none."""
    header = nib.Nifti1Header()
    header.set_data_shape(size)
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path.write_bytes(header.binaryblock + bytes(4))
    return path


def estimated(case, *, outputs=None):
    return estimate.estimate(
        network(),
        [case],
        PLAN,
        settings=SlidingWindow(),
        outputs=outputs or Outputs(),
        devices=jax.devices()[:1],
    )


def test_fault_34_memory_of_a_huge_exam_is_estimated_from_its_header(
    tmp_path, monkeypatch
):
    images = {c: header_alone(tmp_path / f"{c}.nii", (512, 512, 400)) for c in CHANNELS}
    huge = Case(id="huge", patient="huge", images=images)
    monkeypatch.setattr(estimate, "_round_s", lambda *_: 0.5)
    monkeypatch.setattr(estimate, "free_memory_bytes", lambda: 2**31)
    found = estimated(huge)
    voxels = 512 * 512 * 400
    assert found.num_windows == 127 * 127 * 99
    assert found.seconds == pytest.approx(found.num_windows / 2)
    # images and logits as float32 at least, twice that at most
    assert 4 * (4 + 3) * voxels < found.case_bytes < 2 * 4 * (4 + 3) * voxels
    assert "MEMORY MAY NOT SUFFICE" in str(found)
    assert f"up to {found.seconds / 3600:.1f} h" in str(found)
    more = estimated(huge, outputs=Outputs(maps=("probability",), lesions="csv"))
    assert more.case_bytes >= found.case_bytes


def test_an_exam_whose_header_cannot_be_read_is_left_out_of_the_estimate(tmp_path):
    case = write_case(tmp_path, "A-001")
    case.images["t1c"].write_bytes(b"")
    found = estimated(case)
    assert found.num_cases == 0 and found.seconds is None
    assert "time not tried" in str(found)
