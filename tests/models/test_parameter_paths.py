"""Parameter paths are API: checkpoints, surgery and torch's names rely on them."""

import itertools
import math
import re
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from bmjax import models
from bmjax.surgery import flatten

TWO = (2, 2, 2)
BRATS = {
    "features": (32, 64, 128, 256, 320, 320),
    "strides": ((1, 1, 1), TWO, TWO, TWO, TWO, (2, 2, 1)),
    "kernel_sizes": ((3, 3, 3),) * 6,
    "num_classes": 3,
}
AFFINE = "{conv/kernel,conv/bias,norm/scale,norm/bias}"
PAIR = "{conv_1/kernel,conv_1/bias,conv_2/kernel,conv_2/bias}"
NORMS = "{norm_1/scale,norm_1/bias,norm_2/scale,norm_2/bias}"
SKIP = "{skip_conv/kernel,skip_norm/scale,skip_norm/bias}"
WEIGHTS = "{kernel,bias}"
LEVEL = "{conv_0/kernel,conv_0/bias,norm_0/scale,norm_0/bias,"
LEVEL += "conv_1/kernel,conv_1/bias,norm_1/scale,norm_1/bias}"
MOMENTS = "{norm_0/mean,norm_0/variance,norm_1/mean,norm_1/variance}"

PLAIN = [
    f"encoder/stage_{{0-5}}/block_{{0-1}}/{AFFINE}",
    f"decoder/stage_{{0-4}}/block_{{0-1}}/{AFFINE}",
    f"decoder/up_{{0-4}}/{WEIGHTS}",
    f"heads/level_{{0-4}}/{WEIGHTS}",
]
RESIDUAL = [
    f"encoder/stem/block_0/{AFFINE}",
    *(
        f"encoder/stage_{stage}/block_{{0-{last}}}/{leaves}"
        for stage, last in enumerate((0, 2, 3, 5, 5, 5))
        for leaves in (PAIR, NORMS)
    ),
    f"encoder/stage_{{1-4}}/block_0/{SKIP}",  # where the channels change
    f"decoder/stage_{{0-4}}/block_0/{AFFINE}",
    f"decoder/up_{{0-4}}/{WEIGHTS}",
    f"heads/level_{{0-4}}/{WEIGHTS}",
]
SEGRESNET = [
    "encoder/stem/kernel",
    "encoder/down_{1-3}/kernel",
    *(
        f"encoder/stage_{stage}/block_{{0-{last}}}/{leaves}"
        for stage, last in enumerate((0, 1, 1, 3))
        for leaves in ("conv_{1-2}/kernel", NORMS)
    ),
    "decoder/up_{0-2}/kernel",
    "decoder/stage_{0-2}/block_0/conv_{1-2}/kernel",
    f"decoder/stage_{{0-2}}/block_0/{NORMS}",
    "decoder/norm/{scale,bias}",
    f"heads/level_0/{WEIGHTS}",
]
POOLING = [
    f"encoder/stage_{{0-4}}/{LEVEL}",
    f"decoder/stage_{{0-3}}/{LEVEL}",
    f"heads/level_0/{WEIGHTS}",
]
POOLING_STATS = [f"encoder/stage_{{0-4}}/{MOMENTS}", f"decoder/stage_{{0-3}}/{MOMENTS}"]
FULLY_CONVOLUTIONAL = [
    f"encoder/stage_{{0-4}}/{LEVEL}",
    f"heads/level_{{0-2}}/{WEIGHTS}",
    "up_{8,16,32}/kernel",
]
NETS = {
    "PlainUNet": (models.PlainUNet(**BRATS), (32, 32, 16), PLAIN, []),
    "ResEncUNet": (models.ResEncUNet(**BRATS), (32, 32, 16), RESIDUAL, []),
    "SegResNet": (models.SegResNet(num_classes=3), (8, 8, 8), SEGRESNET, []),
    "UNet2D": (models.UNet2D(num_classes=3), (16, 16), POOLING, POOLING_STATS),
    "ConvNet": (models.ConvNet(num_classes=3), (16, 16), POOLING, POOLING_STATS),
    "FCN": (
        models.FCN(num_classes=3),
        (32, 32),
        FULLY_CONVOLUTIONAL,
        [f"encoder/stage_{{0-4}}/{MOMENTS}"],
    ),
}


def expanded(pattern):
    """All that `a_{0-2}/{b,c}` stands for."""
    literals, choices = (
        re.split(r"\{[^}]*\}", pattern),
        re.findall(r"\{(.*?)\}", pattern),
    )
    lists = []
    for choice in choices:
        ends = re.fullmatch(r"(\d+)-(\d+)", choice)
        numbers = ends and range(int(ends[1]), int(ends[2]) + 1)
        lists.append([str(n) for n in numbers] if numbers else choice.split(","))
    for chosen in itertools.product(*lists):
        pairs = itertools.zip_longest(literals, chosen, fillvalue="")
        yield "".join(itertools.chain(*pairs))


@cache
def variables(name):
    model, size, *_ = NETS[name]
    image = jax.ShapeDtypeStruct((1, *size, 4), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.mark.parametrize("name", NETS)
def test_the_paths_are_those_of_the_golden_list(name):
    *_, params, statistics = NETS[name]
    found = variables(name)
    for collection, patterns in (("params", params), ("batch_stats", statistics)):
        golden = [path for pattern in patterns for path in expanded(pattern)]
        assert len(golden) == len(set(golden))
        assert sorted(golden) == list(flatten(found.get(collection, {})))


@pytest.mark.parametrize(
    ("name", "count"),
    [("UNet2D", 7_852_899), ("ConvNet", 7_069_539), ("FCN", 4_721_769)],
)
def test_the_planar_networks_keep_their_number_of_parameters(name, count):
    params = flatten(variables(name)["params"])
    assert sum(math.prod(leaf.shape) for leaf in params.values()) == count
