"""Transforms of single tensors: sizes of kernels, channels and classes by name."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from bmjax.surgery import ChannelMap, ClassMap, fit_kernel

FOUR = ("t1c", "t1n", "t2f", "t2w")
_odd = st.sampled_from((1, 3, 5, 7))
_sizes = st.lists(_odd, min_size=1, max_size=3).map(tuple)


def numbered(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def convolved(image, kernel):
    """`z y x c` by `z y x c f`, zeros outside."""
    out = lax.conv_general_dilated(
        jnp.asarray(image)[None],
        jnp.asarray(kernel),
        window_strides=(1, 1, 1),
        padding="SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    return np.asarray(out[0])


@given(size=_sizes, margins=st.lists(st.integers(0, 2), min_size=3, max_size=3))
@settings(deadline=None, max_examples=30)
def test_padding_then_cropping_is_the_identity(size, margins):
    kernel = numbered(*size, 2, 3)
    larger = tuple(n + 2 * m for n, m in zip(size, margins, strict=False))
    padded = fit_kernel(kernel, larger, rule="centre")
    assert padded.shape == (*larger, 2, 3)
    np.testing.assert_array_equal(fit_kernel(padded, size, rule="centre"), kernel)
    assert np.abs(padded).sum() == pytest.approx(np.abs(kernel).sum(), rel=1e-5)


@pytest.mark.parametrize("rule", ["centre", "mean"])
@pytest.mark.parametrize("is_transposed", [False, True])
@given(num_taps=_odd)
@settings(deadline=None, max_examples=10)
def test_a_plane_that_is_made_thick_and_thin_again_is_the_same(
    rule, is_transposed, num_taps
):
    kernel = numbered(3, 3, 2, 3)
    thick = fit_kernel(kernel, (num_taps, 3, 3), rule=rule, is_transposed=is_transposed)
    again = fit_kernel(thick, (3, 3), rule=rule, is_transposed=is_transposed)
    np.testing.assert_allclose(again, kernel, rtol=1e-6)


@given(num_taps=st.sampled_from((3, 5)), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=10)
def test_a_spread_kernel_sees_a_constant_stack_as_the_plane_saw_a_slice(num_taps, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(1, 3, 3, 2, 3)).astype(np.float32)
    image = np.broadcast_to(rng.normal(size=(1, 6, 6, 2)), (9, 6, 6, 2))
    image = image.astype(np.float32)
    flat = convolved(image, kernel)
    thick = convolved(image, fit_kernel(kernel, (num_taps, 3, 3), rule="mean"))
    inside = slice(num_taps // 2, -(num_taps // 2))  # away from the zeros outside
    np.testing.assert_allclose(thick[inside], flat[inside], atol=1e-5)


def test_a_centred_kernel_does_exactly_what_the_plane_did_on_any_image():
    kernel, image = numbered(1, 3, 3, 2, 3), numbered(5, 6, 6, 2)
    thick = convolved(image, fit_kernel(kernel, (3, 3, 3), rule="centre"))
    np.testing.assert_array_equal(thick, convolved(image, kernel))


def test_spreading_divides_by_the_number_of_taps_and_summing_does_not():
    plane = numbered(1, 2, 2, 1, 1)
    thick = fit_kernel(plane, (3, 2, 2), rule="mean")
    np.testing.assert_allclose(thick, np.repeat(plane / 3, 3, axis=0), rtol=1e-6)
    cube = numbered(3, 3, 3, 1, 1)
    thin = fit_kernel(cube, (1, 3, 3), rule="mean")
    np.testing.assert_allclose(thin, cube.sum(0, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("rule", ["centre", "mean"])
def test_a_transposed_convolution_repeats_and_averages(rule):
    plane = numbered(1, 2, 2, 3, 4)
    thick = fit_kernel(plane, (2, 2, 2), rule=rule, is_transposed=True)
    np.testing.assert_array_equal(thick, np.repeat(plane, 2, axis=0))
    cube = numbered(2, 2, 2, 3, 4)
    thin = fit_kernel(cube, (1, 2, 2), rule=rule, is_transposed=True)
    np.testing.assert_allclose(thin[0], cube.mean(0), rtol=1e-6)


def test_what_no_rule_can_give_is_none():
    assert fit_kernel(numbered(2, 2, 1, 1), (3, 3), rule="centre") is None
    assert fit_kernel(numbered(3, 3, 1, 1), (5, 5), rule="exact") is None
    assert fit_kernel(numbered(3, 1, 1), (3, 3, 3), rule="centre") is None
    up = numbered(2, 2, 1, 1)
    assert fit_kernel(up, (4, 4), rule="mean", is_transposed=True) is None


def test_a_kernel_of_the_same_size_is_itself():
    kernel = numbered(3, 3, 1, 1)
    assert fit_kernel(kernel, (3, 3), rule="exact") is kernel


def test_low_precision_is_kept_and_summed_in_float32():
    kernel = np.asarray(jnp.ones((5, 3, 1, 1), jnp.bfloat16))
    fitted = fit_kernel(kernel, (1, 3), rule="mean")
    assert fitted.dtype == kernel.dtype
    assert (fitted.astype(np.float32) == 5).all()


@given(order=st.permutations(FOUR))
@settings(deadline=None, max_examples=24)
def test_channels_by_name_and_back_is_the_identity(order):
    kernel = numbered(3, 3, 4, 2)
    there = ChannelMap(source=FOUR, target=tuple(order)).carry(kernel)
    for i, name in enumerate(order):
        np.testing.assert_array_equal(
            there[..., i, :], kernel[..., FOUR.index(name), :]
        )
    again = ChannelMap(source=tuple(order), target=FOUR).carry(there)
    np.testing.assert_array_equal(again, kernel)


def test_a_new_channel_begins_as_it_is_told():
    kernel = numbered(3, 3, 4, 2)
    found = ChannelMap(
        source=FOUR,
        target=("dwi", *FOUR[1:], "adc", "t1ce"),
        new=(("dwi", "zero"), ("adc", "mean"), ("t1ce", "t1c")),
    ).carry(kernel)
    assert found.shape == (3, 3, 6, 2)
    assert (found[..., 0, :] == 0).all()
    np.testing.assert_array_equal(found[..., 1:4, :], kernel[..., 1:, :])
    np.testing.assert_allclose(found[..., 4, :], kernel.mean(-2), rtol=1e-6)
    np.testing.assert_array_equal(found[..., 5, :], kernel[..., 0, :])


def test_channels_before_those_of_the_image_stay():
    kernel = numbered(3, 3, 6, 2)  # two of a decoder, then the image's four
    found = ChannelMap(source=FOUR, target=FOUR[::-1]).carry(kernel)
    np.testing.assert_array_equal(found[..., :2, :], kernel[..., :2, :])
    np.testing.assert_array_equal(found[..., 2:, :], kernel[..., :1:-1, :])


def test_a_new_channel_of_which_nothing_is_said_is_refused():
    with pytest.raises(ValueError, match="no channel dwi.*such as dwi zero"):
        ChannelMap(source=FOUR, target=(*FOUR, "dwi"))


@pytest.mark.parametrize(
    ("new", "match"),
    [
        ((("dwi", "zero"), ("t1c", "zero")), "t1c, which is no new channel"),
        ((("dwi", "zero"), ("adc", "zero")), "adc, which is no new channel"),
        ((("dwi", "flair"),), "begin as 'flair'; expected zero, mean or one"),
    ],
)
def test_a_wrong_word_for_a_new_channel_is_refused(new, match):
    with pytest.raises(ValueError, match=match):
        ChannelMap(source=FOUR, target=(*FOUR, "dwi"), new=new)


@pytest.mark.parametrize("kind", [ChannelMap, ClassMap])
def test_names_that_cannot_be_told_apart_are_refused(kind):
    with pytest.raises(ValueError, match="not all different"):
        kind(source=("a", "a"), target=("a", "b"))


def test_classes_go_by_name_and_the_others_stay():
    names = ClassMap(source=("ET", "WT"), target=("WT", "TC", "ET"))
    old, new = np.zeros((1, 8, 3)), numbered(1, 8, 2)
    found = names.carry(old, new)
    np.testing.assert_array_equal(found[..., [2, 0]], new)
    assert (found[..., 1] == 0).all()
    assert (old == 0).all()
    assert names.note == "WT, ET by name; TC left as it was"


def test_a_kernel_between_classes_goes_by_name_on_both_sides():
    names = ClassMap(source=("ET", "WT"), target=("WT", "ET", "TC"))
    old, new = np.zeros((4, 4, 3, 3)), numbered(4, 4, 2, 2)
    found = names.carry(old, new, num_axes=2)
    np.testing.assert_array_equal(found[..., :2, :2], new[..., ::-1, ::-1])
    assert (found[..., 2, :] == 0).all() and (found[..., 2] == 0).all()
