"""Regions of classes: their probabilities are sums, and an experiment holds them."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import numpy as jnp
from scipy.special import expit, softmax

from bmjax import Experiment, models

REGIONS = ((1, 2, 3), (1, 3), (3,))


class Given(nn.Module):
    """A network that hands on its input as logits."""

    @nn.compact
    def __call__(self, image, *, is_training=False):
        return (image,)


def regions_of(logits, probs):
    net = models.RegionsOfClasses(net=Given(), regions=REGIONS, probs=probs)
    (found,) = net.apply({}, jnp.asarray(logits))
    return np.asarray(found)


@pytest.fixture
def logits(rng):
    return rng.normal(0, 4, (2, 5, 6, 4)).astype(np.float32)


def test_a_region_is_as_probable_as_its_classes_together(logits):
    classes = softmax(logits.astype(np.float64), axis=-1)
    found = expit(regions_of(logits, "softmax").astype(np.float64))
    for i, members in enumerate(REGIONS):
        expected = classes[..., list(members)].sum(-1)
        np.testing.assert_allclose(found[..., i], expected, rtol=1e-5, atol=1e-7)


def test_with_a_sigmoid_a_region_is_as_probable_as_its_likeliest_class(logits):
    found = regions_of(logits, "sigmoid")
    for i, members in enumerate(REGIONS):
        np.testing.assert_array_equal(found[..., i], logits[..., list(members)].max(-1))


def test_sure_logits_give_finite_regions():
    logits = np.zeros((1, 1, 1, 4), np.float32)
    logits[..., 3] = 200
    found = regions_of(logits, "softmax")
    assert np.isfinite(found).all() and (found > 100).all()


def test_an_experiment_with_regions_comes_back_from_its_text():
    net = models.ConvNet(num_classes=4, features=(2, 4))
    wrapped = models.RegionsOfClasses(net=net, regions=REGIONS)
    experiment = Experiment(model=wrapped)
    assert Experiment.from_json(experiment.to_json()) == experiment
    image = jax.ShapeDtypeStruct((1, 8, 8, 4), jnp.float32)
    own = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    found = jax.eval_shape(wrapped.init, jax.random.key(0), image)["params"]
    assert found == {"net": own}
