"""Painting regions, and label files on exactly the grid of the input."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt

from bmjax.data.cases import Case
from bmjax.data.preprocess import preprocess
from bmjax.inference.export import export_case, paint, region_volumes_ml
from bmjax.planning import BRATS_METS, Plan


def plan(*, spacing_mm=(1.0, 1.0, 1.0), orientation="RAS", transpose=(0, 1, 2)):
    return Plan(
        channels=("t1c",),
        labels=BRATS_METS.labels,
        regions=BRATS_METS.regions,
        paint=BRATS_METS.paint,
        orientation=orientation,
        transpose_forward=transpose,
        spacing_mm=spacing_mm,
        normalization=("none",),
        use_mask_for_norm=False,
        patch_size=(8, 8, 8),
        batch_size=2,
        features=(4, 8),
        strides=((1, 1, 1), (2, 2, 2)),
        kernel_sizes=((3, 3, 3),) * 2,
        batch_dice=False,
        median_size=(16, 16, 16),
    )


def write_case(
    folder, *, axes="RAS", oblique=0.0, spacing=(1.0, 1.0, 1.0), codes=(1, 1)
):
    """A 20 x 18 x 16 (x y z, RAS) volume of label values, stored in any orientation."""
    values = np.zeros((20, 18, 16), np.int16)
    values[3:17, 4:15, 2:13] = 5  # healthy tissue; the rest is background
    values[6:12, 6:10, 5:9] = 2
    values[7:10, 7:9, 6:8] = 3
    values[8, 8, 7] = 1
    turn = np.eye(4)
    turn[:2, :2] = [
        [np.cos(oblique), -np.sin(oblique)],
        [np.sin(oblique), np.cos(oblique)],
    ]
    affine = turn @ np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30.0, 12.5, 7.25)
    orientation = axcodes2ornt(tuple(axes))
    # from RAS to the wanted axes
    image = nib.Nifti1Image(values, affine).as_reoriented(
        nib.orientations.ornt_transform(axcodes2ornt("RAS"), orientation)
    )
    image.set_sform(image.affine, code=codes[0])
    image.set_qform(image.affine, code=codes[1])
    path = folder / "case-t1c.nii.gz"
    nib.save(image, path)
    return Case(id="case", patient="case", images={"t1c": path}), path


def logits_of(labels):
    """Logits whose regions are those of a label map, at least 1 from the threshold."""
    inside = [np.isin(np.rint(labels), members) for _, members in BRATS_METS.regions]
    return np.where(np.stack(inside, axis=-1), 1.0, -1.0).astype(np.float32)


def test_regions_are_painted_in_order():
    probs = np.array([[0.9, 0.1, 0.1], [0.9, 0.9, 0.2], [0.9, 0.9, 0.9], [0.5] * 3])
    np.testing.assert_array_equal(paint(probs.astype(np.float32), plan()), [2, 1, 3, 0])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_labels_to_regions_to_labels_is_the_identity(values):
    labels = np.array(values, np.uint8)
    np.testing.assert_array_equal(
        paint(logits_of(labels), plan(), threshold=0.0), labels
    )


def test_too_few_channels_are_refused():
    with pytest.raises(ValueError, match="2 channels .* the plan's 3 regions"):
        paint(np.zeros((4, 2), np.float32), plan())


def test_volumes_are_those_of_the_regions():
    labels = np.array([[[0, 1, 2, 2, 3, 3]]], np.uint8)
    assert region_volumes_ml(labels, plan(), voxel_mm3=500.0) == {
        "WT": 2.5,
        "TC": 1.5,
        "ET": 1.0,
    }


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SRA", "AIL"])
@pytest.mark.parametrize("oblique", [0.0, 0.3])
@pytest.mark.parametrize("orientation", ["RAS", "stored"])
def test_a_label_file_has_exactly_the_voxels_and_geometry_of_its_source(
    tmp_path, axes, oblique, orientation
):
    case, path = write_case(
        tmp_path, axes=axes, oblique=oblique, spacing=(0.7, 1.1, 2.5), codes=(2, 3)
    )
    # the target spacing is that of the file, wherever its axes point
    ras = orientation == "RAS"
    stored_mm = nib.affines.voxel_sizes(nib.load(path).affine)[::-1]
    spacing_mm = (
        (2.5, 1.1, 0.7) if ras else tuple(round(float(s), 6) for s in stored_mm)
    )
    mine = plan(spacing_mm=spacing_mm, orientation=orientation)
    prepared = preprocess(case, mine)
    out = tmp_path / "out" / "case.nii.gz"
    volumes = export_case(
        logits_of(prepared.image[..., 0])[None], prepared.geometry, mine, out
    ).volumes_ml
    source, made = nib.load(path), nib.load(out)
    want = np.asarray(source.dataobj)
    want = np.where(want == 5, 0, want)
    np.testing.assert_array_equal(np.asarray(made.dataobj), want)
    np.testing.assert_array_equal(made.affine, source.affine)
    for name in ("sform_code", "qform_code", "quatern_b", "qoffset_x", "pixdim"):
        np.testing.assert_array_equal(made.header[name], source.header[name])
    assert made.get_data_dtype() == np.uint8
    voxel_ml = 0.7 * 1.1 * 2.5 / 1000
    np.testing.assert_allclose(volumes["WT"], np.count_nonzero(want) * voxel_ml)


def test_transposed_axes_are_put_back(tmp_path):
    case, path = write_case(tmp_path, axes="LPS", spacing=(2.0, 1.0, 1.0))
    mine = plan(spacing_mm=(2.0, 1.0, 1.0), transpose=(2, 0, 1))
    prepared = preprocess(case, mine)
    out = tmp_path / "case.nii.gz"
    export_case(logits_of(prepared.image[..., 0])[None], prepared.geometry, mine, out)
    want = np.asarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(
        np.asarray(nib.load(out).dataobj), np.where(want == 5, 0, want)
    )


def test_resampled_logits_come_back_on_the_native_grid(tmp_path):
    case, path = write_case(tmp_path, axes="LPS", spacing=(1.0, 1.0, 1.0))
    mine = plan(spacing_mm=(0.5, 0.5, 0.5))
    prepared = preprocess(case, mine)
    fine = prepared.image[..., :1]
    inside = np.where((fine > 0.5) & (fine < 4), 1.0, -1.0)
    out = tmp_path / "case.nii.gz"
    logits = np.repeat(inside, 3, axis=-1).astype(np.float32)
    export_case(logits[None], prepared.geometry, mine, out)
    got = np.asarray(nib.load(out).dataobj)
    want = np.isin(np.asarray(nib.load(path).dataobj), (1, 2, 3))
    overlap = 2 * np.sum(want & (got == 3)) / (want.sum() + (got == 3).sum())
    assert got.shape == want.shape
    assert set(np.unique(got)) == {0, 3}
    assert overlap > 0.8
