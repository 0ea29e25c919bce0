"""Files taken otherwise than they lie: mapped labels, one grid, no NaN."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.cropping import read_cropped
from bmjax.data.grids import is_one_grid
from bmjax.data.nifti import Scan
from bmjax.data.reading import Reading
from bmjax.data.regrid import onto_grid


def write(folder, name, array, *, spacing=(1.0, 1.0, 1.0), origin=(0, 0, 0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    path = folder / f"{name}.nii.gz"
    nifti.write(path, array, affine=affine)
    return path


def smooth(size, spacing, origin=(0, 0, 0)):
    """The same function of the place [mm] on any grid; x y z are spacing's order."""
    z, y, x = np.meshgrid(
        *(
            np.arange(n) * s + o
            for n, s, o in zip(size, spacing[::-1], origin[::-1], strict=True)
        ),
        indexing="ij",
    )
    return (10 + np.sin(x / 5) + np.cos(y / 4) + z / 9).astype(np.float32)


def a_case(tmp_path, *, reading):
    size, spacing = (20, 24, 28), (1.0, 1.0, 1.0)
    other, coarse, origin = (10, 16, 18), (1.6, 1.6, 2.2), (0.3, -0.4, 0.2)
    labels = np.zeros(size, np.uint8)
    labels[8:12, 8:14, 8:15] = 4
    labels[9:11, 10:12, 10:12] = 1
    return Case(
        id="a",
        patient="a",
        images={
            "t1c": write(tmp_path, "t1c", smooth(size, spacing)),
            "t1n": write(
                tmp_path,
                "t1n",
                smooth(other, coarse, origin),
                spacing=coarse,
                origin=origin,
            ),
        },
        labels=write(tmp_path, "seg", labels),
        reading=reading,
    )


def test_fault_24_channels_on_other_grids_are_refused_or_resampled(tmp_path):
    case = a_case(tmp_path, reading=Reading(label_map=((4, 3),)))
    with pytest.raises(ValueError, match="differ in size"):
        read_cropped(case, channels=("t1c", "t1n"))
    case = a_case(tmp_path, reading=Reading(label_map=((4, 3),), resample_to="t1c"))
    raw = read_cropped(case, channels=("t1c", "t1n"), label_values=(1, 2, 3))
    t1c, t1n = raw.images
    inside = (slice(2, -2),) * 3
    np.testing.assert_allclose(t1n[inside], t1c[inside], atol=0.03)
    assert any("resampled from 10 x 16 x 18" in text for text in raw.warnings)
    assert raw.labels is not None and set(np.unique(raw.labels)) == {0, 1, 3}


def test_labels_follow_the_channel_that_is_resampled_to(tmp_path):
    case = a_case(tmp_path, reading=Reading(label_map=((4, 3),), resample_to="t1n"))
    raw = read_cropped(case, channels=("t1c", "t1n"), label_values=(1, 3))
    assert raw.size == (10, 16, 18) and raw.labels is not None
    lesion_mm3 = np.count_nonzero(raw.labels) * np.prod(raw.spacing_mm)
    assert lesion_mm3 == pytest.approx(4 * 6 * 7, rel=0.25)
    assert case.reading.source(case.images, "t1c") == case.images["t1n"]


def test_a_channel_to_resample_to_must_be_there(tmp_path):
    case = a_case(tmp_path, reading=Reading(resample_to="t2w"))
    with pytest.raises(ValueError, match="a: cannot resample to t2w; it has t1c, t1n"):
        read_cropped(case, channels=("t1c", "t1n"))


def test_fault_13_nan_is_taken_for_zero_only_when_asked_for(tmp_path):
    array = smooth((6, 7, 8), (1, 1, 1))
    array[1, 2, 3], array[0, 0, 0] = np.nan, np.inf
    images = {"t1c": write(tmp_path, "t1c", array)}
    with pytest.raises(ValueError, match="a: .*2 voxels are NaN or infinite"):
        read_cropped(Case(id="a", patient="a", images=images), channels=("t1c",))
    case = Case(
        id="a", patient="a", images=images, reading=Reading(zero_nonfinite=True)
    )
    raw = read_cropped(case, channels=("t1c",))
    assert raw.images[0][1, 2, 3] == 0
    assert "2 NaN or infinite voxels taken for 0" in raw.warnings[0]


def test_fault_14_a_constant_image_is_refused_only_for_training(tmp_path):
    ones = np.ones((4, 5, 6), np.int16)
    images = {"t1c": write(tmp_path, "t1c", ones)}
    raw = read_cropped(Case(id="a", patient="a", images=images), channels=("t1c",))
    assert "every voxel is 1" in raw.warnings[0]
    labels = write(tmp_path, "seg", ones)
    case = Case(id="a", patient="a", images=images, labels=labels)
    with pytest.raises(ValueError, match="a: .*every voxel is 1; export it again"):
        read_cropped(case, channels=("t1c",))


def test_labels_are_mapped_all_at_once():
    labels = np.array([0, 1, 2, 4], np.int16)
    swap = Reading(label_map=((1, 2), (2, 1), (4, 1)))
    assert swap.map_labels(labels).tolist() == [0, 2, 1, 1]
    assert Reading.from_dict(swap.to_dict()) == swap


@settings(deadline=None, max_examples=25)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from((-1, 1))] * 3),
    st.tuples(*[st.integers(-3, 3)] * 3),
)
def test_a_grid_turned_by_whole_axes_gives_the_same_voxels(order, signs, shift):
    """Resampling to a turned and moved grid is exact where voxel meets voxel."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (5, 6, 7)).astype(np.int16)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    scan = Scan(labels, affine, (4.0, 3.0, 2.0), Path("labels.nii"))
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
        turn[row, column] = sign
    turn[:3, 3] = shift
    affine = scan.affine @ turn
    moved, covered = onto_grid(scan, ((12, 12, 12), affine), is_labels=True)
    assert not is_one_grid((labels.shape, scan.affine), (moved.array.shape, affine))
    index = np.indices((12, 12, 12)).reshape(3, -1)[::-1]  # x y z of the new grid
    at = np.rint(turn[:3, :3] @ index + turn[:3, 3:]).astype(int)
    inside = ((at >= 0) & (at < np.array(labels.shape[::-1])[:, None])).all(0)
    want = np.zeros(12**3, np.int16)
    want[inside] = labels[at[2][inside], at[1][inside], at[0][inside]]
    np.testing.assert_array_equal(moved.array.reshape(-1), want)
    assert covered == pytest.approx(inside.mean())
