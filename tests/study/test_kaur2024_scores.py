"""The 2-D study's measures over several batches, against tf.keras' arithmetic."""

import math

import numpy as np
import pytest

from bmjax.metrics import pixel
from bmjax.study.iou_beside_dice import iou_of_dice, saturation_for
from bmjax.study.scores2d import Tally, batch_sums

CLASSES = ("NETC", "SNFH", "ET")


def softmax_batches(rng, num_batches=3):
    """Probabilities, some of exactly 1, and labels, of batches of 2, 2, ..., 1."""
    for i in range(num_batches):
        shape = (1 if i == num_batches - 1 else 2, 6, 5, 4)
        probs = rng.dirichlet((0.3,) * 4, shape[:-1]).astype(np.float32)
        sure = rng.random(shape[:-1]) < 0.4
        probs[sure] = np.eye(4, dtype=np.float32)[rng.integers(0, 4, sure.sum())]
        yield probs, rng.integers(0, 4, shape[:-1]).astype(np.int8)


def tally_of(batches, losses=None):
    tally = Tally(CLASSES)
    for i, (probs, labels) in enumerate(batches):
        loss = losses[i] if losses else 0.0
        exams = [f"exam-{i}"] * len(labels)
        tally.add(batch_sums(probs, labels), loss=loss, exams=exams)
    return tally


class KerasMeanIoU:
    """tf.keras.metrics.MeanIoU as its source computes: a confusion matrix, by hand."""

    def __init__(self, num_classes):
        self.matrix = np.zeros((num_classes, num_classes))

    def update_state(self, y_true, y_pred):
        # tf.cast to an integer type truncates; tf.math.confusion_matrix counts
        true = y_true.astype(np.int64).ravel()
        said = y_pred.astype(np.int64).ravel()
        np.add.at(self.matrix, (true, said), 1)

    def result(self):
        diagonal = np.diag(self.matrix)
        below = self.matrix.sum(0) + self.matrix.sum(1) - diagonal
        num_valid = np.count_nonzero(below)
        # tf.math.divide_no_nan of the sum over valid entries
        ious = np.divide(diagonal, below, out=np.zeros(4), where=below > 0)
        return ious.sum() / num_valid


def test_mean_iou_is_that_of_keras_over_all_batches(rng):
    batches = list(softmax_batches(rng))
    keras = KerasMeanIoU(4)
    for probs, labels in batches:
        keras.update_state(np.eye(4)[labels], probs)
    found = tally_of(batches).scores()["legacy_iou"]
    assert found == pytest.approx(keras.result())
    # and not the mean over batches
    means = [
        pixel.legacy_mean_iou(p, np.eye(4, dtype=np.float32)[t]) for p, t in batches
    ]
    assert found != pytest.approx(np.mean(means), abs=1e-4)


def test_mean_iou_of_five_unsure_samples_is_three_eighths():
    probs = np.full((5, 1, 1, 4), 0.25, np.float32)
    labels = np.array([0, 1, 2, 3, 0], np.int8).reshape(5, 1, 1)
    tally = Tally(CLASSES)
    tally.add(batch_sums(probs, labels), loss=0.0, exams=list("abcde"))
    scores = tally.scores()
    # zeros: 15 agree of 20; ones: none of 5
    assert scores["legacy_iou"] == pytest.approx((15 / 20 + 0 / 5) / 2)
    assert scores["saturated"] == 0


def test_legacy_rates_are_means_over_batches_however_large(rng):
    batches = list(softmax_batches(rng))
    scores = tally_of(batches).scores()
    for name in ("dice", "precision", "sensitivity", "specificity"):
        of_batch = getattr(pixel, f"legacy_{name}")
        by_hand = [of_batch(p, np.eye(4, dtype=np.float32)[t]) for p, t in batches]
        assert scores[f"legacy_{name}"] == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_loss_weighs_samples_and_accuracy_pixels(rng):
    batches = list(softmax_batches(rng, num_batches=2))  # of 2 samples and of 1
    scores = tally_of(batches, losses=[3.0, 9.0]).scores()
    assert scores["loss"] == pytest.approx((2 * 3.0 + 9.0) / 3)
    right = sum((p.argmax(-1) == t).sum() for p, t in batches)
    assert scores["accuracy"] == pytest.approx(right / 90)


def one_hot_of(labels):
    return np.eye(4, dtype=np.float32)[np.asarray(labels, int)]


def test_sound_measures_by_hand():
    truth = np.array([[[3, 3, 1, 0, 0, 0]], [[2, 0, 0, 0, 0, 0]]], np.int8)
    said = np.array([[[3, 1, 0, 2, 0, 0]], [[0, 0, 0, 0, 0, 0]]])
    tally = Tally(CLASSES)
    tally.add(batch_sums(one_hot_of(said), truth), loss=0.0, exams=["a", "b"])
    scores = tally.scores()
    # exam a: tp 2, fp 1, fn 1, tn 2; exam b: fn 1, tn 5
    assert scores["dice"] == pytest.approx((4 / 6 + 0) / 2)
    assert scores["iou"] == pytest.approx((2 / 4 + 0) / 2)
    assert scores["precision"] == pytest.approx(2 / 3)  # b says nothing: undefined
    assert scores["sensitivity"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["specificity"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["pooled_dice"] == pytest.approx(4 / (4 + 1 + 2))
    assert scores["dice_ET"] == pytest.approx(2 / 3)  # of a alone
    assert scores["dice_NETC"] == 0
    assert scores["pooled_iou_ET"] == pytest.approx(1 / 2)
    first = tally.by_exam()[0]
    assert (first["exam"], first["class"]) == ("a", "lesion")
    assert first["dice"] == pytest.approx(4 / 6)


def test_slices_of_one_exam_are_pooled_across_batches():
    truth = np.array([[[1, 1]], [[1, 0]]], np.int8)
    said = np.array([[[1, 0]], [[1, 1]]])
    tally = Tally(CLASSES)
    for i in range(2):
        sums = batch_sums(one_hot_of(said[i : i + 1]), truth[i : i + 1])
        tally.add(sums, loss=0.0, exams=["a"])
    assert tally.scores()["dice"] == pytest.approx(4 / 6)
    assert len(tally.by_exam()) == 4


def test_a_class_that_is_nowhere_is_undefined_not_zero():
    nothing = np.zeros((1, 2, 2), np.int8)
    tally = Tally(CLASSES)
    tally.add(batch_sums(one_hot_of(nothing), nothing), loss=0.0, exams=["a"])
    scores = tally.scores()
    assert math.isnan(scores["dice"]) and math.isnan(scores["sensitivity_ET"])
    assert scores["specificity"] == 1
    # the legacy Dice calls it perfect
    assert scores["legacy_dice"] == pytest.approx(1)


def test_the_share_of_sure_pixels_behind_the_published_iou():
    share = saturation_for(0.9681)
    # ones: s; zeros: three of 4 - s
    assert (share + 3 / (4 - share)) / 2 == pytest.approx(0.9681)
    assert 0.95 < share < 0.955
    assert saturation_for(0.375) == pytest.approx(0)
    assert saturation_for(1.0) == pytest.approx(1)


def test_iou_of_dice_is_that_of_the_same_mask():
    one, other = np.array([1, 1, 1, 0, 0]), np.array([0, 1, 1, 1, 1])
    dice = float(pixel.dice_foreground(one, other))
    assert iou_of_dice(dice) == pytest.approx(pixel.iou_foreground(one, other))
