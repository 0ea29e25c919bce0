"""Logits and gradients of small networks in float64, to rounding."""

from functools import partial

import jax
import numpy as np
import pytest
from pairs import (
    SMALL_NETS,
    channels_last,
    distance,
    draw_image,
    gradients_of,
    is_inert,
    make_pair,
    outputs_of,
)

from bmjax.surgery import flatten

pytestmark = pytest.mark.parity

UNOPTIMISED = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module", params=SMALL_NETS)
def both(request):
    """Logits, and gradients of one random projection of them, of both networks."""
    import torch

    model, size = SMALL_NETS[request.param]
    image = draw_image(*size, dtype="float64")
    pair = make_pair(model, num_axes=len(size), dtype="float64")
    outputs = outputs_of(pair.net, image)
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=tuple(x.shape)) for x in outputs]
    sum(
        (x * torch.from_numpy(w)).sum() for x, w in zip(outputs, weights, strict=True)
    ).backward()
    theirs = [channels_last(x.detach()) for x in outputs], gradients_of(pair)

    @partial(jax.grad, has_aux=True)
    def projection(params, image):
        outputs = model.apply({"params": params}, image, is_training=True)
        pairs = zip(outputs, map(channels_last, weights), strict=True)
        return sum((x * w).sum() for x, w in pairs), outputs

    with jax.enable_x64(True):
        # compiled in half the time; speed does not matter here
        jitted = jax.jit(projection, compiler_options=UNOPTIMISED)
        grads, outputs = jitted(pair.params, image)
    return (outputs, flatten(grads)), theirs


def test_logits_agree_to_rounding(both):
    (ours, _), (theirs, _) = both
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype == np.float64
        assert distance(mine, other) < 1e-10


def test_gradients_of_every_parameter_agree_to_rounding(both):
    (_, ours), (_, theirs) = both
    assert list(ours) == list(theirs)
    for path, grad in ours.items():
        if is_inert(path, theirs):
            # the norm takes the bias out: what torch finds is rounding
            kernel = theirs[path.replace("bias", "kernel")]
            assert np.linalg.norm(theirs[path]) < 1e-10 * np.linalg.norm(kernel), path
            assert not np.any(grad), path
        else:
            assert distance(grad, theirs[path]) < 1e-8, path
