import dataclasses
import logging
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax import sharding
from bmjax.augment import AugmentPolicy, NewLesions, Spatial, geometry, intensity
from bmjax.augment.policy import _in_line

NONE = AugmentPolicy(
    p_noise=0.0,
    p_blur=0.0,
    p_brightness=0.0,
    p_contrast=0.0,
    p_low_resolution=0.0,
    p_gamma_inverted=0.0,
    p_gamma=0.0,
    p_mirror=0.0,
)


def batch(seed=0, size=(4, 6, 8)):
    rng = np.random.default_rng(seed)
    image = jnp.asarray(rng.normal(size=(3, *size, 4)), jnp.float32)
    return image, jnp.asarray(rng.integers(0, 4, (3, *size)), jnp.int8)


def test_no_transform_changes_nothing(key):
    image, labels = batch()
    new_image, new_labels = NONE(image, labels, keys=jax.random.split(key, 3))
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_labels, labels)


def test_a_sample_depends_on_its_own_key_alone(key):
    image, labels = batch()
    keys = jax.random.split(key, 3)
    whole, _ = AugmentPolicy()(image, labels, keys=keys)
    alone, _ = AugmentPolicy()(image[1:2], labels[1:2], keys=keys[1:2])
    np.testing.assert_array_equal(whole[1], alone[0])


def test_mirroring_moves_image_and_labels_together(key):
    policy = dataclasses.replace(NONE, p_mirror=1.0)
    _, labels = batch()
    image = labels[..., None].astype(jnp.float32)
    new_image, new_labels = policy(image, labels, keys=jax.random.split(key, 3))
    np.testing.assert_array_equal(new_image[..., 0], new_labels)
    np.testing.assert_array_equal(new_labels, labels[:, ::-1, ::-1, ::-1])


def test_background_stays_zero(key):
    image, labels = batch()
    image = image.at[:, 0].set(0.0)
    always = AugmentPolicy(
        p_noise=1.0, p_blur=1.0, p_contrast=1.0, p_gamma=1.0, p_mirror=0.0
    )
    augmented, _ = always(image, labels, keys=jax.random.split(key, 3))
    assert not np.any(augmented[:, 0])
    assert np.abs(augmented[:, 1:] - image[:, 1:]).max() > 0.1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), is_inverted=st.booleans())
def test_gamma_keeps_mean_and_spread(seed, is_inverted):
    image = batch(seed)[0][0]
    powers = jax.random.uniform(jax.random.key(seed), (4,), minval=0.7, maxval=1.5)
    bent = intensity.gamma(image, powers, is_inverted=is_inverted)
    space = (0, 1, 2)
    np.testing.assert_allclose(bent.mean(space), image.mean(space), atol=1e-4)
    np.testing.assert_allclose(bent.std(space), image.std(space), rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_contrast_stays_within_the_range_it_had(seed):
    image = batch(seed)[0][0]
    factors = jax.random.uniform(jax.random.key(seed), (4,), minval=0.5, maxval=2)
    changed = intensity.contrast(image, factors)
    assert (changed.max((0, 1, 2)) <= image.max((0, 1, 2))).all()
    assert (changed.min((0, 1, 2)) >= image.min((0, 1, 2))).all()


def test_a_constant_channel_stays_finite():
    flat = jnp.full((3, 3, 3, 1), 2.0)
    bent = intensity.gamma(flat, jnp.asarray([1.5]))
    np.testing.assert_allclose(bent, flat, atol=1e-6)


def test_brightness_has_median_one_and_nnunets_range(key):
    draws = intensity.split_uniform(key, (20_000,), low=0.75, high=1.25)
    assert 0.75 <= draws.min() < 0.76
    assert 1.24 < draws.max() <= 1.25
    assert abs(float((draws < 1).mean()) - 0.5) < 0.02


def test_all_platforms_compute_the_same(key):
    """A CPU runs what is drawn, others all of it: the numbers are the same."""
    image, labels = batch()
    keys = jax.random.split(key, 3)
    policy = AugmentPolicy(p_blur=0.5, p_low_resolution=0.5, p_contrast=0.5)
    one_by_one, own = policy(image, labels, keys=keys)
    at_once, same = jax.vmap(partial(policy._vary, run=_in_line))(image, labels, keys)
    np.testing.assert_allclose(one_by_one, at_once, atol=1e-5)
    np.testing.assert_array_equal(own, same)


def test_a_dropped_channel_is_zero_and_one_always_stays(key):
    policy = dataclasses.replace(NONE, p_drop_channel=0.8)
    image, labels = jnp.ones((200, 2, 2, 2, 4)), jnp.zeros((200, 2, 2, 2), jnp.int8)
    dropped, _ = jax.jit(policy)(image, labels, keys=jax.random.split(key, 200))
    kept = np.asarray(dropped).any((1, 2, 3))
    assert kept.any(1).all()
    assert set(np.unique(dropped)) == {0.0, 1.0}
    expected = 0.2 + 0.8**4 / 4  # the one that stays where all were drawn
    assert abs(kept.mean() - expected) < 0.06


def box_batch(policy, size, seeds=(3, 4, 5)):
    """Two moved patches and one that is not, in their boxes."""
    box = policy.spatial.box_size(size)
    image, labels = batch(size=box)
    offset = (np.array(box) - size) // 2
    rngs = [np.random.default_rng(seed) for seed in seeds]
    matrices = [policy.spatial.draw(rng, size).matrix for rng in rngs]
    matrices[1] = np.eye(len(size), dtype=np.float32)
    affine = np.stack([geometry.affine(m, size, offset=offset) for m in matrices])
    return {"image": image, "labels": labels, "affine": jnp.asarray(affine)}, offset


@pytest.mark.parametrize("size", [(8, 10, 6), (12, 10)])
def test_a_patch_that_is_not_moved_is_copied(size):
    policy = AugmentPolicy(spatial=Spatial(p_rotation=1.0, p_scaling=1.0))
    boxes, offset = box_batch(policy, size)
    placed = policy.place(boxes, size=size)
    inside = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
    np.testing.assert_array_equal(placed["image"][1], boxes["image"][1][inside])
    np.testing.assert_array_equal(placed["labels"][1], boxes["labels"][1][inside])
    assert placed["image"].shape == (3, *size, 4)
    assert np.abs(placed["image"][0] - boxes["image"][0][inside]).max() > 0.1


def test_the_second_batch_compiles_nothing_and_cuda_can_be_lowered(key):
    policy = AugmentPolicy(spatial=Spatial(p_rotation=1.0))
    size = (8, 10, 6)
    boxes, _ = box_batch(policy, size)

    @jax.jit
    def whole(boxes, keys):
        placed = policy.place(boxes, size=size)
        return policy(placed["image"], placed["labels"], keys=keys)

    keys = jax.random.split(key, 3)
    jax.block_until_ready(whole(boxes, keys))
    boxes, _ = box_batch(policy, size, seeds=(6, 7, 8))
    with jax.log_compiles(), count_compilations() as count:
        jax.block_until_ready(whole(boxes, jax.random.split(keys[0], 3)))
    assert count() == 0
    lowered = whole.trace(boxes, keys).lower(lowering_platforms=("cuda",))
    # a CPU goes through samples and transforms in loops; an accelerator does all at
    # once, but for the rounds of the random numbers
    assert lowered.as_text().count("stablehlo.while") <= 1
    assert whole.lower(boxes, keys).as_text().count("stablehlo.while") > 10


@contextmanager
def count_compilations():
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("jax._src.interpreters.pxla")
    logger.addHandler(handler)
    logger.propagate, before = False, logger.propagate
    yield lambda: len([text for text in found if "whole" in text])
    logger.removeHandler(handler)
    logger.propagate = before


def test_sharded_and_whole_batches_get_the_same(key):
    policy = AugmentPolicy(spatial=Spatial(p_rotation=1.0))
    size = (8, 10, 6)
    boxes, _ = box_batch(policy, size)
    boxes = {name: jnp.concatenate([x, x[:1]]) for name, x in boxes.items()}
    keys = jax.random.split(key, 4)
    mesh = sharding.data_mesh(jax.devices()[:2])
    place = sharding.parallelise_samples(partial(policy.place, size=size), mesh)
    placed = place(sharding.put_batch(boxes, mesh))
    alone = jax.jit(partial(policy.place, size=size))(boxes)
    np.testing.assert_allclose(placed["image"], alone["image"], atol=1e-6)
    spread = jax.jit(sharding.samplewise(policy, mesh))
    image, labels = spread(placed["image"], placed["labels"], keys=keys)
    want, own = jax.jit(policy)(alone["image"], alone["labels"], keys=keys)
    np.testing.assert_allclose(image, want, atol=1e-5)
    np.testing.assert_array_equal(labels, own)


def test_new_lesions_in_2d_patches_are_refused(key):
    policy = AugmentPolicy(new_lesions=NewLesions(p_drawn=0.5))
    image, labels = batch(size=(6, 8))
    with pytest.raises(ValueError, match="need 3-D patches"):
        policy(image, labels, keys=jax.random.split(key, 3))
