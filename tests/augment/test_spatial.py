import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.augment import Spatial, geometry
from bmjax.augment.spatial import resample

BOX, SIZE = (10, 12, 9), (6, 8, 5)


def box(seed=0, size=BOX):
    rng = np.random.default_rng(seed)
    image = jnp.asarray(rng.normal(size=(*size, 2)), jnp.float32)
    return image, jnp.asarray(rng.integers(0, 4, size), jnp.int8)


def moved(matrix, offset=(2, 2, 2), size=SIZE, **options):
    image, labels = box()
    affine = geometry.affine(np.asarray(matrix), size, offset=np.asarray(offset))
    return resample(image, labels, jnp.asarray(affine), size=size, **options)


@pytest.mark.parametrize("rule", ["linear", "nearest"])
def test_without_a_move_the_patch_is_cut(rule):
    image, labels = box()
    new_image, new_labels = moved(np.eye(3), label_rule=rule)
    np.testing.assert_allclose(new_image, image[2:8, 2:10, 2:7], atol=1e-6)
    np.testing.assert_array_equal(new_labels, labels[2:8, 2:10, 2:7])


def test_a_quarter_turn_of_a_cube_is_rot90():
    image, labels = box(size=(6, 6, 6))
    turn = np.round(geometry.rotation(np.array([0, 0, np.pi / 2])))
    affine = geometry.affine(turn, (6, 6, 6), offset=np.zeros(3))
    new_image, new_labels = resample(image, labels, jnp.asarray(affine), size=(6, 6, 6))
    np.testing.assert_allclose(new_image, np.rot90(image, -1, (0, 1)), atol=1e-5)
    np.testing.assert_array_equal(new_labels, np.rot90(labels, -1, (0, 1)))


def test_beyond_the_box_there_is_nothing():
    new_image, new_labels = moved(np.eye(3), offset=(50, 0, 0))
    assert not np.any(new_image) and not np.any(new_labels)


def test_a_label_needs_the_most_weight_and_the_nearest_wins_a_tie():
    labels = jnp.asarray([[[1, 2, 2]]], jnp.int8)
    image = jnp.zeros((1, 1, 3, 1))

    def at(x):
        affine = jnp.asarray([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, x]], jnp.float32)
        return int(resample(image, labels, affine, size=(1, 1, 1))[1][0, 0, 0])

    assert [at(x) for x in (0.0, 0.45, 0.55, 2.4, 2.6)] == [1, 1, 2, 2, 0]
    assert at(0.5) == 1  # half goes to the even voxel, as in torch


def test_control_points_without_displacement_bend_nothing():
    plain, labels = moved(np.eye(3))
    points = jnp.zeros((5, 5, 5, 3))
    bent, own = moved(np.eye(3), elastic=points)
    np.testing.assert_allclose(bent, plain, atol=1e-5)
    np.testing.assert_array_equal(own, labels)


def test_equal_displacement_of_all_control_points_is_a_shift():
    points = jnp.broadcast_to(jnp.asarray([1.0, 0.0, -1.0]), (5, 5, 5, 3))
    bent, _ = moved(np.eye(3), elastic=points)
    image, _ = box()
    np.testing.assert_allclose(bent, image[3:9, 2:10, 1:6], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), flat=st.booleans())
def test_a_placement_scales_and_turns_within_its_limits(seed, flat):
    spatial = Spatial(p_rotation=1.0, p_scaling=1.0, slices_only=flat)
    placement = spatial.draw(np.random.default_rng(seed), SIZE)
    scales = np.linalg.svd(placement.matrix, compute_uv=False)
    if flat:
        np.testing.assert_array_equal(placement.matrix[0], [1, 0, 0])
        np.testing.assert_array_equal(placement.matrix[:, 0], [1, 0, 0])
        scales = np.sort(np.delete(scales, np.abs(scales - 1).argmin()))
    assert 0.69 < scales.min() and scales.max() < 1.41
    assert np.ptp(scales) < 1e-5


def test_thick_slices_are_moved_within_themselves():
    spatial = Spatial(p_rotation=1.0)
    assert not spatial.is_flat((64, 192, 160))  # exactly three times: nnU-Net does not
    assert spatial.is_flat((16, 128, 128))
    assert spatial.box_size((16, 128, 128))[0] == 16
    assert spatial.limit_deg((16, 128, 128)) == 180
    assert spatial.limit_deg((256, 128)) == 15
    assert spatial.limit_deg((192, 160)) == 180


def test_nothing_to_draw_needs_no_box():
    still = Spatial(p_rotation=0.0, p_scaling=0.0)
    assert still.box_size(SIZE) == SIZE
    assert not still.draw(np.random.default_rng(0), SIZE).is_moved
    nowhere = Spatial(p_rotation=1.0, rotation_deg=0.0, p_scaling=0.0)
    assert not nowhere.draw(np.random.default_rng(0), SIZE).is_moved


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="the smaller first"):
        Spatial(scaling=(1.4, 0.7))
    with pytest.raises(ValueError, match="a cubic spline needs 4"):
        Spatial(elastic_points=3)


def test_the_resampling_of_a_sample_is_compiled_for_any_draw(key):
    image, labels = box()
    run = jax.jit(lambda a: resample(image, labels, a, size=SIZE))
    for seed in range(3):
        placement = Spatial(p_rotation=1.0).draw(np.random.default_rng(seed), SIZE)
        run(geometry.affine(placement.matrix, SIZE, offset=np.zeros(3)))
    assert run._cache_size() == 1
