import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.training import Optimizer


def rates(spec, counts):
    return [float(spec.learning_rate()(jnp.asarray(count))) for count in counts]


def test_polynomial_decay_is_nnunets():
    spec = Optimizer(num_steps=1000)
    expected = [1e-2 * (1 - step / 1000) ** 0.9 for step in (0, 100, 999)]
    np.testing.assert_allclose(rates(spec, (0, 100, 999)), expected, rtol=1e-4)


def test_a_held_rate_changes_once_per_epoch():
    spec = Optimizer(num_steps=1000, hold_steps=250)
    first, same, second = rates(spec, (0, 249, 250))
    assert first == same == pytest.approx(1e-2)
    assert second == pytest.approx(1e-2 * 0.75**0.9)


def test_warm_up_rises_from_zero_to_the_peak():
    spec = Optimizer(num_steps=100, warmup_steps=10, schedule="cosine")
    start, half, peak, end = rates(spec, (0, 5, 10, 100))
    assert (start, half) == pytest.approx((0, 5e-3))
    assert (peak, end) == pytest.approx((1e-2, 0), abs=1e-8)


def test_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="lower optimizer.warmup_steps"):
        Optimizer(num_steps=10, warmup_steps=10)


def test_clipping_comes_before_weight_decay_and_momentum():
    spec = Optimizer(
        num_steps=10, peak_lr=1.0, schedule="constant", clip_norm=1.0, weight_decay=0.5
    )
    update = spec.transformation()
    params = {"w": jnp.asarray([2.0])}
    grads = {"w": jnp.asarray([100.0])}
    moved, _ = update.update(grads, update.init(params), params)
    gradient = 1.0 + 0.5 * 2.0  # clipped, then decayed
    nesterov = gradient + 0.99 * gradient
    np.testing.assert_allclose(moved["w"], [-nesterov], rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_optimiser_finds_the_minimum_of_a_parabola(name):
    spec = Optimizer(
        name=name, num_steps=500, peak_lr=0.05, momentum=0.5, weight_decay=0.0
    )
    update = spec.transformation()
    params = {"w": jnp.asarray([3.0, -2.0])}
    state = update.init(params)
    for _ in range(500):
        grads = {"w": 2 * (params["w"] - 1.0)}
        moved, state = update.update(grads, state, params)
        params = {"w": params["w"] + moved["w"]}
    np.testing.assert_allclose(params["w"], [1.0, 1.0], atol=1e-2)
