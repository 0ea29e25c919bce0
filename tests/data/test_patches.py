import importlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.augment import Spatial
from bmjax.augment.spatial import resample
from bmjax.data.patches import (
    Sampling,
    box_start,
    cut,
    cut_donor,
    cut_sample,
    draw_voxel,
    generator,
    is_on_lesion,
    patch_start,
)


@dataclass
class Case:
    """A volume with a large lesion of one label and one voxel of another."""

    size: tuple[int, int, int] = (20, 24, 18)
    image: np.ndarray = field(init=False)
    labels: np.ndarray | None = field(init=False)

    def __post_init__(self):
        rng = np.random.default_rng(0)
        self.image = rng.normal(size=(*self.size, 2)).astype(np.float32)
        self.labels = np.zeros(self.size, np.int8)
        self.labels[2:8, 2:8, 2:8] = 2
        self.labels[15, 15, 15] = 3
        whole, small = np.argwhere(self.labels == 2), np.argwhere(self.labels == 3)
        self.lesion_voxels = np.concatenate([whole, small])
        self.voxels = {"WT": self.lesion_voxels, "ET": small, "NETC": small[:0]}
        self.lesions = [
            {"volume_mm3": 216.0, "start": 0, "stop": 216, "box": [[2] * 3, [8] * 3]},
            {"volume_mm3": 1.0, "start": 216, "stop": 217, "box": [[15] * 3, [16] * 3]},
        ]


def share_of_small(**sampling):
    rng = np.random.default_rng(0)
    draws = [draw_voxel(Case(), rng, sampling=Sampling(**sampling)) for _ in range(600)]
    return np.mean([tuple(voxel) == (15, 15, 15) for voxel in draws])


def test_all_lesions_of_a_case_have_the_same_chance():
    assert 0.44 < share_of_small(centring="lesion") < 0.56


def test_lesions_may_be_weighted_by_the_inverse_of_their_volume():
    assert share_of_small(centring="lesion", volume_power=1.0) > 0.98
    root = share_of_small(centring="lesion", volume_power=0.5)
    assert abs(root - 1 / (1 + 216**-0.5)) < 0.04


def test_nnunet_draws_the_class_then_the_voxel():
    # ET always is that voxel, WT one time in 217
    assert 0.44 < share_of_small(centring="class") < 0.56


def test_a_case_without_lesions_has_no_voxel():
    case = Case()
    case.voxels, case.lesions = {"WT": np.zeros((0, 3), int)}, []
    for centring in ("class", "lesion"):
        sampling = Sampling(centring=centring)
        assert draw_voxel(case, np.random.default_rng(0), sampling=sampling) is None


@pytest.mark.parametrize(("size", "expected"), [(2, [1]), (12, [8, 9, 10, 11])])
def test_the_last_third_of_a_batch_is_on_lesions(size, expected):
    found = [i for i in range(size) if is_on_lesion(i, batch_size=size, p_lesion=0.33)]
    assert found == expected


sizes = st.tuples(*[st.integers(3, 40)] * 3)


@pytest.mark.parity
@settings(max_examples=200, deadline=None)
@given(
    whole=sizes,
    part=sizes,
    extra=st.tuples(*[st.integers(0, 20)] * 3),
    seed=st.integers(0, 1000),
)
def test_patches_lie_where_nnunets_loader_puts_them(whole, part, extra, seed):
    loader = importlib.import_module("nnunetv2.training.dataloading.data_loader")
    box = tuple(int(p + e) for p, e in zip(part, extra, strict=True))
    owner = SimpleNamespace(
        need_to_pad=np.array(extra),
        patch_size=box,
        has_ignore=False,
        annotated_classes_key=(-1,),
    )
    get_bbox = loader.nnUNetDataLoader.get_bbox
    middle = np.array(box) // 2 - np.array(part) // 2  # their crop of the centre
    rng = np.random.default_rng(seed)
    voxel = rng.integers(0, whole)
    lower, _ = get_bbox(owner, whole, True, {1: np.array([[0, *voxel]])})
    start = patch_start(whole, part, box_size=box, rng=rng, centre=voxel)
    assert start == tuple(np.array(lower) + middle)
    # without a voxel: the same bounds
    starts = [patch_start(whole, part, box_size=box, rng=rng) for _ in range(30)]
    spans = []

    def ask(low, high):
        spans.append((low, high))
        return low

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader.np.random, "randint", ask)
        get_bbox(owner, whole, False, None)
    for axis, (low, high) in enumerate(spans):
        found = [own[axis] - middle[axis] for own in starts]
        assert low <= min(found) and max(found) < high
        if high - low < 3:
            assert set(found) == set(range(low, high))


@settings(max_examples=200, deadline=None)
@given(
    whole=sizes, part=sizes, extra=st.tuples(*[st.integers(0, 20)] * 3), data=st.data()
)
def test_a_box_misses_no_voxel_that_nnunets_has(whole, part, extra, data):
    load = tuple(p + e for p, e in zip(part, extra, strict=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    first = patch_start(whole, part, box_size=load, rng=rng)
    box = tuple(min(n, max(p, w)) for n, p, w in zip(load, part, whole, strict=True))
    start = box_start(whole, first, part, box_size=box)
    for w, f, p, n, b, s in zip(whole, first, part, load, box, start, strict=True):
        low = max(f - (n - p) // 2, 0)
        high = min(f - (n - p) // 2 + n, w)
        assert s <= low + (n > b) * 0 or s <= 0
        assert min(s + b, w) >= high or s + b >= w


def test_a_box_beyond_the_volume_is_zero():
    volume = np.arange(1, 28).reshape(3, 3, 3)
    found = cut(volume, (-1, 1, 2), (3, 3, 3))
    np.testing.assert_array_equal(found[1:, :2, :1], volume[:2, 1:, 2:])
    assert found.sum() == volume[:2, 1:, 2:].sum()
    assert not cut(volume, (5, -9, 0), (3, 3, 3)).any()


def sample(case, *, patch_size, spatial, seed, box_size=None, **sampling):
    load = spatial.box_size(patch_size) if spatial else patch_size
    rng = np.random.default_rng(seed)
    placement = spatial.draw(rng, patch_size) if spatial else None
    size = (box_size or load) if placement and placement.is_moved else patch_size
    image, labels = np.zeros((*size, 2), np.float32), np.zeros(size, np.int8)
    affine = cut_sample(
        case,
        image=image,
        labels=labels,
        patch_size=patch_size,
        load_size=load,
        on_lesion=True,
        sampling=Sampling(**sampling),
        placement=placement,
        rng=rng,
    )
    return image, labels, affine


@pytest.mark.parametrize("seed", range(6))
def test_a_smaller_box_gives_the_same_patch_as_the_padded_volume(seed):
    case, patch_size = Case(), (12, 10, 14)
    spatial = Spatial(p_rotation=1.0, p_scaling=1.0, scaling=(0.8, 1.0))
    boxes = [
        sample(case, patch_size=patch_size, spatial=spatial, seed=seed, box_size=box)
        for box in (None, (20, 24, 18), (60, 60, 60))
    ]
    # a box as large as the volume holds all that one as large as you like has
    patches = [
        resample(*map(jnp.asarray, (image, labels, affine)), size=patch_size)
        for image, labels, affine in boxes[1:]
    ]
    for one, other in zip(*patches, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_2d_patch_is_a_slice_through_a_lesion():
    for seed in range(10):
        case = Case()
        image, labels, affine = sample(
            case, patch_size=(16, 12), spatial=Spatial(p_rotation=0.5), seed=seed
        )
        assert image.ndim == 3 and affine.shape == (2, 3)
        slices = {z for z in range(20) if np.isin(case.image[z], image).any()}
        assert len(slices) == 1 and case.labels[slices.pop()].any()


def test_the_centre_of_a_patch_that_is_not_moved_is_a_lesion_voxel():
    for seed in range(10):
        _, labels, affine = sample(
            Case(), patch_size=(6, 6, 6), spatial=None, seed=seed
        )
        assert labels[3, 3, 3] > 0
        np.testing.assert_array_equal(affine, np.eye(3, 4))


def test_a_donor_holds_its_own_lesion_alone():
    rng = np.random.default_rng(0)
    case = Case()
    image, labels = cut_donor(case, size=12, volume_mm3=(0.1, 100), rng=rng)
    assert labels.sum() == 3 and labels[6, 6, 6] == 3
    np.testing.assert_array_equal(image[6, 6, 6], case.image[15, 15, 15])
    found = [
        cut_donor(case, size=12, volume_mm3=(0.1, 500), rng=rng)[1] for _ in range(20)
    ]
    assert {int(labels.max()) for labels in found} == {2, 3}
    assert not cut_donor(case, size=12, volume_mm3=(0.1, 0.5), rng=rng)[1].any()


def test_a_case_without_labels_is_refused():
    case = Case()
    case.labels = None
    with pytest.raises(ValueError, match="prepare it anew"):
        sample(case, patch_size=(4, 4, 4), spatial=None, seed=0)


def test_a_sample_depends_on_seed_stream_step_and_slot():
    def first(**where):
        return generator(
            **{"seed": 1, "stream": 0, "step": 5, "slot": 0, **where}
        ).random()

    assert first() == first()
    others = [first(**{name: 7}) for name in ("seed", "stream", "step", "slot")]
    assert len({first(), *others}) == 5


def test_moving_patches_on_the_host_starts_no_device():
    # geometry is what workers import; jax is there only because the tests are
    module = importlib.import_module("bmjax.augment.geometry")
    assert not any(value is jax for value in vars(module).values())
