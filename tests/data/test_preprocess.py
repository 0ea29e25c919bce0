"""Tests of bmjax.data.preprocess: to the network, and exactly back."""

import itertools
import json

import cc3d
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_cases import PLAN, make_case, plan

from bmjax.data import nifti
from bmjax.data.cases import find_cases
from bmjax.data.cropping import brain_region, content, union
from bmjax.data.geometry import Geometry, labels_to_grid, to_grid, uncrop
from bmjax.data.measure import measure_case, measure_cases
from bmjax.data.preprocess import preprocess
from bmjax.data.resample import new_size, resample_labels
from bmjax.data.small_lesions import keep_lesions
from bmjax.planning import BRATS_METS, make_plan, summarise


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
    require_the_way_back(
        case, plan(transpose_forward=list(transpose), orientation=orientation)
    )


@pytest.mark.parametrize("axes", AXES)
def test_fault_29_labels_come_back_exactly_in_any_orientation(tmp_path, axes):
    for number, angles in enumerate([(0, 0, 0), (0.2, -0.1, 0.25)]):
        (tmp_path / str(number)).mkdir()
        case = make_case(tmp_path / str(number), affine=turned_affine(axes, angles))
        require_the_way_back(case, PLAN)


def require_the_way_back(case, plan):
    """Prepared labels, and probabilities, become the label file that they came from."""
    prepared = preprocess(case, plan)
    assert prepared.labels is not None and case.labels is not None
    geometry = prepared.geometry
    native = uncrop(labels_to_grid(prepared.labels, geometry), geometry)
    out = case.labels.with_name("out.nii.gz")
    nifti.write_like(
        out,
        native.astype(np.uint8),
        source=geometry.source,
        orientation=plan.orientation,
    )
    assert out.read_bytes() == case.labels.read_bytes()
    # probabilities take the same way
    one_hot = np.eye(4, dtype=np.float32)[prepared.labels]
    probs = to_grid(one_hot, geometry)
    np.testing.assert_array_equal(
        uncrop(probs.argmax(-1).astype(np.uint8), geometry), native
    )


def to_a_grid_and_back(labels, *, spacing_mm):
    """From 1 mm to another spacing and back."""
    size = new_size(
        labels.shape, spacing_mm=(1.0,) * 3, new_spacing_mm=(spacing_mm,) * 3
    )
    there = resample_labels(labels, size)
    keep_lesions(labels, there)
    geometry = Geometry(
        source="labels",
        orientation="RAS",
        size=labels.shape,
        affine=tuple(tuple(row) for row in np.eye(4).tolist()),
        crop_start=(0, 0, 0),
        crop_stop=labels.shape,
        transpose_forward=(0, 1, 2),
        size_after_crop=labels.shape,
        size_after_resampling=size,
        spacing_mm=(1.0,) * 3,
        new_spacing_mm=(spacing_mm,) * 3,
    )
    return labels_to_grid(there, geometry)


@given(
    seed=st.integers(0, 10_000),
    # a blob, and what rounding treats worst: lines, planes, diagonals
    kind=st.sampled_from(["blob", "line", "plane", "diagonal"]),
    num_voxels=st.integers(8, 40),
    spacing_mm=st.sampled_from([0.8, 1.25, 2.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_lesion_of_8_voxels_is_lost_on_another_grid_and_back(
    seed, kind, num_voxels, spacing_mm
):
    rng = np.random.default_rng(seed)
    labels = np.zeros((50, 24, 23), np.int8)
    start = rng.integers(0, 8, 3)
    if kind == "blob":
        steps = rng.integers(-1, 2, (num_voxels * 4, 3))
        voxels = np.unique(np.cumsum(steps, axis=0), axis=0)[:num_voxels]
        voxels -= voxels.min(0)
        voxels = voxels[(voxels < 15).all(1)]
    else:
        count = np.arange(num_voxels)
        voxels = {
            "line": np.stack([count, 0 * count, 0 * count], 1),
            "plane": np.stack([0 * count, count // 8, count % 8], 1),
            "diagonal": np.stack([count, count % 2, count // 2 % 2], 1),
        }[kind]
    labels[tuple((voxels + start).T)] = rng.integers(1, 4)
    lesions = cc3d.connected_components(labels, connectivity=26)
    back = to_a_grid_and_back(labels, spacing_mm=spacing_mm)
    found = np.argwhere(back)
    for lesion in np.flatnonzero(np.bincount(lesions.ravel()) >= 8)[1:]:
        mine = np.argwhere(lesions == lesion)
        apart = np.abs(mine[:, None] - found[None]).max(2).min(initial=99)
        assert apart <= (0 if spacing_mm < 1 else 1), f"{len(mine)} voxels"


def test_real_labels_survive_a_finer_grid_and_back(real_cases):
    masks = sorted(real_cases.glob("*/*-seg.nii.gz"))[4:8]
    masks += sorted(real_cases.parent.glob("brats_met/*/*-seg.nii.gz"))
    for path in masks:
        labels = nifti.read_labels(path).array.astype(np.int8)
        box = np.argwhere(labels)
        low, high = np.maximum(box.min(0) - 6, 0), box.max(0) + 7
        labels = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        back = to_a_grid_and_back(np.ascontiguousarray(labels), spacing_mm=0.8)
        for _, members in BRATS_METS.regions:
            first, second = np.isin(labels, members), np.isin(back, members)
            overlap = np.count_nonzero(first & second)
            dice = 2 * overlap / (np.count_nonzero(first) + np.count_nonzero(second))
            assert dice >= 0.97, f"{path}: {members}"
        lesions = cc3d.connected_components(labels > 0, connectivity=26)
        sizes = np.bincount(lesions.ravel())
        kept = np.unique(lesions[back > 0])
        assert set(np.flatnonzero(sizes >= 8)) <= {0, *kept}, path


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
