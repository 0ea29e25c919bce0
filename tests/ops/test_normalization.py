"""Norms against their definitions, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import ops


def definition(x, scale, bias, num_groups, slope):
    batch, *space, channels = x.shape
    grouped = x.reshape(batch, -1, num_groups, channels // num_groups)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = grouped.var((1, 3), keepdims=True)
    normal = ((grouped - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape)
    row = (1,) * (x.ndim - 1) + (channels,)
    y = normal * scale.reshape(row) + bias.reshape(row)
    return jnp.where(y > 0, y, slope * y)


@pytest.mark.parametrize("slope", [1.0, 0.01, 0.0])
@pytest.mark.parametrize(
    "shape, num_groups", [((2, 4, 5, 6, 8), 8), ((2, 5, 6, 8), 2), ((1, 3, 4, 8), 1)]
)
def test_norm_has_the_values_and_gradients_of_its_definition(shape, num_groups, slope):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(3 * rng.standard_normal(shape) + 10)
        scale, bias = jnp.asarray(rng.standard_normal((2, shape[-1])))
        grads = jnp.asarray(rng.standard_normal(shape))

        @jax.jit
        def both(x, scale, bias, grads):
            theirs, vjp = jax.vjp(
                lambda *a: definition(*a, num_groups, slope), x, scale, bias
            )
            expected = theirs, *vjp(grads)
            ours, vjp = jax.vjp(
                lambda *a: ops.group_norm(*a, num_groups=num_groups, slope=slope),
                *(x, scale, bias),
            )
            return (ours, *vjp(grads)), expected

        for ours, theirs in zip(*both(x, scale, bias, grads), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_instance_norm_is_group_norm_of_single_channels(key):
    x = jax.random.normal(key, (2, 4, 4, 6))
    scale, bias = jax.random.normal(key, (2, 6))
    one = ops.instance_norm(x, scale, bias)
    np.testing.assert_array_equal(one, ops.group_norm(x, scale, bias, num_groups=6))


def test_a_large_mean_costs_no_accuracy(rng):
    x = rng.standard_normal((1, 16, 16, 16, 2))
    moved = (x + 1000).astype(np.float32)
    exact = moved.astype(np.float64)
    exact = (exact - exact.mean((1, 2, 3))) / np.sqrt(exact.var((1, 2, 3)) + 1e-5)
    ours = ops.instance_norm(jnp.asarray(moved), jnp.ones(2), jnp.zeros(2))
    np.testing.assert_allclose(ours, exact, atol=1e-3)


def test_a_constant_image_gives_the_bias_and_finite_gradients():
    x, scale, bias = jnp.full((1, 4, 4, 2), 7.0), jnp.ones(2), jnp.array([1.0, -1.0])
    out, vjp = jax.vjp(ops.instance_norm, x, scale, bias)
    np.testing.assert_allclose(out, jnp.broadcast_to(bias, out.shape))
    assert all(np.isfinite(leaf).all() for leaf in vjp(jnp.ones_like(out)))


def rectified_definition(x, scale, bias):
    y = jnp.maximum(x, 0)
    axes = tuple(range(x.ndim - 1))
    mean, variance = y.mean(axes, keepdims=True), y.var(axes, keepdims=True)
    scale, bias = (a.reshape(mean.shape) for a in (scale, bias))
    y = (y - mean) / jnp.sqrt(variance + 1e-3) * scale + bias
    return y, mean.ravel(), variance.ravel()


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 3, 4, 5, 2)])
def test_batch_norm_has_the_values_and_gradients_of_its_definition(shape):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(2 * rng.standard_normal(shape) + 1)
        scale, bias = jnp.asarray(rng.standard_normal((2, shape[-1])))
        grads = jnp.asarray(rng.standard_normal(shape))

        def ours(x, scale, bias):
            axes = tuple(range(x.ndim - 1))
            return ops.relu_batch_norm(x, scale, bias, mean=lambda a: a.mean(axes))

        found, vjp = jax.vjp(lambda *a: ours(*a)[0], x, scale, bias)
        wanted, their_vjp = jax.vjp(
            lambda *a: rectified_definition(*a)[0], x, scale, bias
        )
        pairs = zip(
            (found, *ours(x, scale, bias)[1:], *vjp(grads)),
            (wanted, *rectified_definition(x, scale, bias)[1:], *their_vjp(grads)),
            strict=True,
        )
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
