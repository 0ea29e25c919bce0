"""Pooling, enlarging and transposed convolution against plain definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bmjax import ops


def image(*shape):
    return jax.random.normal(jax.random.key(0), shape)


def test_pools_of_hand_made_values():
    x = jnp.array([[1.0, 2.0, 5.0], [3.0, 4.0, 6.0]]).reshape(1, 2, 3, 1)
    assert ops.average_pool(x, window=(2, 2)).ravel().tolist() == [2.5]
    assert ops.max_pool(x, window=(2, 2)).ravel().tolist() == [4.0]
    assert ops.max_pool(x, window=(2, 1)).ravel().tolist() == [3.0, 4.0, 6.0]


def test_the_gradient_of_a_pool_goes_to_the_first_maximum_of_each_window():
    x = jnp.array([[0.0, 7, 2, 2, 9], [7, 7, 1, 2, 9]]).reshape(1, 2, 5, 1)
    _, vjp = jax.vjp(lambda x: ops.max_pool(x, window=(2, 2)), x)
    (grads,) = vjp(jnp.array([3.0, 4.0]).reshape(1, 1, 2, 1))
    assert grads[0, :, :, 0].tolist() == [[0, 3, 4, 0, 0], [0, 0, 0, 0, 0]]


@pytest.mark.parametrize("window", [(2, 2), (3, 2), (2, 1, 3)])
def test_without_ties_the_gradient_of_a_pool_is_that_of_xla(window):
    x = image(2, *(7, 5, 6)[: len(window)], 3)
    ours, our_vjp = jax.vjp(lambda x: ops.max_pool(x, window=window), x)

    def theirs(x):
        steps = (1, *window, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, steps, steps, "VALID")

    expected, their_vjp = jax.vjp(theirs, x)
    np.testing.assert_array_equal(ours, expected)
    grads = image(*ours.shape)
    np.testing.assert_array_equal(our_vjp(grads)[0], their_vjp(grads)[0])


@pytest.mark.parametrize("size", [(4, 6), (16, 3), (3, 4, 2)])
def test_upsampled_convolution_is_that_of_the_enlarged_image(size):
    with jax.enable_x64(True):
        x = image(2, *size, 3).astype(float)
        kernel = image(*(3,) * len(size), 3, 5).astype(float)
        grads = image(2, *(2 * n for n in size), 5).astype(float)

        def plain(x, kernel):
            wide = ops.upsample_nearest(x, factors=(2,) * len(size))
            return ops.convolution(wide, kernel)

        expected, their_vjp = jax.vjp(plain, x, kernel)
        ours, our_vjp = jax.vjp(ops.upsampled_convolution, x, kernel)
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        for a, b in zip(our_vjp(grads), their_vjp(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_nearest_enlarging_repeats_voxels():
    x = image(2, 2, 3, 4, 2)
    expected = np.asarray(x).repeat(2, 1).repeat(3, 3)
    np.testing.assert_array_equal(ops.upsample_nearest(x, factors=(2, 1, 3)), expected)


@pytest.mark.parametrize("size", [(4, 6), (3, 1, 5)])
def test_linear_enlarging_is_that_of_half_pixel_centres(size):
    x = image(2, *size, 3)
    shape = (2, *(2 * n for n in size), 3)
    expected = jax.image.resize(x, shape, "linear")
    np.testing.assert_allclose(ops.upsample_linear(x), expected, atol=1e-6)
    _, ours = jax.vjp(ops.upsample_linear, x)
    _, theirs = jax.vjp(lambda x: jax.image.resize(x, shape, "linear"), x)
    grads = image(*shape)
    np.testing.assert_allclose(ours(grads)[0], theirs(grads)[0], atol=1e-5)


@pytest.mark.parametrize("factors", [(2, 2, 2), (1, 2, 2), (2, 3)])
def test_transposed_convolution_places_each_kernel_at_its_voxel(factors):
    size = (3, 4, 2)[: len(factors)]
    x, kernel = image(2, *size, 3), image(*factors, 3, 5)
    out = np.asarray(ops.transposed_convolution(x, kernel))
    for place in np.ndindex(*factors):
        every = tuple(slice(p, None, f) for p, f in zip(place, factors, strict=True))
        np.testing.assert_allclose(
            out[:, *every], x @ kernel[place], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("factors", [(2, 2), (4, 2), (2, 2, 2)])
def test_overlapping_transposed_convolution_is_a_dilated_convolution(factors):
    num_axes = len(factors)
    space = "zyx"[-num_axes:]
    x = image(2, *(3, 4, 2)[:num_axes], 3)
    kernel = image(*(2 * f for f in factors), 3, 2)
    expected = lax.conv_general_dilated(
        x,
        jnp.flip(kernel, tuple(range(num_axes))),
        (1,) * num_axes,
        [(2 * f - 1 - f // 2,) * 2 for f in factors],
        lhs_dilation=factors,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )
    np.testing.assert_allclose(
        ops.overlapping_transposed_convolution(x, kernel), expected, atol=1e-5
    )
