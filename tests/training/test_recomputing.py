"""What the training step keeps for its backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import losses, models, sharding
from bmjax.training import Optimizer, initial_state, make_train_step

REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))


def compiled(recompute_norms):
    model = models.PlainUNet(features=(8, 8), num_classes=3)
    optimizer = Optimizer(num_steps=10).transformation()
    step = make_train_step(
        model=model,
        loss=losses.DiceBCE(),
        augment=lambda image, labels, *, keys: (image, labels),
        optimizer=optimizer,
        regions=REGIONS,
        seed=0,
        recompute_norms=recompute_norms,
    )
    image = jax.random.normal(jax.random.key(1), (2, 32, 32, 32, 4))
    labels = jax.random.randint(jax.random.key(2), (2, 32, 32, 32), 0, 4, jnp.int8)
    batch = {"image": image, "labels": labels}
    state = initial_state(model.init(jax.random.key(0), image), optimizer)
    step = sharding.parallelise(step, sharding.data_mesh(jax.devices()[:1]))
    return step.lower(state, batch).compile(), state, batch


@pytest.mark.slow
def test_recomputed_norms_take_less_memory_and_change_no_parameter():
    kept, state, batch = compiled(recompute_norms=False)
    recomputed, *_ = compiled(recompute_norms=True)
    memory = [p.memory_analysis().temp_size_in_bytes for p in (kept, recomputed)]
    assert memory[1] < 0.85 * memory[0]
    copy = jax.tree.map(jnp.copy, state)  # the programs consume their state
    (one, metrics), (other, same) = kept(state, batch), recomputed(copy, batch)
    np.testing.assert_allclose(metrics["loss"], same["loss"], rtol=1e-6)
    for a, b in zip(
        jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
