import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.augment import NewLesions
from bmjax.augment.lesion import draw_lesion, paste_lesion

SIZE = (28, 30, 26)


def brain(seed=0):
    """A ball of noisy tissue without a lesion."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1)
    inside = np.linalg.norm(grid - np.array(SIZE) / 2, axis=-1) < 12
    image = np.where(inside[..., None], rng.normal(0.5, 0.1, (*SIZE, 4)), 0)
    return jnp.asarray(image, jnp.float32), jnp.zeros(SIZE, jnp.int8), inside


@pytest.mark.parametrize("seed", range(8))
def test_a_drawn_metastasis_lies_in_the_brain_and_is_bright_on_t1c(seed):
    image, labels, inside = brain()
    look = NewLesions(radius_vox=(1.5, 3.5))
    new_image, new_labels = draw_lesion(
        image, labels, key=jax.random.key(seed), look=look
    )
    added = np.asarray(new_labels) > 0
    assert added.any()
    assert inside[added].mean() > 0.97
    enhancing = np.asarray(new_labels) == 3
    assert (new_image - image)[enhancing][:, 0].mean() > 0.5
    assert not np.any(new_image[~inside])
    far = np.asarray(new_image != image).any(-1)
    assert far.sum() < 4 * added.sum() + 100  # only around the lesion


def test_existing_lesions_are_left_alone():
    image, labels, inside = brain()
    labels = labels.at[5:20, 5:20, 5:20].set(2)
    for seed in range(5):
        _, new = draw_lesion(image, labels, key=jax.random.key(seed), look=NewLesions())
        changed = np.asarray(new != labels)
        assert np.sum(changed & np.asarray(labels > 0)) <= 0.03 * np.sum(changed)


def test_without_room_nothing_is_added():
    image, labels, _ = brain()
    full = jnp.full_like(labels, 2)
    new_image, new_labels = draw_lesion(
        image, full, key=jax.random.key(0), look=NewLesions()
    )
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_labels, full)


def donor():
    """A small lesion, two above the tissue around it, which is darker than ours."""
    image = np.full((12, 12, 12, 4), -1.0, np.float32)
    labels = np.zeros((12, 12, 12), np.int8)
    labels[5:8, 5:8, 5:7] = 3
    image[labels > 0] += 2
    return jnp.asarray(image), jnp.asarray(labels)


@pytest.mark.parametrize("seed", range(4))
def test_a_pasted_lesion_keeps_its_size_and_what_it_adds(seed):
    image, labels, inside = brain()
    new_image, new_labels = paste_lesion(
        image, labels, *donor(), key=jax.random.key(seed)
    )
    added = np.asarray(new_labels) == 3
    assert added.sum() == 18 and inside[added].all()
    np.testing.assert_allclose(new_image[added].mean(), 0.5 + 2, atol=0.15)


def test_a_donor_without_a_lesion_changes_nothing():
    image, labels, _ = brain()
    donor_image, donor_labels = donor()
    new_image, new_labels = paste_lesion(
        image, labels, donor_image, 0 * donor_labels, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_labels, labels)


def test_a_look_for_other_channels_is_refused():
    image, labels, _ = brain()
    with pytest.raises(ValueError, match="has 2 channels, but new_lesions.enhancement"):
        draw_lesion(image[..., :2], labels, key=jax.random.key(0), look=NewLesions())
