"""Parts of a batch, running means of parameters, and factors of the rate."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import losses, models, sharding
from bmjax.training import (
    Optimizer,
    from_items,
    initial_state,
    make_train_step,
    to_items,
)

REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))
NET = models.PlainUNet(
    features=(4, 8), strides=((1, 1), (2, 2)), kernel_sizes=((3, 3),) * 2, num_classes=3
)


def same(image, labels, *, keys):
    return image, labels


def batch(size=8):
    rng = np.random.default_rng(0)
    return {
        "image": rng.normal(size=(size, 16, 16, 4)).astype(np.float32),
        "labels": rng.integers(0, 4, (size, 16, 16)).astype(np.int8),
    }


def stepped(*, devices=1, num_steps=3, lr_factor=1.0, net=NET, **choices):
    """The state after some steps, and the first loss."""
    spec = Optimizer(num_steps=10, schedule="constant", momentum=0.5, **choices)
    update = spec.transformation()
    step = make_train_step(
        model=net,
        loss=losses.DiceBCE(batch_dice=False),
        augment=same,
        optimizer=update,
        regions=REGIONS,
        seed=0,
        accumulate=spec.accumulate,
        ema_decay=spec.ema_decay,
    )
    mesh = sharding.data_mesh(jax.devices()[:devices])
    run = sharding.parallelise(step, mesh)
    variables = net.init(jax.random.key(0), jnp.zeros((1, 16, 16, 4)))
    state = initial_state(variables, update, ema_decay=spec.ema_decay)
    state = dataclasses.replace(state, lr_factor=jnp.float32(lr_factor))
    state = sharding.replicate(state, mesh)
    placed = sharding.put_batch(batch(), mesh)
    seen, losses_seen = [], []
    for _ in range(num_steps):
        state, metrics = run(state, placed)
        losses_seen.append(float(metrics["loss"]))
        seen.append(jax.device_get(state.variables["params"]))
    return state, seen, losses_seen


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(jax.device_get(tree))])


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_batch_in_parts_changes_the_network_as_the_whole_does(parts, devices):
    whole, _, expected = stepped()
    state, _, found = stepped(accumulate=parts, devices=devices)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    ours, theirs = (flat(s.variables["params"]) for s in (state, whole))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_running_mean_is_that_of_the_parameters_after_each_step():
    state, seen, _ = stepped(ema_decay=0.999, num_steps=3)
    variables = NET.init(jax.random.key(0), jnp.zeros((1, 16, 16, 4)))
    mean = flat(variables["params"])
    for done, params in enumerate(seen):
        keep = min(0.999, (1 + done) / (10 + done))
        mean = keep * mean + (1 - keep) * flat(params)
    np.testing.assert_allclose(flat(state.ema), mean, atol=1e-6)
    np.testing.assert_array_equal(flat(state.averaged["params"]), flat(state.ema))


def test_a_running_mean_leaves_the_training_alone():
    plain, with_mean = stepped()[0], stepped(ema_decay=0.9)[0]
    ours, theirs = (flat(s.variables["params"]) for s in (plain, with_mean))
    np.testing.assert_array_equal(ours, theirs)
    assert plain.ema is None


def test_a_factor_of_the_rate_scales_the_step():
    start = flat(NET.init(jax.random.key(0), jnp.zeros((1, 16, 16, 4)))["params"])
    whole, half = (
        flat(stepped(num_steps=1, lr_factor=f)[0].variables["params"]) - start
        for f in (1.0, 0.5)
    )
    np.testing.assert_allclose(half, whole / 2, atol=1e-7)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_a_checkpoint_holds_the_whole_state_and_the_mean_to_predict_with(decay):
    state, _, _ = stepped(ema_decay=decay, lr_factor=0.5)
    variables, rest = to_items(state)
    np.testing.assert_array_equal(flat(variables), flat(state.averaged))
    back = from_items(variables, rest, lr_factor=0.5)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    np.testing.assert_array_equal(flat(back), flat(state))


def test_in_bfloat16_the_parameters_stay_float32_and_the_loss_falls():
    net = dataclasses.replace(NET, dtype="bfloat16")
    state, _, found = stepped(net=net, num_steps=8, peak_lr=0.1)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state.variables)}
    assert kinds == {jnp.dtype("float32")}
    assert found[-1] < found[0]
    np.testing.assert_allclose(found[0], stepped(num_steps=1)[2][0], rtol=2e-2)


def test_deterministic_algorithms_are_for_jit_alone():
    mesh = sharding.data_mesh(jax.devices()[:1])
    with pytest.raises(ValueError, match="--parallel jit with --deterministic"):
        sharding.parallelise(same, mesh, parallel="pmap", is_deterministic=True)


def test_the_compiler_knows_the_option_of_deterministic_algorithms():
    options = sharding._DETERMINISTIC_OPTIONS  # a CPU's compiler reads it too
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
