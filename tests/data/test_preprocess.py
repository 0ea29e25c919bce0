"""Tests of bmjax.data.preprocess: to the network, and exactly back."""

import itertools
import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.data import nifti
from bmjax.data.cases import Case, find_cases
from bmjax.data.cropping import brain_region, content, union
from bmjax.data.geometry import Geometry, labels_to_grid, to_grid, uncrop
from bmjax.data.measure import measure_case, measure_cases
from bmjax.data.normalise import normalise
from bmjax.data.preprocess import preprocess
from bmjax.data.small_lesions import keep_lesions
from bmjax.planning import BRATS_METS, Plan, make_plan, summarise

PLAN = Plan(
    channels=("t1c", "t1n"),
    labels=BRATS_METS.labels,
    regions=BRATS_METS.regions,
    paint=BRATS_METS.paint,
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore", "zscore"),
    use_mask_for_norm=True,
    patch_size=(8, 8, 8),
    batch_size=2,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 2)),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    batch_dice=False,
    median_size=(16, 16, 16),
)


def plan(**changes):
    return Plan.from_dict(PLAN.to_dict() | changes)


def make_case(
    folder, *, size=(12, 14, 16), affine=None, seed=0, channels=("t1c", "t1n")
):
    """A box of noise in a field of zeros, with a lesion in it."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4) if affine is None else affine
    start = rng.integers(0, 3, 3)
    stop = np.array(size) - rng.integers(0, 3, 3)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    labels = np.zeros(size, np.uint8)
    labels[box] = rng.choice(4, labels[box].shape, p=[0.7, 0.1, 0.1, 0.1])
    images = {}
    for channel in channels:
        image = np.zeros(size, np.int16)
        image[box] = rng.integers(1, 1000, image[box].shape)
        images[channel] = folder / f"c-{channel}.nii.gz"
        nifti.write(images[channel], image, affine=affine)
    nifti.write(folder / "c-seg.nii.gz", labels, affine=affine)
    return Case(id="c", patient="c", images=images, labels=folder / "c-seg.nii.gz")


def turned_affine(axes, angles=(0.0, 0.0, 0.0)):
    affine = np.eye(4)
    affine[:3, :3] = nib.eulerangles.euler2mat(*angles)
    order = nib.orientations.axcodes2ornt(axes)
    turn = np.zeros((3, 3))
    for column, (row, sign) in enumerate(order):
        turn[int(row), column] = sign
    affine[:3, :3] = affine[:3, :3] @ turn
    return affine


AXES = [
    "".join(turn)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for turn in itertools.product(*order)
]


@given(
    size=st.tuples(*[st.integers(7, 15)] * 3),
    axes=st.sampled_from(AXES),
    angles=st.tuples(*[st.floats(-0.3, 0.3)] * 3),
    transpose=st.permutations([0, 1, 2]),
    orientation=st.sampled_from(["RAS", "stored"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_labels_come_back_exactly_at_native_spacing(
    tmp_path_factory, size, axes, angles, transpose, orientation, seed
):
    folder = tmp_path_factory.mktemp("case")
    affine = turned_affine(axes, angles)
    case = make_case(folder, size=size, affine=affine, seed=seed)
    prepared = preprocess(
        case, plan(transpose_forward=list(transpose), orientation=orientation)
    )
    assert prepared.labels is not None
    native = uncrop(
        labels_to_grid(prepared.labels, prepared.geometry), prepared.geometry
    )
    nifti.write_like(
        folder / "out.nii.gz",
        native.astype(np.uint8),
        source=prepared.geometry.source,
        orientation=orientation,
    )
    assert (folder / "out.nii.gz").read_bytes() == (
        folder / "c-seg.nii.gz"
    ).read_bytes()
    # probabilities take the same way
    one_hot = np.eye(4, dtype=np.float32)[prepared.labels]
    probs = to_grid(one_hot, prepared.geometry)
    np.testing.assert_array_equal(
        uncrop(probs.argmax(-1).astype(np.uint8), prepared.geometry), native
    )


def test_normalised_channels_have_zero_mean_and_unit_spread_in_the_brain(tmp_path):
    prepared = preprocess(make_case(tmp_path), PLAN)
    geometry = prepared.geometry
    scan = nifti.read(tmp_path / "c-t1c.nii.gz").array
    box = tuple(
        slice(a, b)
        for a, b in zip(geometry.crop_start, geometry.crop_stop, strict=True)
    )
    inside = scan[box] > 0
    values = prepared.image[..., 0][inside]
    assert abs(values.mean()) < 1e-5 and abs(values.std() - 1) < 1e-5
    assert (prepared.image[..., 0][~inside] == 0).all()


def test_the_outside_of_the_brain_stays_zero_only_with_a_mask():
    channel = np.zeros((4, 4, 4), np.float32)
    channel[1:3, 1:3, 1:3] = np.arange(8).reshape(2, 2, 2)
    brain = np.zeros(channel.shape, bool)
    brain[1:3, 1:3, 1:3] = True
    masked = normalise(channel, scheme="zscore", brain=brain)
    assert (masked[~brain] == 0).all() and abs(masked[brain].mean()) < 1e-6
    whole = normalise(channel, scheme="zscore", brain=None)
    assert abs(whole.mean()) < 1e-6 and (whole[~brain] < 0).all()


def test_fault_14_a_constant_channel_does_not_divide_by_zero():
    channel = np.full((3, 3, 3), 7, np.float32)
    assert (normalise(channel, scheme="zscore", brain=None) == 0).all()
    assert normalise(channel, scheme="none", brain=None) is channel
    with pytest.raises(ValueError, match="'minmax' is unknown; use one of .'zscore'"):
        normalise(channel, scheme="minmax", brain=None)


def test_fault_18_a_huge_outlier_stays_finite():
    channel = np.ones((3, 3, 3), np.float32)
    channel[0, 0, 0] = 1e30
    assert np.isfinite(normalise(channel, scheme="zscore", brain=None)).all()


def test_the_brain_is_the_union_of_channels_with_holes_filled():
    first, second = np.zeros((2, 9, 9, 9), np.float32)
    first[2:7, 2:7, 2:7] = 1
    first[4, 4, 4] = 0  # closed hole
    first[2:5, 5, 5] = 0  # a shaft, open to the outside
    second[7, 7, 7] = 1
    empty = np.zeros((9, 9, 9), np.int16)
    volumes, start = union([content(v) for v in (first, second, empty)])
    brain = brain_region(volumes)
    assert start == (2, 2, 2) and brain.shape == (6, 6, 6)
    assert brain[2, 2, 2] and not brain[0, 3, 3] and brain[5, 5, 5]
    for volume, whole in zip(volumes, (first, second, empty), strict=True):
        np.testing.assert_array_equal(volume, whole[2:8, 2:8, 2:8])
        assert volume.dtype == np.float32
    with pytest.raises(ValueError, match="every voxel of every channel is 0"):
        union([content(empty)])


def test_a_coarser_grid_and_back_keeps_the_geometry(tmp_path):
    prepared = preprocess(
        make_case(tmp_path, size=(20, 24, 22)), plan(spacing_mm=[2.0] * 3)
    )
    geometry = prepared.geometry
    assert prepared.image.shape[:3] == geometry.size_after_resampling
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry
    probs = to_grid(np.ones((*geometry.size_after_resampling, 3), np.float32), geometry)
    assert probs.shape == (*geometry.size_after_crop, 3)
    np.testing.assert_allclose(probs, 1, atol=1e-5)
    assert uncrop(probs[..., 0].astype(np.uint8), geometry).shape == (20, 24, 22)
    with pytest.raises(ValueError, match="does not fit its prepared size"):
        to_grid(np.ones((3, 3, 3, 3), np.float32), geometry)


def test_a_two_dimensional_plan_leaves_the_slices(tmp_path):
    case = make_case(tmp_path, size=(7, 20, 20))
    flat = plan(
        spacing_mm=[2.0, 2.0],
        patch_size=[8, 8],
        strides=[[1, 1], [2, 2]],
        kernel_sizes=[[3, 3], [3, 3]],
        median_size=[10, 10],
    )
    prepared = preprocess(case, flat)
    assert prepared.geometry.size_after_crop[0] == prepared.image.shape[0]
    assert prepared.image.shape[1] in (9, 10)


def test_fault_39_a_lesion_of_one_voxel_survives_any_grid(tmp_path):
    size = (16, 16, 16)
    image = np.ones(size, np.int16) * np.arange(1, 17, dtype=np.int16)
    labels = np.zeros(size, np.uint8)
    labels[3, 5, 7] = 3
    labels[0, 0, 0] = 3  # at the border
    labels[10:14, 10:14, 10:14] = 2
    for name, array in (("t1c", image), ("t1n", image), ("seg", labels)):
        nifti.write(tmp_path / f"c-{name}.nii.gz", array, affine=np.eye(4))
    (case,) = find_cases(tmp_path, channels=("t1c", "t1n"))
    for spacing_mm in (3.0, 2.0, 1.3, 0.7, 0.5):
        prepared = preprocess(case, plan(spacing_mm=[spacing_mm] * 3))
        assert prepared.labels is not None
        wide = np.argwhere(prepared.labels == 3) * spacing_mm
        assert len(wide) >= 2
        assert np.abs(wide - (3, 5, 7)).max(1).min() <= 2 * spacing_mm
        assert any("too small for the new grid" in text for text in prepared.warnings)


def test_lost_lesions_are_put_back_and_large_ones_left_alone():
    before = np.zeros((8, 8, 8), np.int8)
    before[1, 1, 1] = 1
    before[5:8, 5:8, 5:8] = 2
    after = np.zeros((4, 4, 4), np.int8)
    after[3, 3, 3] = 2
    warnings = keep_lesions(before, after)
    assert after[0, 0, 0] == 1 and np.count_nonzero(after) == 2
    assert "label 1 (1 voxels) vanished" in warnings[0] and len(warnings) == 2
    assert keep_lesions(before, after) == []


def test_a_real_round_trip_is_exact_and_fast(real_cases):
    case = find_cases(real_cases, channels=("t1c", "t1n"))[6]
    prepared = preprocess(case, PLAN)
    assert prepared.labels is not None and case.labels is not None
    native = uncrop(
        labels_to_grid(prepared.labels, prepared.geometry), prepared.geometry
    )
    np.testing.assert_array_equal(native, nifti.read_labels(case.labels).array)


def test_a_real_ras_case_lies_where_its_affine_says(real_cases):
    met = real_cases.parent / "brats_met"
    (case,) = find_cases(met, ids=["BraTS-MET-00110-000"], channels=("t1c", "t1n"))
    prepared = preprocess(case, PLAN)
    geometry = prepared.geometry
    stored = nib.load(case.images["t1c"])
    index = np.array(prepared.image.shape[:3]) // 2  # z y x
    zyx = index + geometry.crop_start
    world = np.array(geometry.affine) @ [*zyx[::-1], 1]
    i, j, k, _ = np.rint(np.linalg.solve(stored.affine, world)).astype(int)
    whole = nifti.read(case.images["t1c"]).array
    assert whole[tuple(zyx)] == np.asarray(stored.dataobj)[i, j, k] != 0


# Faults


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


# Measuring


def test_facts_of_a_case_make_a_fingerprint_and_a_plan(tmp_path):
    case = make_case(tmp_path)
    facts = measure_case(case, channels=("t1c", "t1n"), num_samples=50)
    labels = nifti.read_labels(tmp_path / "c-seg.nii.gz").array
    assert facts["id"] == "c" and facts["size"] == (12, 14, 16)
    assert facts["label_voxels"] == {
        str(k): int((labels == k).sum()) for k in (1, 2, 3) if (labels == k).any()
    }
    assert len(facts["samples"]["t1c"]) == 50
    fingerprint = summarise(measure_cases([case], num_workers=1))
    assert make_plan(fingerprint).channels == ("t1c", "t1n")


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
