"""Tests of bmjax.data.nifti and the streams under it."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes import AXES, affine_for, put, save, volume

from bmjax.data import nifti


def test_there_are_48_orientations():
    assert len(AXES) == 48


@pytest.mark.parametrize("axes", AXES, ids="".join)
def test_every_orientation_is_turned_to_ras_and_written_back(tmp_path, axes):
    affine = affine_for(axes)
    source = tmp_path / "source.nii.gz"
    nifti.write(source, volume(), affine=affine)
    scan = nifti.read(source)
    assert "".join(nib.aff2axcodes(scan.affine)) == "RAS"
    # the same world position holds the same value, before and after
    z, y, x = 2, 1, 3
    world = affine @ [x, y, z, 1]
    i, j, k, _ = np.rint(np.linalg.solve(scan.affine, world)).astype(int)
    assert scan.array[k, j, i] == volume()[z, y, x]
    nifti.write_like(
        tmp_path / "copy.nii.gz", scan.array.astype(np.int16), source=source
    )
    assert (tmp_path / "copy.nii.gz").read_bytes() == source.read_bytes()


@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_oblique_grids_come_back_exactly(tmp_path_factory, angles, spacing):
    folder = tmp_path_factory.mktemp("oblique")
    rotation = nib.eulerangles.euler2mat(*angles)
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    nifti.write(folder / "a.nii", volume(), affine=affine)
    scan = nifti.read(folder / "a.nii")
    np.testing.assert_allclose(sorted(scan.spacing_mm), sorted(spacing), rtol=1e-5)
    nifti.write_like(
        folder / "b.nii", scan.array.astype(np.int16), source=folder / "a.nii"
    )
    assert (folder / "b.nii").read_bytes() == (folder / "a.nii").read_bytes()


def test_reading_agrees_with_nibabel_on_real_files(real_cases):
    met = real_cases.parent / "brats_met" / "BraTS-MET-00110-000"
    gli = real_cases.parent / "brats_gli" / "BraTS-GLI-00000-000"
    for path in (met / f"{met.name}-t1c.nii.gz", gli / f"{gli.name}-seg.nii.gz"):
        canonical = nib.as_closest_canonical(nib.load(path))
        scan = nifti.read(path)
        np.testing.assert_array_equal(scan.array, np.asarray(canonical.dataobj).T)
        np.testing.assert_allclose(scan.affine, canonical.affine)


def test_stored_orientation_keeps_the_array(tmp_path):
    nifti.write(tmp_path / "a.nii", volume(), affine=affine_for("LPS"))
    scan = nifti.read(tmp_path / "a.nii", orientation="stored")
    np.testing.assert_array_equal(scan.array, volume())
    assert scan.spacing_mm == (2.0, 1.5, 1.0)


@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (2, 0), (4, 3)])
def test_form_codes_and_geometry_bytes_are_copied(tmp_path, codes):
    source = tmp_path / "source.nii.gz"
    affine = affine_for("LPS")
    nifti.write(
        source, volume(), affine=affine, sform_code=codes[0], qform_code=codes[1]
    )
    scan = nifti.read(source)
    nifti.write_like(tmp_path / "out.nii", scan.array > 7, source=source)
    one, two = nib.load(source).header, nib.load(tmp_path / "out.nii").header
    assert (int(two["sform_code"]), int(two["qform_code"])) == codes
    for name in ("dim", "pixdim", "quatern_b", "qoffset_x", "srow_x", "srow_z"):
        assert one[name].tobytes() == two[name].tobytes()
    assert two.get_data_dtype() == np.uint8


def test_the_same_array_gives_the_same_bytes_and_no_leftovers(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        nifti.write(tmp_path / name, volume(), affine=np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    nifti.write(tmp_path / "a.nii.gz", volume(), affine=np.eye(4))
    before = (tmp_path / "a.nii.gz").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        nifti.write(tmp_path / "a.nii.gz", volume() + 1, affine=np.eye(4))
    assert (tmp_path / "a.nii.gz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_write_like_refuses_another_grid(tmp_path):
    source = save(tmp_path / "a.nii")
    with pytest.raises(
        ValueError, match=r"\(9, 9, 9\).*does not fit the grid of.*a.nii"
    ):
        nifti.write_like(
            tmp_path / "b.nii", np.zeros((9, 9, 9), np.uint8), source=source
        )


def test_half_precision_and_odd_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cast it to float32"):
        nifti.write(tmp_path / "a.nii", volume(dtype=np.float16), affine=np.eye(4))
    with pytest.raises(ValueError, match=r"ends in .nii or .nii.gz"):
        nifti.write(tmp_path / "a.mha", volume(), affine=np.eye(4))


def test_fault_6_a_truncated_stream_is_an_error(tmp_path):
    path = save(
        tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20))
    )
    whole = path.read_bytes()
    for keep in (len(whole) - 1, len(whole) - 8, len(whole) // 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="a.nii.gz: truncated.*copy or export"):
            nifti.read(path)


def test_fault_7_a_wrong_checksum_is_an_error(tmp_path):
    path = save(tmp_path / "a.nii.gz")
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1  # the last eight bytes are CRC and length
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="damaged gzip stream.*incorrect data check"):
        nifti.read(path)


def test_fault_7_a_checksum_is_read_even_past_the_last_voxel(tmp_path):
    path = tmp_path / "a.nii.gz"
    content = (save(tmp_path / "b.nii")).read_bytes() + bytes(300_000)
    packed = bytearray(gzip.compress(content))
    np.testing.assert_array_equal(nifti.read(put(path, packed)).array, volume())
    packed[-6] ^= 1
    with pytest.raises(ValueError, match="damaged gzip stream"):
        nifti.read(put(path, packed))


def test_fault_8_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="a.nii: the file is empty"):
        nifti.read(put(tmp_path / "a.nii", b""))


def test_fault_9_content_decides_not_the_name(tmp_path):
    plain = save(tmp_path / "a.nii")
    mislabelled = put(tmp_path / "b.nii.gz", plain.read_bytes())
    packed = put(tmp_path / "c.nii", gzip.compress(plain.read_bytes()))
    for path in (mislabelled, packed):
        np.testing.assert_array_equal(nifti.read(path).array, volume())
    for content in (b"not a volume" * 50, gzip.compress(b"not a volume" * 50)):
        with pytest.raises(ValueError, match="not a NIfTI file"):
            nifti.read(put(tmp_path / "d.nii.gz", content))


def test_an_analyze_header_is_named(tmp_path):
    header = bytearray(save(tmp_path / "a.nii").read_bytes())
    header[344:348] = b"ni1\0"
    with pytest.raises(ValueError, match="not a single-file NIfTI"):
        nifti.read(put(tmp_path / "a.nii", header))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_fault_10_a_header_that_promises_too_much_is_an_error(tmp_path, suffix):
    content = bytearray(save(tmp_path / "a.nii").read_bytes())
    struct.pack_into("<3h", content, 42, 50, 40, 30)
    packed = gzip.compress(content) if suffix == ".nii.gz" else content
    path = put(tmp_path / f"b{suffix}", packed)
    with pytest.raises(ValueError, match=r"promises \(30, 40, 50\) voxels of int16"):
        nifti.read(path)


def test_fault_11_absurd_dimensions_are_refused_before_memory_is_taken(tmp_path):
    content = bytearray(save(tmp_path / "a.nii").read_bytes())
    struct.pack_into("<3h", content, 42, 32767, 32767, 32767)
    with pytest.raises(ValueError, match="more than 1073741824"):
        nifti.read(put(tmp_path / "a.nii", content))
    struct.pack_into("<3h", content, 42, 1000, 1000, 1000)
    with pytest.raises(ValueError, match="the file holds"):
        nifti.read(put(tmp_path / "a.nii.gz", gzip.compress(content)))


def test_streams_of_several_members_and_padding_are_read(tmp_path):
    content = save(tmp_path / "a.nii").read_bytes()
    packed = gzip.compress(content[:400]) + gzip.compress(content[400:]) + bytes(512)
    np.testing.assert_array_equal(
        nifti.read(put(tmp_path / "b.nii.gz", packed)).array, volume()
    )
    with pytest.raises(ValueError, match="bytes follow its gzip stream"):
        nifti.read(put(tmp_path / "b.nii.gz", packed + b"junk"))


@pytest.mark.parametrize(
    ("slope", "inter", "factor", "shift"),
    [(0, 5, 1, 0), (np.nan, 5, 1, 0), (2, np.nan, 2, 0), (0.5, -3, 0.5, -3)],
)
def test_fault_15_scaling_follows_the_standard(tmp_path, slope, inter, factor, shift):
    content = bytearray(save(tmp_path / "a.nii").read_bytes())
    struct.pack_into("<2f", content, 112, slope, inter)
    scan = nifti.read(put(tmp_path / "a.nii", content))
    np.testing.assert_array_equal(scan.array, volume() * np.float32(factor) + shift)


def test_fault_16_scaled_int16_does_not_overflow(tmp_path):
    content = bytearray(save(tmp_path / "a.nii", volume() * 500).read_bytes())
    struct.pack_into("<2f", content, 112, 100, 0)
    scan = nifti.read(put(tmp_path / "a.nii", content), dtype=None)
    assert scan.array.max() == 59 * 500 * 100


@pytest.mark.parametrize("dtype", ["u1", ">i2", "<f8", ">f4", "u4", "<i8", "i1"])
def test_fault_16_every_storage_type_gives_the_same_values(tmp_path, dtype):
    image = nib.Nifti1Image(
        volume(dtype=np.uint8).T.astype(dtype), np.eye(4), dtype=dtype
    )
    if dtype.startswith(">"):
        image = nib.Nifti1Image(
            image.get_fdata().astype(dtype), None, image.header.as_byteswapped(">")
        )
    nib.save(image, tmp_path / "a.nii")
    scan = nifti.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.array, volume().astype(np.float32))
    nifti.write_like(tmp_path / "b.nii", volume(), source=tmp_path / "a.nii")
    np.testing.assert_array_equal(nifti.read(tmp_path / "b.nii").array, volume())


def test_fault_17_complex_and_colour_voxels_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(volume(dtype=np.complex64), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="voxels of type complex64"):
        nifti.read(tmp_path / "a.nii")
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(ValueError, match="voxels of type RGB"):
        nifti.read(tmp_path / "b.nii")


def test_fault_20_one_volume_in_4d_is_squeezed_and_a_series_refused(tmp_path):
    nib.save(nib.Nifti1Image(volume().T[..., None], np.eye(4)), tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="4-D file with one volume"):
        scan = nifti.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(scan.array, volume())
    nifti.write_like(tmp_path / "b.nii", volume(), source=tmp_path / "a.nii")
    assert nib.load(tmp_path / "b.nii").shape == (5, 4, 3, 1)
    nib.save(
        nib.Nifti1Image(np.zeros((5, 4, 3, 2), "i2"), np.eye(4)), tmp_path / "c.nii"
    )
    with pytest.raises(ValueError, match=r"\[5, 4, 3, 2\].*one volume is expected"):
        nifti.read(tmp_path / "c.nii")


def test_fault_21_a_slice_has_one_z(tmp_path):
    nib.save(nib.Nifti1Image(np.ones((5, 4), "i2"), np.eye(4)), tmp_path / "a.nii")
    assert nifti.read(tmp_path / "a.nii").array.shape == (1, 4, 5)


def test_fault_37_float_labels_are_rounded_only_when_close(tmp_path):
    labels = np.zeros((3, 4, 5), np.float32)
    labels[0, 0, :3] = (0.9999, 2.0000001, 3)
    nifti.write(tmp_path / "a.nii", labels, affine=np.eye(4))
    scan = nifti.read_labels(tmp_path / "a.nii")
    assert scan.array.dtype == np.int16 and list(scan.array[0, 0, :3]) == [1, 2, 3]
    labels[1, 1, 1] = 1.4
    nifti.write(tmp_path / "a.nii", labels, affine=np.eye(4))
    with pytest.raises(ValueError, match=r"1 label values are no integers \(1.4\)"):
        nifti.read_labels(tmp_path / "a.nii")
    labels[1, 1, 1] = np.nan
    nifti.write(tmp_path / "a.nii", labels, affine=np.eye(4))
    with pytest.raises(ValueError, match="nan"):
        nifti.read_labels(tmp_path / "a.nii")


def test_floats_are_not_cut_to_integers_silently(tmp_path):
    nifti.write(tmp_path / "a.nii", np.full((2, 2, 2), 0.7), affine=np.eye(4))
    with pytest.raises(ValueError, match="read it with read_labels"):
        nifti.read(tmp_path / "a.nii", dtype=np.int16)


def test_a_header_is_read_without_its_voxels(tmp_path):
    path = save(
        tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(40, 40, 40))
    )
    path.write_bytes(path.read_bytes()[:70_000])
    header = nifti.read_header(path)
    assert header.size == (40, 40, 40)
    assert (header.sform_code, header.axes, header.dtype) == (2, "RAS", np.float64)


def test_long_volumes_are_written_as_nifti_2(tmp_path):
    array = np.ones((1, 1, 40_000), np.uint8)
    nifti.write(tmp_path / "a.nii.gz", array, affine=np.eye(4))
    np.testing.assert_array_equal(nifti.read(tmp_path / "a.nii.gz").array, array)
