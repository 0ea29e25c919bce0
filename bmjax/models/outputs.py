"""Of what a network returns, the output that predicts."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
from flax import linen as nn


@cache
def first_output(model: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """A network as a function of its variables and images: its finest logits.

    The same function object for equal networks, so that what is compiled with it is
    compiled once.
    """

    def apply(variables: Any, image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, image, is_training=False)
        return outputs[0]

    return apply
