"""What tells one network's predictions from another's."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bmjax.inference.record import model_digest


def apply(params, image):
    return image * params["a"][0]


def test_a_digest_of_a_network_is_that_of_its_parameters():
    params = {"a": jnp.arange(3.0), "b": {"c": jnp.zeros((2, 2), jnp.bfloat16)}}
    digest = model_digest(Partial(apply, params))
    assert digest == model_digest(Partial(lambda p, x: x, params))
    changed = jax.tree.map(lambda leaf: leaf + 1, params)
    assert digest != model_digest(Partial(apply, changed))
    moved = {"a": params["b"]["c"], "b": {"c": params["a"]}}
    assert digest != model_digest(Partial(apply, moved))


def test_a_function_without_visible_parameters_equals_no_other():
    def forward(image):
        return image

    assert model_digest(forward) != model_digest(forward)
