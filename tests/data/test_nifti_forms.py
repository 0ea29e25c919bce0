"""What a header says of where the voxels lie, and when it is doubted."""

import struct

import nibabel as nib
import numpy as np
import pytest
from volumes import affine_for, put, save, volume

from bmjax.data import nifti


def test_fault_25_two_different_forms_are_remarked(tmp_path):
    image = nib.Nifti1Image(volume().T, affine_for("RAS"))
    image.set_sform(affine_for("RAS"), 1)
    image.set_qform(affine_for("LPS"), 1)
    nib.save(image, tmp_path / "a.nii")
    header = nifti.read_header(tmp_path / "a.nii")
    assert header.axes == "RAS"
    (remark,) = header.remarks
    for form in (image.get_sform(), image.get_qform()):
        numbers = np.array2string(form[:3], precision=4).replace("\n", "")
        assert numbers in remark
    assert remark.endswith("differ; the sform is used")


def test_fault_26_no_form_at_all_is_remarked(tmp_path):
    content = bytearray(save(tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2h", content, 252, 0, 0)
    struct.pack_into("<3f", content, 80, 1, 2, 3)
    put(tmp_path / "a.nii", content)
    with pytest.warns(UserWarning, match="neither sform nor qform"):
        assert nifti.read(tmp_path / "a.nii").spacing_mm == (3, 2, 1)


def test_fault_27_a_singular_affine_is_an_error(tmp_path):
    path = save(tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    struct.pack_into("<4f", content, 280, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="singular affine"):
        nifti.read(put(path, content))


def test_fault_28_a_sheared_affine_is_read_and_remarked(tmp_path):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 2] = 0.5  # z leans towards x
    image = nib.Nifti1Image(volume().T, affine)
    image.set_qform(None)
    nib.save(image, tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="a.nii: sheared: two of its axes meet at 75"):
        scan = nifti.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.array, volume())
    np.testing.assert_allclose(scan.spacing_mm, (np.hypot(2, 0.5), 1, 1), rtol=1e-6)
    labels = np.ones((3, 4, 5), np.uint8)
    nifti.write_like(tmp_path / "b.nii", labels, source=tmp_path / "a.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").affine, affine)


@pytest.mark.parametrize("angle", [0.0, 0.2, 1.2])
def test_an_oblique_affine_is_no_sheared_one(tmp_path, angle):
    affine = np.diag([0.9375, 0.9375, 3.3, 1.0])
    turn = nib.eulerangles.euler2mat(angle, angle / 2, angle / 3)
    affine[:3, :3] = turn @ affine[:3, :3]
    nib.save(nib.Nifti1Image(volume().T, affine), tmp_path / "a.nii")
    assert nifti.read_header(tmp_path / "a.nii").remarks == ()
