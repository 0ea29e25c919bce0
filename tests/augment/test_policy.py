import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.augment import AugmentPolicy, intensity

NONE = AugmentPolicy(
    p_noise=0.0,
    p_brightness=0.0,
    p_contrast=0.0,
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
        p_noise=1.0, p_brightness=1.0, p_contrast=1.0, p_gamma=1.0, p_mirror=0.0
    )
    augmented, _ = always(image, labels, keys=jax.random.split(key, 3))
    assert not np.any(augmented[:, 0])
    assert np.abs(augmented[:, 1:] - image[:, 1:]).max() > 0.1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), is_inverted=st.booleans())
def test_gamma_keeps_mean_and_spread(seed, is_inverted):
    image = batch(seed)[0][0]
    key = jax.random.key(seed)
    bent = intensity.gamma(image, key=key, is_inverted=is_inverted)
    space = (0, 1, 2)
    np.testing.assert_allclose(bent.mean(space), image.mean(space), atol=1e-4)
    np.testing.assert_allclose(bent.std(space), image.std(space), rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_contrast_stays_within_the_range_it_had(seed):
    image = batch(seed)[0][0]
    changed = intensity.contrast(image, key=jax.random.key(seed))
    assert (changed.max((0, 1, 2)) <= image.max((0, 1, 2))).all()
    assert (changed.min((0, 1, 2)) >= image.min((0, 1, 2))).all()


def test_a_constant_channel_stays_finite(key):
    flat = jnp.full((3, 3, 3, 1), 2.0)
    np.testing.assert_allclose(intensity.gamma(flat, key=key), flat, atol=1e-6)


def test_brightness_has_median_one_and_nnunets_range(key):
    draws = intensity.split_uniform(key, (20_000,), low=0.75, high=1.25)
    assert 0.75 <= draws.min() < 0.76
    assert 1.24 < draws.max() <= 1.25
    assert abs(float((draws < 1).mean()) - 0.5) < 0.02
