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
