import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import expit

from bmjax import losses


def draw(seed, shape=(2, 5, 6, 7, 2), share=0.15):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * 2, (rng.random(shape) < share).astype(float)


def one_by_one(logits, targets, valid, smooth=1e-5):
    """The definition: a loop over lesions, each without the voxels of the others."""
    means = []
    for b, k in np.ndindex(len(logits), logits.shape[-1]):
        x, y, counts = logits[b, ..., k], targets[b, ..., k] > 0, valid[b] > 0
        numbers, num = ndimage.label(y & counts, np.ones((3,) * x.ndim))
        found = []
        for i in range(1, num + 1):
            seen = counts & ((numbers == i) | ~y)
            truth, p = (numbers == i)[seen], expit(x[seen])
            dice = (2 * p[truth].sum() + smooth) / (p.sum() + truth.sum() + smooth)
            entropy = np.logaddexp(0, np.where(truth, -x[seen], x[seen])).mean()
            found.append(entropy - dice)
        if found:
            means.append(np.mean(found))
    return np.mean(means) if means else 0.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_all_lesions_at_once_are_as_one_by_one(seed, share):
    logits, targets = draw(seed, share=share)
    valid = (np.random.default_rng(seed + 1).random(logits.shape[:-1]) > 0.2) * 1.0
    with jax.enable_x64(True):
        ours = losses.blob_loss(
            jnp.asarray(logits), jnp.asarray(targets), valid=jnp.asarray(valid)
        )
    np.testing.assert_allclose(ours, one_by_one(logits, targets, valid), rtol=1e-10)


def test_a_small_missed_lesion_costs_as_much_as_a_large_one():
    targets = np.zeros((1, 16, 16, 1), np.float32)
    targets[0, 1:3, 1:3] = targets[0, 6:14, 6:14] = 1
    sure = 20 * (2 * targets - 1)

    def cost(missed):
        logits = sure.copy()
        logits[missed] = -20
        return losses.blob_loss(
            jnp.asarray(logits), jnp.asarray(targets), bce_weight=0.0
        )

    small, large = cost(np.s_[0, 1:3, 1:3]), cost(np.s_[0, 6:14, 6:14])
    np.testing.assert_allclose(small, large, atol=1e-4)
    np.testing.assert_allclose(small, -0.5, atol=1e-4)


@pytest.mark.parametrize("magnitude", [0.0, 80.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_loss_and_gradient_are_finite(magnitude, dtype, share):
    _, targets = draw(3, share=share)
    logits = jnp.asarray(magnitude * (1 - 2 * targets), dtype)
    loss = losses.BlobDiceBCE()
    value, grads = jax.value_and_grad(loss)(logits, jnp.asarray(targets, jnp.float32))
    assert np.isfinite(value) and np.isfinite(np.asarray(grads, np.float32)).all()


def test_parts_are_weighted():
    logits, targets = (jnp.asarray(x, jnp.float32) for x in draw(5))
    whole = losses.DiceBCE()(logits, targets)
    each = losses.blob_loss(logits, targets)
    both = losses.BlobDiceBCE(global_weight=3.0, blob_weight=0.5)(logits, targets)
    np.testing.assert_allclose(both, 3 * whole + 0.5 * each, rtol=1e-5)


def test_devices_share_the_batch_and_change_nothing():
    logits, targets = (jnp.asarray(x, jnp.float32) for x in draw(6, (8, 4, 5, 6, 2)))
    targets = targets.at[:3].set(0)  # some devices have no lesion at all
    spread = (x.reshape(8, 1, *x.shape[1:]) for x in (logits, targets))
    found = jax.pmap(
        lambda x, y: losses.blob_loss(x, y, axis_name="data"), axis_name="data"
    )(*spread)
    np.testing.assert_allclose(found, losses.blob_loss(logits, targets), rtol=1e-5)
