"""Segmentations for 3D Slicer, read by the library that it reads them with."""

import nibabel as nib
import numpy as np
import pytest

from bmjax.inference.slicer import write_segmentation

pytestmark = pytest.mark.parity


def test_itk_reads_voxels_names_and_place(tmp_path):
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK comes with nnU-Net")
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    turn = nib.eulerangles.euler2mat(0.2, 0.1, 0.3)
    affine = nib.affines.from_matvec(turn @ np.diag([0.9, 1.1, 2.5]), (10, -20, 30))
    path = tmp_path / "a.seg.nrrd"
    names = (("NETC", 1), ("SNFH", 2), ("ET", 3))
    write_segmentation(path, labels, affine=affine, labels=names)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels)
    assert image.GetMetaData("Segment2_Name") == "ET"
    assert image.GetMetaData("Segment2_LabelValue") == "3"
    for index in ((0, 0, 0), (6, 5, 4), (3, 1, 2)):
        lps = image.TransformIndexToPhysicalPoint(index)
        want = (affine @ [*index, 1])[:3] * [-1, -1, 1]
        np.testing.assert_allclose(lps, want, atol=1e-6)
