"""What a header says of where the voxels lie, and when it is doubted."""

import struct

import nibabel as nib
import numpy as np
import pytest
from volumes import AXES, affine_for, put, save, volume

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
    found = nifti.read_header(tmp_path / "a.nii").affine
    np.testing.assert_array_equal(found, nib.load(tmp_path / "a.nii").affine)


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


def with_qform_alone(path, axes="LPS", **fields):
    """A file without sform, whose header holds other numbers."""
    image = nib.Nifti1Image(volume().T, affine_for(axes))
    image.set_sform(None)
    image.set_qform(affine_for(axes), 1)
    fac = float(image.header["pixdim"][0])
    content = bytearray(image.to_bytes())
    for place, value in fields.values():
        struct.pack_into("<f", content, place, value)
    return put(path, content), fac


@pytest.mark.parametrize("fac", [0.0, 2.0, float("nan"), np.nextafter(1, 2)])
def test_an_odd_pixdim_0_mirrors_nothing(tmp_path, fac):
    """It is 1 or -1; 0 stands for 1. Left and right were swapped by 0 without sform."""
    path, was = with_qform_alone(tmp_path / "a.nii", fac=(76, fac))
    assert was == 1.0
    header = nifti.read_header(path)
    assert header.axes == "LPS" and header.remarks == ()
    np.testing.assert_allclose(header.affine, affine_for("LPS"), atol=1e-5)


def test_a_negative_pixdim_0_turns_the_third_axis(tmp_path):
    path, was = with_qform_alone(tmp_path / "a.nii", axes="RAI")
    assert was == -1.0
    np.testing.assert_allclose(
        nifti.read_header(path).affine, affine_for("RAI"), atol=1e-5
    )


@pytest.mark.parametrize("field", [(256, 2.0), (80, -1.0), (260, float("nan"))])
def test_a_qform_that_is_no_rotation_is_no_place_for_voxels(tmp_path, field):
    path, _ = with_qform_alone(tmp_path / "a.nii", field=field)
    with pytest.raises(ValueError, match=r"a\.nii: its qform is no rotation, and it"):
        nifti.read(path)


@pytest.mark.parametrize("axes", AXES, ids="".join)
def test_a_qform_is_read_as_nibabel_reads_it(tmp_path, axes):
    path, _ = with_qform_alone(tmp_path / "a.nii", axes=axes)
    turn = nib.eulerangles.euler2mat(0.3, -0.2, 0.1)
    image = nib.load(path)
    affine = image.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    image.set_sform(None)
    image.set_qform(affine, 1)
    nib.save(image, tmp_path / "b.nii")
    found = nifti.read_header(tmp_path / "b.nii").affine
    np.testing.assert_allclose(found, nib.load(tmp_path / "b.nii").affine, atol=1e-5)
