import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.training import Optimizer

NET = {
    "encoder": {"kernel": jnp.asarray([2.0, -1.0]), "bias": jnp.asarray([0.5])},
    "heads": {"kernel": jnp.asarray([1.0, 3.0])},
}


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


def moved(spec, params, *, num_steps=1, gradient=100.0):
    """Parameters after some steps, and the optimiser's state."""
    update = spec.transformation()
    state = update.init(params)
    for _ in range(num_steps):
        grads = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
        changes, state = update.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, changes)
    return params, state


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_frozen_parameters_do_not_move_not_even_by_decay(name):
    spec = Optimizer(
        name=name, num_steps=9, weight_decay=0.5, freeze=("encoder/.*",), peak_lr=0.1
    )
    params, _ = moved(spec, NET, num_steps=5)
    for leaf in ("kernel", "bias"):
        old, new = NET["encoder"][leaf], params["encoder"][leaf]
        assert old.tobytes() == new.tobytes()
    assert not (params["heads"]["kernel"] == NET["heads"]["kernel"]).any()


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_optimiser_keeps_no_state_of_what_is_frozen(name):
    spec = Optimizer(name=name, num_steps=9, freeze=("encoder/.*",))
    _, state = moved(spec, NET)
    assert not any(leaf.shape == (1,) for leaf in jax.tree.leaves(state))  # the bias
    assert any(leaf.shape == (2,) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_what_is_left_trains_as_if_it_were_alone(name):
    """The frozen gradients do not count in the norm that is clipped."""
    spec = Optimizer(name=name, num_steps=9, weight_decay=0.1, clip_norm=1.0)
    alone, _ = moved(spec, {"heads": NET["heads"]}, num_steps=3)
    frozen = Optimizer(
        name=name,
        num_steps=9,
        weight_decay=0.1,
        clip_norm=1.0,
        freeze=("encoder/.*",),
    )
    both, _ = moved(frozen, NET, num_steps=3)
    np.testing.assert_array_equal(both["heads"]["kernel"], alone["heads"]["kernel"])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_scaled_learning_rate_scales_the_step(name):
    plain = Optimizer(name=name, num_steps=9, clip_norm=None)
    scaled = Optimizer(
        name=name,
        num_steps=9,
        clip_norm=None,
        lr_scale=((".*/bias", 0.5), ("encoder/.*", 0.25)),
    )
    whole, _ = moved(plain, NET)
    part, _ = moved(scaled, NET)
    step = jax.tree.map(jnp.subtract, whole, NET)
    seen = jax.tree.map(jnp.subtract, part, NET)
    for path, factor in (
        (("encoder", "bias"), 0.5),  # the first pattern counts
        (("encoder", "kernel"), 0.25),
        (("heads", "kernel"), 1.0),
    ):
        expected = factor * step[path[0]][path[1]]
        np.testing.assert_allclose(seen[path[0]][path[1]], expected, rtol=1e-4)


def test_freezing_beats_a_scaled_rate():
    spec = Optimizer(freeze=("encoder/bias",), lr_scale=(("encoder/.*", 0.5),))
    factors = spec.lr_factors(NET)
    assert factors["encoder"] == {"bias": 0.0, "kernel": 0.5}
    assert factors["heads"] == {"kernel": 1.0}


def test_without_labels_the_state_is_that_of_the_plain_chain():
    _, state = moved(Optimizer(num_steps=9), NET)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 5 + 1  # and a count


def test_a_pattern_that_freezes_nothing_is_refused():
    with pytest.raises(ValueError, match="'stem/.*' matches no tensor"):
        Optimizer(freeze=("stem/.*",)).transformation().init(NET)


def test_freezing_everything_is_refused():
    with pytest.raises(ValueError, match="leaves no parameter to train"):
        Optimizer(freeze=(".*",)).transformation().init(NET)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
def test_a_factor_that_is_no_rate_is_refused(factor):
    with pytest.raises(ValueError, match=r"optimizer\.freeze holds parameters fixed"):
        Optimizer(lr_scale=(("encoder/.*", factor),))


def test_epochs_and_steps_are_two_ways_to_say_how_long():
    assert Optimizer().total_steps == 250_000  # nnU-Net: 1000 epochs of 250
    assert Optimizer(num_epochs=3).total_steps == 750
    assert Optimizer(num_epochs=3, epoch_steps=10).total_steps == 30
    assert Optimizer(num_steps=7).total_steps == 7
    with pytest.raises(ValueError, match="give one of them"):
        Optimizer(num_steps=7, num_epochs=3)


def test_a_restart_keeps_the_rates_before_it_and_begins_anew():
    short = Optimizer(num_steps=100, warmup_steps=5).learning_rate()
    longer = Optimizer(num_steps=160, warmup_steps=5, restarts=(100,)).learning_rate()
    rest = Optimizer(num_steps=60, warmup_steps=5).learning_rate()
    for step in (0, 3, 5, 50, 99):
        assert longer(step) == short(step)
        if step < 60:
            assert longer(100 + step) == rest(step)


@pytest.mark.parametrize("restarts", [(200,), (0,), (60, 40)])
def test_restarts_out_of_order_are_refused(restarts):
    with pytest.raises(ValueError, match="restarts in rising order"):
        Optimizer(num_steps=100, restarts=restarts)


@pytest.mark.parametrize(
    "field, value", [("accumulate", 0), ("plateau_factor", 1.0), ("ema_decay", 1.0)]
)
def test_a_number_out_of_range_is_refused(field, value):
    with pytest.raises(ValueError, match=f"optimizer.{field} is {value}"):
        Optimizer(**{field: value})
