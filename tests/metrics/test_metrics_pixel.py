"""The 2-D study's metrics: the legacy ones as its framework computes them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.metrics import pixel

NUM_CLASSES = 4


def batch(rng, shape=(5, 8, 8)):
    """Softmax probabilities and one-hot targets."""
    logits = rng.normal(size=(*shape, NUM_CLASSES)).astype(np.float32)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = rng.integers(0, NUM_CLASSES, shape)
    return probs, np.eye(NUM_CLASSES, dtype=np.float32)[truth]


def test_legacy_mean_iou_begins_at_three_eighths(rng):
    probs, onehot = batch(rng)
    assert probs.max() < 1
    assert pixel.legacy_mean_iou(probs, onehot) == pytest.approx(0.375)


def test_legacy_mean_iou_counts_saturated_pixels_only():
    probs = np.array([[1, 0, 0, 0], [0.9, 0.1, 0, 0]], np.float32)
    onehot = np.array([[1, 0, 0, 0], [1, 0, 0, 0]], np.float32)
    # ones: 1 said of 2; zeros: 6 of 7, the second pixel's probability cut to zero
    assert pixel.legacy_mean_iou(probs, onehot) == pytest.approx((1 / 2 + 6 / 7) / 2)


def test_the_published_iou_needs_about_95_percent_of_saturated_pixels():
    share = 0.952  # ones: s; zeros: 3 / (4 - s), of four channels
    expected = (share + 3 / (4 - share)) / 2
    num = 1000
    probs = np.zeros((num, NUM_CLASSES), np.float32)
    probs[:, 0] = np.where(np.arange(num) < share * num, 1.0, 0.99)
    onehot = np.zeros_like(probs)
    onehot[:, 0] = 1
    found = pixel.legacy_mean_iou(probs, onehot)
    assert found == pytest.approx(expected)
    assert found == pytest.approx(0.9681, abs=5e-4)


def test_legacy_dice_smooths_and_takes_background_in():
    probs = np.array([[0.75, 0.25], [0.5, 0.5]])
    onehot = np.array([[1.0, 0.0], [0.0, 1.0]])
    by_class = [(2 * 0.75 + 1) / (1.25 + 1 + 1), (2 * 0.5 + 1) / (0.75 + 1 + 1)]
    assert pixel.legacy_dice(probs, onehot) == pytest.approx(np.mean(by_class))
    of_one = 2 * 0.5 / (0.25**2 + 0.5**2 + 1 + 1e-6)
    found = pixel.legacy_dice_of_class(probs, onehot, index=1)
    assert found == pytest.approx(of_one)


def test_legacy_rates_pool_all_channels():
    probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
    onehot = np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]])
    # rounded: 0.5 becomes 0, as banker's rounding in TensorFlow
    assert pixel.legacy_precision(probs, onehot) == pytest.approx(2 / (2 + 1e-7))
    assert pixel.legacy_sensitivity(probs, onehot) == pytest.approx(2 / (3 + 1e-7))
    # zeros of the code: 6; 1 - p rounds to 1 but for 0.5
    assert pixel.legacy_specificity(probs, onehot) == pytest.approx(5 / (6 + 1e-7))


def test_legacy_numbers_hide_a_missed_lesion():
    """The paper's pattern: near-perfect rates beside a useless segmentation."""
    onehot = np.zeros((1, 100, 100, NUM_CLASSES), np.float32)
    onehot[..., 0] = 1
    onehot[0, :5, :5] = (0, 0, 0, 1)
    probs = np.zeros_like(onehot)
    probs[..., 0] = 1  # nothing found
    labels, truth = probs.argmax(-1), onehot.argmax(-1)
    assert pixel.legacy_precision(probs, onehot) > 0.997
    assert pixel.legacy_mean_iou(probs, onehot) > 0.99
    assert pixel.legacy_dice(probs, onehot) > 0.7
    assert pixel.iou_foreground(labels, truth) == 0
    assert pixel.dice_foreground(labels, truth) == 0


def test_sound_iou_by_hand():
    labels, truth = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1])
    ious = pixel.iou_by_class(labels, truth, k=4)
    np.testing.assert_allclose(ious, [1 / 2, 2 / 4, 0, math.nan])
    assert pixel.mean_iou(labels, truth, k=4) == pytest.approx(1 / 3)
    assert pixel.mean_iou_foreground(labels, truth, k=4) == pytest.approx(1 / 4)
    assert pixel.iou_foreground(labels, truth) == pytest.approx(3 / 4)
    assert pixel.dice_foreground(labels, truth) == pytest.approx(6 / 7)


def test_without_any_lesion_foreground_measures_are_undefined():
    nothing = np.zeros(6, int)
    assert np.isnan(pixel.dice_foreground(nothing, nothing))
    assert np.isnan(pixel.mean_iou_foreground(nothing, nothing, k=4))


def test_accuracy_is_the_share_of_right_pixels():
    probs = np.array([[0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    onehot = np.array([[1.0, 0], [1, 0], [1, 0]])
    assert pixel.accuracy(probs, onehot) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "measure",
    [
        pixel.accuracy,
        pixel.legacy_dice,
        pixel.legacy_precision,
        pixel.legacy_sensitivity,
        pixel.legacy_specificity,
        pixel.legacy_mean_iou,
    ],
)
def test_the_same_under_jit(measure, rng):
    probs, onehot = batch(rng)
    inside = jax.jit(measure)(jnp.asarray(probs), jnp.asarray(onehot))
    np.testing.assert_allclose(inside, measure(probs, onehot), rtol=1e-5)


def test_sound_iou_is_the_same_under_jit(rng):
    labels, truth = rng.integers(0, NUM_CLASSES, (2, 5, 8, 8))
    inside = jax.jit(lambda a, b: pixel.iou_by_class(a, b, k=NUM_CLASSES))
    np.testing.assert_allclose(
        inside(jnp.asarray(labels), jnp.asarray(truth)),
        pixel.iou_by_class(labels, truth, k=NUM_CLASSES),
        rtol=1e-6,
    )
