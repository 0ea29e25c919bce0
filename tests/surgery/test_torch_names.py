import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import models
from bmjax.surgery import flatten, from_torch, to_torch, unflatten

KEYS = Path(__file__).resolve().parents[3] / "shared" / "golden" / "state_dict_keys.txt"
CUBE, TWO = (3, 3, 3), (2, 2, 2)
FEATURES = (32, 64, 128, 256, 320, 320)
SMALL = {
    "features": (2, 4, 4),
    "strides": ((1, 1, 1), (1, 2, 2), (1, 1, 1)),
    "kernel_sizes": ((1, 3, 3), CUBE, CUBE),
    "num_classes": 3,
}
NETS = {
    "PlainConvUNet SBT": (
        models.PlainUNet(
            features=FEATURES,
            strides=((1, 1, 1), (1, 2, 2), TWO, TWO, TWO, TWO),
            kernel_sizes=((1, 3, 3), *(CUBE,) * 5),
            num_classes=3,
        ),
        (16, 32, 32),
    ),
    "ResEncUNet BraTS": (
        models.ResEncUNet(
            features=FEATURES,
            strides=((1, 1, 1), TWO, TWO, TWO, TWO, (2, 2, 1)),
            kernel_sizes=(CUBE,) * 6,
            num_classes=3,
        ),
        (32, 32, 16),
    ),
    "SegResNet": (models.SegResNet(num_classes=3), (8, 8, 8)),
}


def shapes(model, size):
    image = jax.ShapeDtypeStruct((1, *size, 4), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def numbered(model, size):
    """Parameters that all differ."""
    rng = np.random.default_rng(0)
    flat = flatten(shapes(model, size))
    draw = {p: rng.normal(size=s.shape).astype(np.float32) for p, s in flat.items()}
    return unflatten(draw)


def small():
    return numbered(models.PlainUNet(**SMALL), (4, 4, 4))


def same(a, b):
    a, b = flatten(a), flatten(b)
    return list(a) == list(b) and all(
        x.dtype == b[p].dtype and x.tobytes() == b[p].tobytes() for p, x in a.items()
    )


@pytest.mark.parametrize("title", NETS)
def test_names_and_shapes_are_those_of_the_golden_list(title):
    if not KEYS.is_file():
        pytest.skip("the golden list of torch names is not on this machine")
    golden, is_inside = {}, False
    for line in KEYS.read_text().splitlines():
        if not line.startswith("    "):
            is_inside = line.startswith(title)
        elif is_inside:
            name, shape = line.strip().split(" ", 1)
            golden[name] = tuple(int(n) for n in re.findall(r"\d+", shape))
    model, size = NETS[title]
    # one value stands for all: no memory is taken
    flat = flatten(shapes(model, size))
    empty = {p: np.broadcast_to(np.float32(0), s.shape) for p, s in flat.items()}
    state = to_torch(unflatten(empty))
    assert {name: tensor.shape for name, tensor in state.items()} == golden


@pytest.mark.parametrize(
    "model",
    [
        models.PlainUNet(**SMALL),
        models.ResEncUNet(**SMALL, num_blocks=(1, 2, 1)),
        models.SegResNet(num_classes=3, num_features=8, num_blocks_down=(1, 2)).clone(
            num_blocks_up=(1,)
        ),
    ],
)
def test_there_and_back_is_the_identity_bit_for_bit(model):
    params = numbered(model, (4, 4, 4))
    again = from_torch(shapes(model, (4, 4, 4)), to_torch(params))
    assert same(again, params)


def test_kernels_turn_to_torchs_order_of_axes():
    params = small()
    state = to_torch(params)
    conv = params["encoder"]["stage_1"]["block_0"]["conv"]["kernel"]
    theirs = state["encoder.stages.1.0.convs.0.conv.weight"]
    np.testing.assert_array_equal(theirs[3, 1], conv[..., 1, 3])
    up = params["decoder"]["up_0"]["kernel"]
    theirs = state["decoder.transpconvs.1.weight"]
    np.testing.assert_array_equal(theirs[3, 1], up[..., 3, 1])


def test_deepest_decoder_stage_is_torchs_first():
    state = to_torch(small())
    assert state["decoder.seg_layers.0.weight"].shape == (3, 4, 1, 1, 1)
    assert state["decoder.seg_layers.1.weight"].shape == (3, 2, 1, 1, 1)


def test_prefixes_of_compiled_and_distributed_networks_are_dropped():
    params = small()
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        state = {prefix + name: x for name, x in to_torch(params).items()}
        assert same(from_torch(params, state), params)


def test_the_aliases_alone_are_enough():
    params = small()
    state = to_torch(params)
    state = {k: v for k, v in state.items() if not k.startswith("encoder.")}
    assert same(from_torch(params, state), params)


def test_aliases_that_disagree_are_refused():
    params = small()
    state = to_torch(params)
    name = "decoder.encoder.stages.0.0.convs.0.all_modules.1.weight"
    state[name] = state[name] + 1
    with pytest.raises(ValueError, match="are one tensor of the network, but their"):
        from_torch(params, state)


def test_all_that_does_not_fit_is_listed_with_both_sides():
    params = small()
    state = to_torch(params)
    del state["decoder.seg_layers.1.bias"]
    state["decoder.seg_layers.1.weight"] = np.ones((2, 2, 1, 1, 1), np.float32)
    state["extra.weight"] = np.ones((5,), np.float32)
    with pytest.raises(ValueError) as caught:
        from_torch(params, state)
    text = " ".join(str(caught.value).split())
    assert "3 tensors of the torch file do not fit" in text
    assert "decoder.seg_layers.1.bias 3 missing" in text
    assert "decoder.seg_layers.1.weight 3x2x1x1x1 2x2x1x1x1" in text
    assert "extra.weight missing 5" in text


def test_not_strict_leaves_the_decision_to_graft():
    from bmjax.surgery import graft

    params = small()
    state = to_torch(params)
    for level in (0, 1):
        old = state[f"decoder.seg_layers.{level}.weight"]
        state[f"decoder.seg_layers.{level}.weight"] = old[:2]
        state[f"decoder.seg_layers.{level}.bias"] = np.zeros(2, np.float32)
    source = from_torch(params, state, strict=False)
    _, report = graft(params, source, heads="init")
    assert len(report.paths("initialised")) == 4
    with pytest.raises(ValueError, match="4 tensors do not fit"):
        graft(params, source)


def test_half_precision_comes_in_the_type_of_the_network():
    params = small()
    state = {k: v.astype(np.float16) for k, v in to_torch(params).items()}
    found = flatten(from_torch(params, state))
    assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}


def test_a_network_without_counterpart_is_refused():
    params = {"encoder": {"stage_0": {"conv_0": {"kernel": np.ones((3, 3, 1, 2))}}}}
    with pytest.raises(ValueError, match="has no counterpart in torch"):
        to_torch(params)
