"""The sliding window: its grid, its weights, its invariants, its one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from bmjax.inference.sliding import fold_logits, sliding_logits, stack_folds
from bmjax.inference.windows import (
    SlidingWindow,
    alike,
    gaussian,
    num_windows,
    window_starts,
)

FLIPPED = SlidingWindow(flips="all")


def identity(image):
    return image


def twos(image):
    return jnp.full((*image.shape[:-1], 3), 2.0)


def test_grid_of_110_voxels_by_windows_of_64_is_nnunets():
    assert window_starts((110,), (64,), overlap=0.5) == ((0, 23, 46),)


def test_grid_of_the_siberian_cases_has_125_windows():
    starts = window_starts((192, 512, 432), (64, 192, 160), overlap=0.5)
    assert np.prod([len(s) for s in starts]) == 125


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 200),
    st.integers(1, 64),
    st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
def test_windows_reach_both_ends_and_overlap_enough(length, width, overlap):
    length = max(length, width)
    (starts,) = window_starts((length,), (width,), overlap=overlap)
    assert starts[0] == 0
    assert starts[-1] == length - width
    steps = np.diff(starts)
    assert np.all(steps > 0) or width * (1 - overlap) < 1
    # rounding a start moves it by half a voxel
    assert np.all(steps <= width * (1 - overlap) + 1)


def test_a_volume_smaller_than_the_window_has_no_grid():
    with pytest.raises(ValueError, match="smaller than the window"):
        window_starts((10, 10, 3), (16, 16, 16))


def test_gaussian_is_one_at_the_centre_and_positive_everywhere():
    weights = gaussian((16, 8, 12))
    assert weights.dtype == np.float32
    assert weights[8, 4, 6] == 1 == weights.max()
    assert weights.min() > 0


def test_gaussian_has_a_width_of_an_eighth_of_the_window():
    weights = gaussian((64,))
    np.testing.assert_allclose(weights[32 + 8] / weights[32], np.exp(-0.5), rtol=1e-3)


sizes = st.tuples(*[st.integers(1, 20)] * 3)


@settings(deadline=None, max_examples=25)
@given(sizes, st.sampled_from([0.0, 0.5]), st.integers(1, 3))
def test_a_constant_network_gives_a_constant(size, overlap, batch_size):
    logits = sliding_logits(
        twos,
        np.zeros((*size, 1), np.float32),
        window=(8, 8, 8),
        num_classes=3,
        settings=SlidingWindow(overlap=overlap, batch_size=batch_size),
    )
    np.testing.assert_allclose(logits, np.full((*size, 3), 2.0), rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(sizes, st.integers(1, 3), st.sampled_from(["none", "all"]))
def test_an_identity_network_returns_the_image(size, batch_size, flips):
    image = np.random.default_rng(0).normal(size=(*size, 2)).astype(np.float32)
    logits = sliding_logits(
        identity,
        image,
        window=(8, 8, 8),
        num_classes=2,
        settings=SlidingWindow(batch_size=batch_size, flips=flips),
    )
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, image, rtol=1e-5, atol=1e-5)


def smooth(image):
    """Commutes with flips: the mean of both neighbours along every axis."""
    for axis in (1, 2, 3):
        image = (jnp.roll(image, 1, axis) + jnp.roll(image, -1, axis)) / 2
    return image


def shift(image):
    """Does not commute with flips."""
    return jnp.roll(image, 1, axis=2)


def test_flips_do_not_change_a_network_that_commutes_with_them(rng):
    image = rng.normal(size=(16, 16, 16, 1)).astype(np.float32)
    kwargs = {"window": (16, 16, 16), "num_classes": 1}
    plain = sliding_logits(smooth, image, **kwargs)
    flipped = sliding_logits(smooth, image, settings=FLIPPED, **kwargs)
    np.testing.assert_allclose(flipped, plain, rtol=1e-5, atol=1e-6)


def test_flips_are_the_mean_over_all_mirrored_copies(rng):
    image = rng.normal(size=(8, 8, 8, 1)).astype(np.float32)
    kwargs = {"window": (8, 8, 8), "num_classes": 1}
    got = sliding_logits(shift, image, settings=FLIPPED, **kwargs)
    want = (np.roll(image, 1, axis=1) + np.roll(image, -1, axis=1)) / 2
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_prediction_of_a_mirrored_volume_is_the_mirrored_prediction(rng):
    # starts 0, 4, 7, 10, 14 and an odd window: grid and weights are symmetric along y
    image = rng.normal(size=(16, 23, 16, 1)).astype(np.float32)
    kwargs = {"window": (9, 9, 9), "num_classes": 1, "settings": FLIPPED}
    got = sliding_logits(shift, image[:, ::-1].copy(), **kwargs)[:, ::-1]
    want = sliding_logits(shift, image, **kwargs)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_the_batch_size_does_not_change_the_logits(rng, batch_size):
    image = rng.normal(size=(20, 12, 9, 2)).astype(np.float32)
    kwargs = {"window": (8, 8, 8), "num_classes": 2}
    one = sliding_logits(smooth, image, **kwargs)
    together = SlidingWindow(batch_size=batch_size)
    many = sliding_logits(smooth, image, settings=together, **kwargs)
    np.testing.assert_allclose(many, one, rtol=1e-6, atol=1e-6)


def test_devices_share_the_windows_and_change_nothing():
    image = np.random.default_rng(0).normal(size=(9, 14, 11, 2)).astype(np.float32)
    kwargs = {"window": (8, 8, 8), "num_classes": 2, "settings": FLIPPED}
    one = sliding_logits(smooth, image, **kwargs)
    all_of_them = sliding_logits(smooth, image, devices=jax.devices(), **kwargs)
    np.testing.assert_array_equal(one, all_of_them)


def test_a_2d_network_runs_on_every_slice(rng):
    image = rng.normal(size=(3, 20, 10, 2)).astype(np.float32)

    def slicewise(windows):
        assert windows.ndim == 4
        return windows

    logits = sliding_logits(slicewise, image, window=(8, 16), num_classes=2)
    np.testing.assert_allclose(logits, image, rtol=1e-5, atol=1e-5)
    assert num_windows((3, 20, 10), (8, 16)) == 3 * 4


def test_fault_33_a_volume_smaller_than_the_window_is_padded_and_cropped(rng):
    image = rng.normal(size=(3, 10, 10, 1)).astype(np.float32)
    logits = sliding_logits(identity, image, window=(16, 16, 16), num_classes=1)
    np.testing.assert_allclose(logits, image, rtol=1e-6)


@pytest.mark.parametrize("flips", ["none", "all"])
def test_cases_of_other_shapes_compile_nothing_new(rng, flips):
    traces = []

    def apply(params, windows):
        traces.append(windows.shape)
        return windows * params["scale"]

    compilations = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number, size in enumerate([(9, 12, 10), (20, 8, 17), (4, 4, 4)]):
            image = rng.normal(size=(*size, 1)).astype(np.float32)
            # other parameters, same function: passed, not compiled in
            params = {"scale": jnp.float32(number + 1)}
            logits = sliding_logits(
                Partial(apply, params),
                image,
                window=(8, 8, 8),
                num_classes=1,
                settings=SlidingWindow(batch_size=2, flips=flips),
            )
            np.testing.assert_allclose(logits, image * (number + 1), rtol=1e-5)
            if number == 0:
                compilations.clear()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert traces == [(2, 8, 8, 8, 1)]
    assert compilations == []


def test_bfloat16_logits_are_summed_in_float32(rng):
    def half(windows):
        return windows.astype(jnp.bfloat16)

    image = rng.normal(size=(8, 8, 8, 1)).astype(np.float32)
    logits = sliding_logits(half, image, window=(8, 8, 8), num_classes=1)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, image, rtol=1e-2)


def test_a_network_with_several_outputs_is_refused(rng):
    image = np.zeros((8, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="take the first output, got tuple"):
        sliding_logits(lambda x: (x, x), image, window=(8, 8, 8), num_classes=1)


def test_a_wrong_number_of_classes_is_refused():
    image = np.zeros((8, 8, 8, 1), np.float32)
    with pytest.raises(ValueError, match="returned 1 channels, expected 3"):
        sliding_logits(identity, image, window=(8, 8, 8), num_classes=3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("overlap", 1.0, "overlap must be in"), ("batch_size", 0, "at least 1")],
)
def test_an_impossible_window_spec_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        SlidingWindow(**{field: value})


def test_progress_counts_every_window():
    seen = []
    sliding_logits(
        identity,
        np.arange(16 * 8 * 8, dtype=np.float32).reshape(16, 8, 8, 1),
        window=(8, 8, 8),
        num_classes=1,
        settings=SlidingWindow(batch_size=2),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 3), (3, 3)]


def scaled(params, windows):
    return windows * params["scale"] + params["offset"]


def folds(*pairs):
    return [
        Partial(scaled, {"scale": np.float32(a), "offset": np.float32(b)})
        for a, b in pairs
    ]


@pytest.mark.parametrize("flips", ["none", "all"])
def test_stacked_folds_give_the_mean_of_the_folds_and_each_of_them(rng, flips):
    image = rng.normal(size=(9, 12, 10, 2)).astype(np.float32)
    networks = folds((1, 0), (2, 3), (-4, 1))
    kwargs = {"window": (8, 8, 8), "num_classes": 2}
    kwargs["settings"] = SlidingWindow(flips=flips)
    each = [sliding_logits(network, image, **kwargs) for network in networks]
    stacked = stack_folds(networks)
    apart = fold_logits(stacked, image, num_folds=3, **kwargs)
    np.testing.assert_allclose(apart, np.stack(each), rtol=1e-5, atol=1e-5)
    mean = sliding_logits(stacked, image, num_folds=3, **kwargs)
    np.testing.assert_allclose(mean, np.mean(each, axis=0), rtol=1e-5, atol=1e-5)


def test_folds_of_other_functions_are_not_stacked():
    with pytest.raises(ValueError, match="parameters of one function"):
        stack_folds([*folds((1, 0)), Partial(lambda p, x: x, {})])


def test_windows_without_content_pass_the_network_once_and_change_nothing(rng):
    image = np.full((40, 24, 24, 2), 3, np.float32)
    image[:, :, :, 1] = -1
    image[5:12, 4:10, 6:14] = rng.normal(size=(7, 6, 8, 2))
    seen = []

    def counted(windows):
        jax.debug.callback(lambda x: seen.extend(x), windows)
        return jnp.sin(windows) + jnp.arange(8.0)[None, :, None, None, None]

    kwargs = {"window": (8, 8, 8), "num_classes": 2}
    each = sliding_logits(
        counted, image, settings=SlidingWindow(empty="each"), **kwargs
    )
    jax.effects_barrier()
    assert len(seen) == num_windows((40, 24, 24), (8, 8, 8)) == 225
    seen.clear()
    once = sliding_logits(counted, image, **kwargs)
    jax.effects_barrier()
    constant = [x for x in seen if np.ptp(x, axis=(0, 1, 2)).max() == 0]
    assert len(constant) == 1 and len(seen) < 100
    # sums in another order
    np.testing.assert_allclose(once, each, rtol=1e-5, atol=1e-5)


def test_constants_of_another_height_are_told_apart():
    volume = np.zeros((3, 2, 2, 1), np.float32)
    volume[2] = 1
    found = alike(volume, iter([(slice(z, z + 1),) * 3 for z in (0, 0, 1)]))
    assert [len(same) for same in found] == [3]
    places = [(slice(z, z + 1), slice(0, 2), slice(0, 2)) for z in range(3)]
    assert [len(same) for same in alike(volume, iter(places))] == [2, 1]
