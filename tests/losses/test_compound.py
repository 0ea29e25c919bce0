import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax import losses
from bmjax.losses.compound import deep_supervision_weights

ALL = [
    losses.DiceBCE(),
    losses.DiceBCE(batch_dice=True),
    losses.DiceCE(),
    losses.TverskyBCE(),
    losses.CrossEntropy(),
    losses.BinaryCrossEntropy(positive_weight=3.0),
    losses.TverskyBCE(voxel_weight=0.0, positive_weight=10.0),
]
REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))


def draw(seed, shape=(2, 4, 5, 6, 3)):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(size=shape) * 3, jnp.float32)
    targets = jnp.asarray(rng.random(shape) > 0.7, jnp.float32)
    return logits, targets


def test_weights_of_five_outputs_are_those_of_nnunet():
    weights = deep_supervision_weights(5)
    np.testing.assert_allclose(weights, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0], rtol=1e-6)
    assert deep_supervision_weights(1) == (1.0,)


def test_regions_of_the_brats_labels():
    labels = jnp.arange(4)[None]
    targets = losses.region_targets(labels, REGIONS)
    expected = [[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]]
    np.testing.assert_array_equal(targets[0], expected)


def test_shrinking_takes_the_voxel_nearest_to_the_coarse_centre():
    labels = jnp.arange(8)[None]
    np.testing.assert_array_equal(losses.shrink_labels(labels, (4,)), [[1, 3, 5, 7]])
    np.testing.assert_array_equal(losses.shrink_labels(labels, (2,)), [[2, 6]])


@pytest.mark.parametrize("loss", ALL)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_the_batch_does_not_matter(loss, seed):
    logits, targets = draw(seed)
    ours = loss(logits, targets)
    np.testing.assert_allclose(ours, loss(logits[::-1], targets[::-1]), rtol=1e-5)


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("magnitude", [0.0, 80.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("truth", ["empty", "full", "voxel"])
def test_loss_and_gradient_are_finite(loss, magnitude, dtype, truth):
    targets = np.zeros((2, 3, 3, 3, 3), np.float32)
    if truth == "full":
        targets[:] = 1
    if truth == "voxel":
        targets[0, 1, 1, 1] = 1
    sign = np.random.default_rng(0).choice([-1, 1], targets.shape)
    logits = jnp.asarray(magnitude * sign, dtype)
    value, gradient = jax.value_and_grad(loss)(logits, jnp.asarray(targets))
    assert np.isfinite(value)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_perfect_prediction_has_the_least_loss():
    _, targets = draw(0)
    assert losses.DiceBCE()(80 * (2 * targets - 1), targets) < -0.999
    assert losses.TverskyBCE()(80 * (2 * targets - 1), targets) < 1e-3


def test_dice_of_two_empty_masks_is_one():
    empty = jnp.zeros((1, 4, 4, 2))
    assert losses.soft_dice(empty, empty) == 1


def test_dice_by_hand():
    probs = jnp.asarray([[[0.5], [1.0], [0.0]]])
    targets = jnp.asarray([[[1.0], [1.0], [0.0]]])
    np.testing.assert_allclose(losses.soft_dice(probs, targets), 3 / 3.5, rtol=1e-5)


def test_ignored_voxels_do_not_change_the_loss():
    logits, targets = draw(3)
    valid = jnp.ones(logits.shape[:-1]).at[:, 0].set(0)
    changed = logits.at[:, 0].add(7.0)
    for loss in ALL:
        np.testing.assert_allclose(
            loss(logits, targets, valid=valid),
            loss(changed, targets, valid=valid),
            rtol=1e-6,
        )


def test_deep_supervision_of_one_output_is_the_loss_itself():
    labels = jnp.asarray(np.random.default_rng(0).integers(0, 4, (2, 4, 4, 4)))
    logits = draw(1, (2, 4, 4, 4, 3))[0]

    def targets_of(x):
        return losses.region_targets(x, REGIONS)

    lifted = losses.DeepSupervision(loss=losses.DiceBCE())
    alone = losses.DiceBCE()(logits, targets_of(labels))
    np.testing.assert_allclose(lifted([logits], labels, targets_of), alone, rtol=1e-6)


def test_wrong_number_of_weights_is_refused():
    lifted = losses.DeepSupervision(loss=losses.DiceBCE(), weights=(0.5, 0.5))
    with pytest.raises(ValueError, match="2 deep-supervision weights for 1 outputs"):
        lifted([jnp.zeros((1, 2, 2, 3))], jnp.zeros((1, 2, 2), int), lambda x: x)
