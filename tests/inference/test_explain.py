"""Attributions: those of known functions, and of a small network by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmjax import models
from bmjax.inference.explain import (
    grad_cam,
    integrated_gradients,
    occlusion,
    window_around,
)
from bmjax.models.probing import apply_shifted, deepest_encoder_stage, layers


@pytest.fixture(scope="module")
def small():
    """A two-stage network, its variables, a window and a lesion in it."""
    model = models.PlainUNet(features=(4, 6), num_classes=2)
    image = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image[None])
    rng = np.random.default_rng(1)
    variables = jax.tree.map(
        lambda x: jnp.float32(rng.normal(size=x.shape, scale=0.3)), shapes
    )
    mask = np.zeros((8, 8, 8), bool)
    mask[2:5, 3:6, 4:7] = True
    return model, variables, image, mask


def test_integrated_gradients_of_a_linear_network_are_its_terms(rng):
    mix = rng.normal(size=(3, 2)).astype(np.float32)
    image = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    mask = rng.random((4, 5, 6)) > 0.5
    got = integrated_gradients(lambda x: x @ mix, image, mask, region=1, num_steps=3)
    want = image * mix[:, 1] * mask[..., None] / mask.sum()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_integrated_gradients_add_up_to_what_the_image_changes(rng):
    def network(x):
        return jnp.stack([jnp.tanh(x).prod(-1), jnp.exp(x.mean(-1))], axis=-1)

    image = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    mask = rng.random((4, 5, 6)) > 0.5
    for region in (0, 1):
        shares = integrated_gradients(network, image, mask, region=region, num_steps=64)
        ends = [
            np.asarray(network(jnp.asarray(x)))[mask][:, region].mean()
            for x in (image, 0 * image)
        ]
        np.testing.assert_allclose(shares.sum(), ends[0] - ends[1], rtol=1e-3)


def test_occlusion_blames_the_channel_that_the_network_reads(rng):
    def network(x):
        return jnp.stack([x[..., 1], 2 - x[..., 2]], axis=-1)

    image = rng.uniform(1, 2, size=(4, 5, 6, 3)).astype(np.float32)
    falls = occlusion(network, image, region=0)
    want = 1 / (1 + np.exp(-image[..., 1])) - 0.5
    np.testing.assert_allclose(falls[..., 1], want, rtol=1e-4)
    assert not falls[..., [0, 2]].any()
    falls = occlusion(network, image, region=1)
    assert (falls[..., 2] < 0).all()  # without it the probability rises


def test_a_gradient_by_a_shift_is_that_by_differences(small):
    model, variables, image, mask = small
    layer = deepest_encoder_stage(model, variables, image[None])
    assert layer == "encoder/stage_1"
    shape = layers(model, variables, image[None])[layer]

    @jax.jit
    def score(shift):
        logits, _ = apply_shifted(
            model, variables, jnp.asarray(image)[None], layer=layer, shift=shift
        )
        return (logits[0, ..., 1] * mask).sum() / mask.sum()

    plain = jax.jit(model.apply)(variables, image[None])[0][0, ..., 1]
    zero = jnp.zeros(shape)
    np.testing.assert_allclose(
        score(zero), np.asarray(plain)[mask].mean(), rtol=1e-4, atol=1e-5
    )
    direction = jax.random.normal(jax.random.key(1), shape)
    step = 1e-2
    want = (score(step * direction) - score(-step * direction)) / (2 * step)
    got = (jax.grad(score)(zero) * direction).sum()
    np.testing.assert_allclose(got, want, rtol=2e-2)


def test_grad_cam_is_a_map_from_zero_to_one_on_the_window(small):
    model, variables, image, mask = small
    cam = grad_cam(model, variables, image, mask, region=0, layer="decoder/stage_0")
    assert cam.shape == mask.shape
    assert cam.min() >= 0 and cam.max() == pytest.approx(1)
    other = grad_cam(model, variables, image, mask, region=1, layer="decoder/stage_0")
    assert np.abs(cam - other).max() > 0.01


def test_a_layer_that_is_not_there_is_refused_with_those_that_are(small):
    model, variables, image, mask = small
    with pytest.raises(ValueError, match="no layer 'x'; there are .*encoder/stage_0"):
        grad_cam(model, variables, image, mask, region=0, layer="x")
    with pytest.raises(ValueError, match="'x' was called 0 times"):
        apply_shifted(
            model, variables, jnp.asarray(image)[None], layer="x", shift=jnp.zeros(())
        )


@given(
    st.tuples(*[st.integers(1, 20)] * 3),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.integers(0, 2**32 - 1),
)
def test_a_window_lies_in_the_volume_and_holds_the_lesions_centre(size, window, seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    place = tuple(int(rng.integers(n)) for n in size)
    mask[place] = True
    box, padding = window_around(mask, window)
    assert mask[box].any()
    padded = np.pad(mask[box], padding)
    assert padded.shape == window


def test_a_2d_window_is_the_slice_with_most_of_the_lesion():
    mask = np.zeros((6, 8, 8), bool)
    mask[1, 2:4, 2:4] = True
    mask[4, 2:7, 2:7] = True
    box, _ = window_around(mask, (4, 4))
    assert box[0] == slice(4, 5) and mask[box].shape == (1, 4, 4)
