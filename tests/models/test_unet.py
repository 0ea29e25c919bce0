import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import models, ops
from bmjax.models import layers

CUBE, TWO = (3, 3, 3), (2, 2, 2)
BRATS = {
    "features": (32, 64, 128, 256, 320, 320),
    "strides": ((1, 1, 1), TWO, TWO, TWO, TWO, (2, 2, 1)),
    "kernel_sizes": (CUBE,) * 6,
    "num_classes": 3,
}


def shapes(model, size, channels=4):
    image = jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def count(params):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def paths(params):
    return [
        ("/".join(part.key for part in path), leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]


def test_plain_unet_of_the_brats_plan_has_nnunets_parameters():
    assert count(shapes(models.PlainUNet(**BRATS), (64, 64, 32))) == 30_789_391


def test_plain_unet_of_the_sbt_plan_has_nnunets_parameters():
    model = models.PlainUNet(
        features=BRATS["features"],
        strides=((1, 1, 1), (1, 2, 2), TWO, TWO, TWO, TWO),
        kernel_sizes=((1, 3, 3), *(CUBE,) * 5),
        num_classes=3,
    )
    assert count(shapes(model, (16, 32, 32))) == 31_114_767


def test_residual_encoder_of_six_stages_has_nnunets_parameters():
    assert count(shapes(models.ResEncUNet(**BRATS), (64, 64, 32))) == 101_943_567


def test_segresnet_has_monais_parameters():
    assert count(shapes(models.SegResNet(num_classes=3), (16, 16, 16))) == 18_798_627


def test_parameter_paths_are_those_of_the_golden_list():
    model = models.PlainUNet(
        features=(4, 8),
        strides=((1, 1, 1), TWO),
        kernel_sizes=(CUBE,) * 2,
        num_classes=3,
        num_convs=1,
    )
    assert paths(shapes(model, (8, 8, 8))) == [
        ("decoder/stage_0/block_0/conv/bias", (4,)),
        ("decoder/stage_0/block_0/conv/kernel", (3, 3, 3, 8, 4)),
        ("decoder/stage_0/block_0/norm/bias", (4,)),
        ("decoder/stage_0/block_0/norm/scale", (4,)),
        ("decoder/up_0/bias", (4,)),
        ("decoder/up_0/kernel", (2, 2, 2, 8, 4)),
        ("encoder/stage_0/block_0/conv/bias", (4,)),
        ("encoder/stage_0/block_0/conv/kernel", (3, 3, 3, 4, 4)),
        ("encoder/stage_0/block_0/norm/bias", (4,)),
        ("encoder/stage_0/block_0/norm/scale", (4,)),
        ("encoder/stage_1/block_0/conv/bias", (8,)),
        ("encoder/stage_1/block_0/conv/kernel", (3, 3, 3, 4, 8)),
        ("encoder/stage_1/block_0/norm/bias", (8,)),
        ("encoder/stage_1/block_0/norm/scale", (8,)),
        ("heads/level_0/bias", (3,)),
        ("heads/level_0/kernel", (1, 1, 1, 4, 3)),
    ]


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", [models.PlainUNet, models.ResEncUNet])
def test_every_resolution_but_the_lowest_has_a_head(kind, rank):
    model = kind(features=(4, 4, 4), num_classes=5)
    image = jax.ShapeDtypeStruct((2, *(16,) * rank, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    outputs = jax.eval_shape(model.apply, variables, image)
    assert [o.shape for o in outputs] == [(2, *(16,) * rank, 5), (2, *(8,) * rank, 5)]


def test_logits_are_float32_when_computing_in_bfloat16(key):
    model = models.PlainUNet(features=(4, 4), num_classes=3, dtype="bfloat16")
    image = jnp.ones((1, 8, 8, 8, 2))
    variables = model.init(key, image)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert model.apply(variables, image)[0].dtype == jnp.float32


@pytest.mark.slow
def test_recomputing_blocks_changes_no_number(key):
    plain = models.PlainUNet(features=(4, 4), num_classes=3)
    saving = models.PlainUNet(features=(4, 4), num_classes=3, use_remat=True)
    image = jax.random.normal(key, (1, 8, 8, 8, 2))
    variables = plain.init(key, image)

    def gradient(model):
        return jax.jit(jax.grad(lambda v: model.apply(v, image)[0].sum()))(variables)

    pairs = zip(
        jax.tree.leaves(gradient(plain)), jax.tree.leaves(gradient(saving)), strict=True
    )
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_image_that_does_not_divide_is_refused_with_the_remedy(key):
    model = models.PlainUNet(features=(4, 4, 4), num_classes=3)
    with pytest.raises(ValueError, match="4"):
        jax.eval_shape(model.init, key, jnp.ones((1, 8, 10, 8, 2)))


def test_a_network_without_a_plan_says_what_is_missing(key):
    with pytest.raises(ValueError, match="fill them from a plan"):
        models.PlainUNet().init(key, jnp.ones((1, 8, 8, 8, 2)))


def test_batch_norm_statistics_move_only_in_training(key):
    model = models.UNet2D(features=(4, 4, 4), num_classes=3)
    image = jax.random.normal(key, (2, 16, 16, 4)) + 1
    variables = model.init(key, image)
    _, moved = model.apply(
        variables,
        image,
        is_training=True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
    )
    _, still = model.apply(variables, image, mutable=["batch_stats"])

    def same(tree):
        before = jax.tree.leaves(variables["batch_stats"])
        after = jax.tree.leaves(tree["batch_stats"])
        return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))

    assert same(still)
    assert not same(moved)


@pytest.mark.parametrize("kind", [models.UNet2D, models.ConvNet, models.FCN])
def test_nets_of_the_2d_study_give_one_full_size_output(kind):
    model = kind(num_classes=4)
    image = jax.ShapeDtypeStruct((1, 64, 64, 4), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    (logits,) = jax.eval_shape(model.apply, variables, image)
    assert logits.shape == (1, 64, 64, 4)
    assert json.dumps(sorted(variables)) == '["batch_stats", "params"]'


@pytest.mark.parametrize("has_skip", [True, False])
def test_an_upsampling_convolution_is_one_of_the_enlarged_and_joined_image(
    key, has_skip
):
    x, skip = (
        jax.random.normal(key, (2, 4, 6, 3)),
        jax.random.normal(key, (2, 8, 12, 2)),
    )
    joined = ops.upsample_nearest(x, factors=(2, 2))
    if has_skip:
        joined = jnp.concatenate([joined, skip], -1)
    plain = layers.Conv(5, (3, 3))
    variables = plain.init(key, joined)
    expected = plain.apply(variables, joined)
    given = (x, skip) if has_skip else (x,)
    ours = layers.UpsamplingConv(5)
    assert jax.tree.map(jnp.shape, ours.init(key, *given)) == jax.tree.map(
        jnp.shape, variables
    )
    np.testing.assert_allclose(ours.apply(variables, *given), expected, atol=1e-5)
