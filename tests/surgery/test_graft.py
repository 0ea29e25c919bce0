"""Grafting of parameters between nested dicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax import models
from bmjax.surgery import ChannelMap, ClassMap, flatten, graft, unflatten


def _net(value: float, num_in: int = 4, num_classes: int = 3) -> dict:
    return {
        "encoder": {
            "stage_0": {"conv": {"kernel": np.full((3, 3, num_in, 8), value)}},
            "stage_1": {"conv": {"kernel": np.full((3, 3, 8, 8), value)}},
        },
        "heads": {"level_0": {"kernel": np.full((1, 1, 8, num_classes), value)}},
    }


def test_equal_nets_transfer_every_tensor():
    params, report = graft(_net(0.0), _net(1.0))
    assert all((leaf == 1).all() for leaf in flatten(params).values())
    assert len(report.paths("transferred")) == 3
    assert not report.paths("initialised") and not report.paths("unused")


def test_heads_init_leaves_the_heads_of_the_target():
    params, report = graft(_net(0.0, num_classes=2), _net(1.0), heads="init")
    assert (params["heads"]["level_0"]["kernel"] == 0).all()
    assert (params["encoder"]["stage_0"]["conv"]["kernel"] == 1).all()
    assert report.paths("initialised") == ("heads/level_0/kernel",)
    assert report.paths("unused") == ("heads/level_0/kernel",)


def test_a_skipped_path_is_left_initialised_and_the_report_says_by_which_pattern():
    params, report = graft(_net(0.0, num_in=7), _net(1.0), skip=("encoder/stage_0/.*",))
    assert (params["encoder"]["stage_0"]["conv"]["kernel"] == 0).all()
    assert "skipped by 'encoder/stage_0/.*'" in str(report)


def test_strict_error_lists_both_sides_with_shapes_and_the_remedy():
    target, source = _net(0.0, num_in=7), _net(1.0)
    source["extra"] = {"kernel": np.ones((2, 5))}
    del source["encoder"]["stage_1"]
    with pytest.raises(ValueError) as error:
        graft(target, source)
    text = str(error.value)
    assert "3 tensors do not fit" in text
    assert "3x3x7x8" in text and "3x3x4x8" in text and "2x5" in text
    assert "skip=" in text and "heads='init'" in text


def test_not_strict_reports_what_strict_refuses():
    source = _net(1.0, num_in=7)
    source["extra"] = {"kernel": np.ones((2, 5))}
    params, report = graft(_net(0.0), source, strict=False)
    assert (params["encoder"]["stage_0"]["conv"]["kernel"] == 0).all()
    assert report.paths("initialised") == ("encoder/stage_0/conv/kernel",)
    assert set(report.paths("unused")) == {
        "encoder/stage_0/conv/kernel",
        "extra/kernel",
    }


def test_a_skip_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="'encoder/stage_9' matches no tensor"):
        graft(_net(0.0), _net(1.0), skip=("encoder/stage_9",))


def test_a_source_with_nan_is_refused_by_name():
    source = _net(1.0)
    source["encoder"]["stage_1"]["conv"]["kernel"][0] = np.nan
    with pytest.raises(ValueError, match="encoder/stage_1/conv/kernel"):
        graft(_net(0.0), source)


def test_values_take_the_type_of_the_target():
    target = {"kernel": np.zeros(3, np.float32)}
    params, report = graft(target, {"kernel": np.ones(3, np.float64)})
    assert params["kernel"].dtype == np.float32
    assert "from float64" in str(report)


def test_neither_input_is_changed():
    target, source = _net(0.0), _net(1.0)
    graft(target, source)
    assert all((leaf == 0).all() for leaf in flatten(target).values())
    assert all((leaf == 1).all() for leaf in flatten(source).values())


def test_grafting_a_net_on_itself_transfers_everything():
    net = _net(1.0)
    _, report = graft(net, net)
    assert len(report.paths("transferred")) == len(report.rows) == 3


def _tensors(seed, num_in=4, num_classes=3, taps=(3, 3)):
    rng = np.random.default_rng(seed)
    flat = {
        "encoder/stage_0/conv_0/kernel": (*taps, num_in, 8),
        "encoder/stage_0/conv_1/kernel": (*taps, 8, 8),
        "encoder/stage_0/norm_0/scale": (8,),
        "heads/level_0/bias": (num_classes,),
        "heads/level_0/kernel": (*(1 for _ in taps), 8, num_classes),
    }
    return unflatten({path: rng.normal(size=shape) for path, shape in flat.items()})


def _trees_of(size):
    return st.dictionaries(
        st.sampled_from(("a", "b/c", "b/d", "heads/e", "f/g/h")),
        st.lists(st.integers(1, 3), min_size=1, max_size=3).map(
            lambda shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        ),
        min_size=1,
        max_size=size,
    ).map(unflatten)


@given(_trees_of(5))
@settings(deadline=None, max_examples=40)
def test_grafting_identical_trees_is_the_identity(tree):
    """Whatever else is asked for, where nothing differs nothing is done."""
    channels = ChannelMap(source=("t1c",), target=("t1c",))
    classes = ClassMap(source=("WT",), target=("WT",))
    params, report = graft(
        tree, tree, kernels="centre", heads="map", channels=channels, classes=classes
    )
    before, after = flatten(tree), flatten(params)
    assert list(before) == list(after)
    for path, leaf in before.items():
        assert leaf.tobytes() == after[path].tobytes()
    assert len(report.paths("transferred")) == len(report.rows) == len(before)


def test_channels_are_matched_by_name_in_the_first_kernel_alone():
    target, source = _tensors(0), _tensors(1)
    four = ("t1c", "t1n", "t2f", "t2w")
    params, report = graft(
        target, source, channels=ChannelMap(source=four[::-1], target=four)
    )
    stage, theirs = params["encoder"]["stage_0"], source["encoder"]["stage_0"]
    np.testing.assert_array_equal(
        stage["conv_0"]["kernel"], theirs["conv_0"]["kernel"][..., ::-1, :]
    )
    np.testing.assert_array_equal(stage["conv_1"]["kernel"], theirs["conv_1"]["kernel"])
    assert report.paths("adapted") == ("encoder/stage_0/conv_0/kernel",)
    assert "input channels by name" in str(report)


def test_a_new_channel_and_one_left_out_are_told():
    names = ChannelMap(
        source=("t1c", "t1n", "t2f", "t2w"),
        target=("t1c", "t2f", "dwi"),
        new=(("dwi", "mean"),),
    )
    _, report = graft(_tensors(0, num_in=3), _tensors(1), channels=names)
    said = "input channels by name, dwi begins as mean, without t1n, t2w"
    assert said in str(report)


def test_more_names_than_channels_do_not_fit():
    names = ChannelMap(source=("a", "b", "c", "d", "e"), target=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="1 tensors do not fit"):
        graft(_tensors(0), _tensors(1), channels=names)


def test_an_unknown_first_kernel_has_to_be_named():
    target = {"body": {"conv": {"kernel": np.zeros((3, 2, 4))}}}
    source = {"body": {"conv": {"kernel": np.ones((3, 1, 4))}}}
    names = {"source": ("a",), "target": ("a", "b"), "new": (("b", "zero"),)}
    with pytest.raises(ValueError, match="no kernel that sees the image is known"):
        graft(target, source, channels=ChannelMap(**names))
    with pytest.raises(ValueError, match="no kernel body/kernel is known"):
        graft(target, source, channels=ChannelMap(**names, kernels=("body/kernel",)))
    given = ChannelMap(**names, kernels=("body/conv/kernel",))
    params, _ = graft(target, source, channels=given)
    assert params["body"]["conv"]["kernel"].sum(axis=(0, 2)).tolist() == [12, 0]


def test_kernels_of_another_size_fit_only_when_asked():
    target, source = _tensors(0, taps=(3, 3, 3)), _tensors(1, taps=(3, 3))
    with pytest.raises(
        ValueError, match=r"(?s)3 tensors do not fit.*3x3x3x4x8 +3x3x4x8"
    ):
        graft(target, source)
    params, report = graft(target, source, kernels="centre")
    kernel = params["encoder"]["stage_0"]["conv_0"]["kernel"]
    theirs = source["encoder"]["stage_0"]["conv_0"]["kernel"]
    np.testing.assert_array_equal(kernel[1], theirs)
    assert len(report.paths("adapted")) == 3
    assert "3x3 taps to 3x3x3 by rule centre" in str(report)


def test_channels_and_taps_change_together():
    names = ChannelMap(
        source=("red", "green", "blue", "t2w"), target=("t2w",), kernels=()
    )
    params, _ = graft(
        _tensors(0, num_in=1, taps=(3, 3, 3)),
        _tensors(1, taps=(3, 3)),
        channels=names,
        kernels="mean",
    )
    theirs = _tensors(1, taps=(3, 3))["encoder"]["stage_0"]["conv_0"]["kernel"]
    found = params["encoder"]["stage_0"]["conv_0"]["kernel"]
    np.testing.assert_allclose(found.sum(0), theirs[..., 3:, :], rtol=1e-6)


def test_heads_are_mapped_by_class_name():
    target, source = _tensors(0, num_classes=3), _tensors(1, num_classes=2)
    classes = ClassMap(source=("ET", "WT"), target=("WT", "TC", "ET"))
    params, report = graft(target, source, heads="map", classes=classes)
    found, theirs = params["heads"]["level_0"], source["heads"]["level_0"]
    for leaf in ("kernel", "bias"):
        np.testing.assert_array_equal(found[leaf][..., 0], theirs[leaf][..., 1])
        np.testing.assert_array_equal(found[leaf][..., 2], theirs[leaf][..., 0])
        np.testing.assert_array_equal(
            found[leaf][..., 1], target["heads"]["level_0"][leaf][..., 1]
        )
    assert "WT, ET by name; TC left as it was" in str(report)


def test_heads_that_have_not_the_classes_they_claim_do_not_fit():
    classes = ClassMap(source=("ET", "WT", "TC"), target=("WT", "TC", "ET"))
    with pytest.raises(ValueError, match="2 tensors do not fit"):
        graft(_tensors(0), _tensors(1, num_classes=2), heads="map", classes=classes)


def test_keeping_heads_of_other_classes_is_refused():
    classes = ClassMap(source=("ET", "TC", "WT"), target=("WT", "TC", "ET"))
    with pytest.raises(ValueError, match=r"target has WT, TC, ET, the source ET, TC"):
        graft(_tensors(0), _tensors(1), heads="keep", classes=classes)


def test_mapping_without_shared_names_is_refused():
    with pytest.raises(ValueError, match="their names were not given"):
        graft(_tensors(0), _tensors(1), heads="map")
    classes = ClassMap(source=("a", "b", "c"), target=("WT", "TC", "ET"))
    with pytest.raises(ValueError, match="the source has a, b, c, the target WT"):
        graft(_tensors(0), _tensors(1), heads="map", classes=classes)


def test_paths_of_another_tree_are_renamed_and_the_report_says_from_what():
    source = _tensors(1)
    source["backbone"] = source.pop("encoder")
    rules = ((r"backbone/(.*)", r"encoder/\1"),)
    params, report = graft(_tensors(0), source, rename_paths=rules)
    assert params["encoder"]["stage_0"]["norm_0"]["scale"].tolist() == (
        source["backbone"]["stage_0"]["norm_0"]["scale"].tolist()
    )
    assert "was backbone/stage_0/norm_0/scale" in str(report)


def test_a_long_list_of_mismatches_is_cut_and_counted():
    target = {f"layer_{i:02}": {"kernel": np.zeros(2)} for i in range(60)}
    source = {f"layer_{i:02}": {"kernel": np.zeros(3)} for i in range(60)}
    with pytest.raises(ValueError, match="60 tensors do not fit") as caught:
        graft(target, source)
    text = str(caught.value)
    assert "layer_39/kernel" in text and "layer_40/kernel" not in text
    assert "... and 20 more" in text


SIZE = {"features": (2, 4, 4), "num_classes": 3}


def _drawn(model, num_channels=4, num_axes=3, seed=0):
    """Parameters all of which differ from zero."""
    image = jax.ShapeDtypeStruct((1, *(8,) * num_axes, num_channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    rng = np.random.default_rng(seed)
    flat = {p: x.shape for p, x in flatten(shapes).items()}
    draw = {p: rng.normal(size=s).astype(np.float32) for p, s in flat.items()}
    return unflatten(draw)


def _logits(model, params, image):
    return np.asarray(jax.jit(model.apply)({"params": params}, image)[0])


@pytest.mark.parametrize(
    "model",
    [
        models.PlainUNet(**SIZE),
        models.ResEncUNet(**SIZE, num_blocks=(1, 1, 1)),
        models.SegResNet(num_classes=3, num_features=8, num_blocks_down=(1, 1)).clone(
            num_blocks_up=(1,)
        ),
        models.UNet2D(num_classes=3, features=(2, 4, 4), p_drop=0.0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_permuted_channels_by_name_give_the_same_logits(model):
    num_axes = 2 if isinstance(model, models.UNet2D) else 3
    params = _drawn(model, num_axes=num_axes)
    names = ("t1c", "t1n", "t2f", "t2w")
    order = (2, 0, 3, 1)
    image = np.random.default_rng(1).normal(size=(1, *(8,) * num_axes, 4))
    image = jnp.asarray(image.astype(np.float32))
    permuted = ChannelMap(source=names, target=tuple(names[i] for i in order))
    again, report = graft(params, params, channels=permuted)
    stats = {}
    if isinstance(model, models.UNet2D):
        stats = {"batch_stats": model.init(jax.random.key(0), image)["batch_stats"]}
    apply = jax.jit(lambda p, x: model.apply({"params": p, **stats}, x)[0])
    np.testing.assert_allclose(
        apply(again, image[..., order]), apply(params, image), rtol=1e-4, atol=1e-4
    )
    assert len(report.paths("adapted")) == 1


def test_a_plane_net_that_became_a_volume_net_sees_equal_slices_as_before():
    twos = ((1, 1), (2, 2), (2, 2))
    flat = models.PlainUNet(**SIZE, strides=twos)
    thick = models.PlainUNet(**SIZE, strides=tuple((1, *s) for s in twos))
    source = _drawn(flat, num_axes=2)
    params, report = graft(_drawn(thick, seed=9), source, kernels="centre")
    assert not report.paths("initialised")
    image = np.random.default_rng(1).normal(size=(1, 8, 8, 4)).astype(np.float32)
    stack = np.broadcast_to(image[:, None], (1, 4, 8, 8, 4))
    expected = np.broadcast_to(_logits(flat, source, image), (1, 4, 8, 8, 3))
    np.testing.assert_allclose(_logits(thick, params, stack), expected, atol=1e-4)


def test_the_preset_of_nnunet_leaves_its_heads_and_keeps_segresnets():
    unet = models.PlainUNet(**SIZE)
    _, report = graft(_drawn(unet), _drawn(unet, seed=1), heads="nnunet")
    assert {p.split("/")[0] for p in report.paths("initialised")} == {"heads"}
    assert not any(p.startswith("heads") for p in report.paths("transferred"))

    net = models.SegResNet(num_classes=3, num_features=8, num_blocks_down=(1,)).clone(
        num_blocks_up=()
    )
    params, report = graft(_drawn(net), _drawn(net, seed=1), heads="nnunet")
    assert not report.paths("initialised")
    assert "kept, since nnU-Net leaves out `.seg_layers.` alone" in str(report)


def test_the_preset_of_nnunet_is_for_networks_that_torch_has():
    with pytest.raises(ValueError, match="has no counterpart in torch"):
        graft(_tensors(0), _tensors(1), heads="nnunet")


def test_the_kernels_between_classes_of_an_fcn_are_heads():
    net = models.FCN(num_classes=3, features=(2, 2, 2, 2, 2))
    image = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    flat = {path: np.ones(x.shape) for path, x in flatten(shapes).items()}
    _, report = graft(unflatten(flat), unflatten(flat), heads="init")
    assert {"up_8/kernel", "up_16/kernel", "up_32/kernel"} <= {
        *report.paths("initialised")
    }
    fewer = {
        path: leaf[..., :2, :2]
        if path.startswith("up_")
        else leaf[..., :2]
        if path.startswith("heads")
        else leaf
        for path, leaf in flat.items()
    }
    classes = ClassMap(source=("ET", "WT"), target=("WT", "TC", "ET"))
    params, report = graft(
        unflatten({path: 0 * leaf for path, leaf in flat.items()}),
        unflatten(fewer),
        heads="map",
        classes=classes,
    )
    assert not report.paths("initialised")
    kernel = params["up_8"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 0], [[1, 0, 1], [0, 0, 0], [1, 0, 1]])
