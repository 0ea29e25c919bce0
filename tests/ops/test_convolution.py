"""Convolution on a CPU against XLA's own, and its program on other platforms."""

import importlib
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bmjax import models
from bmjax.ops import convolution

# Case: image size, kernel size, strides; channels in and out follow.
THREE_AXES = [
    ((8, 8, 8), (3, 3, 3), (1, 1, 1)),
    ((3, 12, 6), (3, 3, 3), (1, 1, 1)),
    ((2, 5, 7), (3, 3, 3), (1, 1, 1)),
    ((4, 8, 6), (1, 3, 3), (1, 1, 1)),
    ((1, 8, 6), (3, 3, 3), (1, 1, 1)),
    ((4, 6, 8), (3, 3, 3), (2, 2, 2)),
    ((4, 6, 8), (1, 3, 3), (1, 2, 2)),
    ((4, 6, 8), (3, 3, 3), (2, 2, 1)),
    ((5, 3, 7), (3, 3, 3), (2, 2, 2)),
    ((3, 4, 5), (1, 1, 1), (1, 1, 1)),
]
TWO_AXES = [
    ((8, 10), (3, 3), (1, 1)),
    ((7, 9), (3, 3), (1, 1)),
    ((8, 6), (3, 3), (2, 2)),
]

# Voxels up to which a grid is coarse, and from which on Winograd pays.
ALGORITHMS = {
    "slabs": (0, 10**9),
    "slabs by Winograd": (0, 0),
    "taps": (10**9, 10**9),
    "taps by Winograd": (10**9, 0),
}


def using(algorithm):
    """Convolutions take this algorithm, whatever their size."""
    coarse, mixed = ALGORITHMS[algorithm]
    room = importlib.import_module("bmjax.ops.convolution")
    return mock.patch.multiple(room, _COARSE=coarse, _MIXED=mixed)


def reference(x, kernel, strides):
    space = "zyx"[-len(strides) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [((k - 1) // 2,) * 2 for k in kernel.shape[:-2]],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
    )


def value_and_gradients(function, x, kernel, grads):
    out, vjp = jax.vjp(function, x, kernel)
    return out, *vjp(grads)


def draw(size, kernel_size, strides, num_in, num_out, batch=2, dtype=np.float32):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape).astype(dtype))

    x, kernel = normal(batch, *size, num_in), normal(*kernel_size, num_in, num_out)
    out = jax.eval_shape(lambda: reference(x, kernel, strides))
    return x, kernel, normal(*out.shape)


def check_in_float64(size, kernel_size, strides, num_in, num_out):
    with jax.enable_x64(True):
        arrays = draw(size, kernel_size, strides, num_in, num_out, dtype=np.float64)

        @jax.jit
        def both(*arrays):
            ours = value_and_gradients(
                lambda x, k: convolution(x, k, strides=strides), *arrays
            )
            theirs = value_and_gradients(lambda x, k: reference(x, k, strides), *arrays)
            return ours, theirs

        for ours, theirs in zip(*both(*arrays), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", THREE_AXES + TWO_AXES, ids=str)
def test_values_and_both_gradients_are_those_of_xla(case):
    check_in_float64(*case, num_in=3, num_out=5)


@pytest.mark.parametrize("case", THREE_AXES[:5] + TWO_AXES[:2], ids=str)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_has_the_values_and_gradients_of_xla(case, algorithm):
    with using(algorithm):
        check_in_float64(*case, num_in=3, num_out=5)


@given(st.data())
@settings(deadline=None, max_examples=6, derandomize=True)
def test_any_shape_has_the_values_and_gradients_of_xla(data):
    num_axes = data.draw(st.integers(2, 3))

    def per_axis(choices):
        return st.tuples(*[st.sampled_from(choices)] * num_axes)

    with using(data.draw(st.sampled_from(list(ALGORITHMS)))):
        check_in_float64(
            data.draw(per_axis(range(1, 10))),
            data.draw(per_axis((1, 3, 5))),
            data.draw(per_axis((1, 2))),
            num_in=data.draw(st.integers(1, 4)),
            num_out=data.draw(st.integers(1, 4)),
        )


@pytest.mark.slow
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_many_shapes_have_the_values_and_gradients_of_xla(data):
    test_any_shape_has_the_values_and_gradients_of_xla.hypothesis.inner_test(data)


@pytest.mark.parametrize("height", [4, 16, 18])
def test_rounding_error_is_within_five_times_that_of_xla(height):
    size, ones = (8, height, 16), (1, 1, 1)
    arrays = draw(size, (3, 3, 3), ones, 32, 32)

    def ours(x, kernel):
        return convolution(x, kernel)

    def theirs(x, kernel):
        return reference(x, kernel, ones)

    results = [
        jax.jit(value_and_gradients, static_argnums=0)(f, *arrays)
        for f in (ours, theirs)
    ]
    with jax.enable_x64(True):
        wide = (a.astype(jnp.float64) for a in arrays)
        exact = jax.jit(value_and_gradients, static_argnums=0)(theirs, *wide)
        errors = [
            [np.linalg.norm(a - e) for a, e in zip(result, exact, strict=True)]
            for result in results
        ]
    for ours, theirs in zip(*errors, strict=True):
        assert ours <= 5 * theirs


@pytest.mark.parametrize(
    "model",
    [
        models.PlainUNet(features=(4, 4, 4), num_classes=3),
        models.ResEncUNet(features=(4, 4, 4), num_classes=3),
        models.SegResNet(num_features=8, num_classes=3),
        models.UNet2D(features=(4, 4, 4), num_classes=3),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_plain_convolutions_and_no_loops(model, platform):
    num_axes = 2 if isinstance(model, models.UNet2D) else 3
    image = jax.ShapeDtypeStruct((2, *(16,) * num_axes, 4), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)

    def loss(params, rest, image):
        outputs, _ = model.apply(
            {**rest, "params": params},
            image,
            is_training=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return sum(jnp.square(logits).mean() for logits in outputs)

    rest = {name: tree for name, tree in variables.items() if name != "params"}
    traced = jax.jit(jax.grad(loss)).trace(variables["params"], rest, image)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if path[-1].key == "kernel" and "up_" not in path[-2].key
    ]
    # forward and kernel gradient of each, input gradient of all but the first
    assert text.count("stablehlo.convolution") >= 3 * len(kernels) - 1
    assert "stablehlo.while" not in text


@pytest.mark.parametrize("is_mesh_set", [False, True])
@pytest.mark.parametrize("algorithm", ["slabs", "taps by Winograd"])
def test_a_sharded_batch_is_not_gathered_and_changes_no_number(algorithm, is_mesh_set):
    devices = np.array(jax.devices())
    assert devices.size == 8
    mesh = Mesh(devices, ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    known = mesh.abstract_mesh if is_mesh_set else jax.sharding.get_abstract_mesh()
    sizes = [((4, 8, 8), (1, 1, 1)), ((4, 8, 8), (2, 2, 2)), ((3, 5, 5), (1, 1, 1))]
    sizes += [((8, 8), (1, 1))]
    with using(algorithm), jax.sharding.use_abstract_mesh(known):
        for size, strides in sizes:
            arrays = draw(size, (3,) * len(size), strides, 4, 4, batch=16)
            x, kernel, grads = arrays

            @jax.jit
            def gradients(x, kernel, grads, strides=strides):
                function = lambda x, k: convolution(x, k, strides=strides)  # noqa: E731
                return value_and_gradients(function, x, kernel, grads)

            spread = (
                jax.device_put(x, sharding),
                kernel,
                jax.device_put(grads, sharding),
            )
            text = gradients.lower(*spread).compile().as_text()
            assert "all-gather" not in text
            assert "all-to-all" not in text
            assert "collective-permute" not in text
            assert text.count(" all-reduce(") <= 1  # of the kernel gradient, once
            for one, many in zip(gradients(*arrays), gradients(*spread), strict=True):
                np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-4)


def test_the_second_call_compiles_nothing():
    function = jax.jit(jax.grad(lambda x, k: convolution(x, k).sum(), argnums=(0, 1)))
    for value in (1.0, 2.0):
        function(jnp.full((1, 4, 4, 4, 2), value), jnp.full((3, 3, 3, 2, 2), value))
    assert function._cache_size() == 1


def test_bfloat16_is_left_to_xla():
    x, kernel, _ = draw((4, 8, 8), (3, 3, 3), (1, 1, 1), 2, 3)
    out = convolution(jnp.asarray(x, jnp.bfloat16), jnp.asarray(kernel, jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        out.astype(np.float32), convolution(x, kernel), rtol=0.1, atol=0.2
    )


def test_a_shift_of_the_image_shifts_the_result():
    x, kernel, _ = draw((6, 12, 9), (3, 3, 3), (1, 1, 1), 2, 3)
    inner = (slice(None), slice(2, -2), slice(2, -2), slice(2, -2))
    out = convolution(x, kernel)
    for offsets in itertools.product((-1, 0, 1), repeat=3):
        moved = convolution(jnp.roll(x, offsets, (1, 2, 3)), kernel)
        back = np.roll(moved, [-o for o in offsets], (1, 2, 3))
        np.testing.assert_allclose(back[inner], out[inner], rtol=1e-4, atol=1e-4)
