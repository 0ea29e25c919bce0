"""Each transform against batchgeneratorsv2, with its random numbers fixed."""

import importlib
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax.augment import AugmentPolicy, Spatial, geometry, intensity
from bmjax.augment.spatial import resample

pytestmark = pytest.mark.parity
SIZES = [(14, 17, 12), (31, 26)]


@cache
def torch():
    return importlib.import_module("torch")


@pytest.fixture(autouse=True)
def seeds():
    """batchgeneratorsv2 draws from the generators of all."""
    np.random.seed(0)  # noqa: NPY002
    torch().manual_seed(0)


def their(module, name):
    """A class of batchgeneratorsv2, imported when a test runs."""
    return getattr(
        importlib.import_module(f"batchgeneratorsv2.transforms.{module}"), name
    )


def factor():
    return their("intensity.contrast", "BGContrast")((0.75, 1.25))


def draw(size, seed=0):
    """A smooth image with noise, z-scored about, and labels in blobs."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(*size, 4)).astype(np.float32) + 0.3
    coarse = rng.integers(0, 4, tuple(-(-n // 4) for n in size)).astype(np.int8)
    labels = np.kron(coarse, np.ones((4,) * len(size), np.int8))
    return image, labels[tuple(slice(0, n) for n in size)]


def to_torch(image):
    return torch().from_numpy(np.moveaxis(image, -1, 0).copy())


def from_torch(image):
    return np.moveaxis(image.numpy(), 0, -1)


@pytest.mark.parametrize("size", SIZES)
def test_brightness_is_theirs(size):
    image, _ = draw(size)
    factors = np.array([0.8, 1.2, 0.9, 1.1], np.float32)
    theirs = their("intensity.brightness", "MultiplicativeBrightnessTransform")(
        factor(), False
    )._apply_to_image(
        to_torch(image),
        apply_to_channel=torch().arange(4),
        multipliers=torch().from_numpy(factors),
    )
    ours = intensity.brightness(jnp.asarray(image), jnp.asarray(factors))
    np.testing.assert_allclose(ours, from_torch(theirs), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_contrast_is_theirs(size):
    image, _ = draw(size)
    factors = np.array([0.8, 1.2, 0.9, 1.1], np.float32)
    theirs = their("intensity.contrast", "ContrastTransform")(
        factor(), True, False
    )._apply_to_image(
        to_torch(image),
        apply_to_channel=torch().arange(4),
        multipliers=torch().from_numpy(factors),
    )
    ours = intensity.contrast(jnp.asarray(image), jnp.asarray(factors))
    np.testing.assert_allclose(ours, from_torch(theirs), atol=1e-5)


@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_gamma_is_theirs(size, is_inverted):
    image, _ = draw(size)
    powers = np.array([0.7, 1.5, 0.9, 1.2], np.float32)
    theirs = their("intensity.gamma", "GammaTransform")(
        factor(), 1, False, 1, 1
    )._apply_to_image(
        to_torch(image),
        apply_to_channel=torch().arange(4),
        retain_stats=torch().ones(4, dtype=torch().bool),
        invert_image=torch().full((4,), is_inverted),
        gamma=torch().from_numpy(powers),
    )
    ours = intensity.gamma(
        jnp.asarray(image), jnp.asarray(powers), is_inverted=is_inverted
    )
    np.testing.assert_allclose(ours, from_torch(theirs), atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_blur_is_theirs(size):
    image, _ = draw(size)
    chosen = np.array([True, False, True, True])
    sigma = np.random.default_rng(1).uniform(0.5, 1.0, (4, len(size)))
    sigma[0] = 0.5  # the ends of the range, where the number of taps changes
    sigma[2] = 1.0
    theirs = their("noise.gaussian_blur", "GaussianBlurTransform")(
        (0.5, 1.0), False, False, 0.5
    )._apply_to_image(
        to_torch(image),
        apply_to_channel=torch().from_numpy(chosen),
        sigmas=[list(map(float, own)) for own in sigma[chosen]],
    )
    ours = intensity.blur(
        jnp.asarray(image), jnp.asarray(sigma, jnp.float32), chosen=jnp.asarray(chosen)
    )
    np.testing.assert_allclose(ours, from_torch(theirs), atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("keep_first_axis", [False, True])
def test_low_resolution_is_theirs(size, keep_first_axis):
    image, _ = draw(size)
    chosen = np.array([True, False, True, True])
    scales = np.array([0.5, 0.9, 0.73, 0.987], np.float32)
    each = torch().from_numpy(np.repeat(scales[:, None], len(size), 1))
    if keep_first_axis:
        each[:, 0] = 1
    theirs = their("spatial.low_resolution", "SimulateLowResolutionTransform")(
        (0.5, 1), False, True, None
    )
    theirs = theirs._apply_to_image(
        to_torch(image),
        apply_to_channel=np.flatnonzero(chosen),
        scales=each[chosen],
    )
    ours = intensity.low_resolution(
        jnp.asarray(image),
        jnp.asarray(scales),
        chosen=jnp.asarray(chosen),
        keep_first_axis=keep_first_axis,
    )
    np.testing.assert_allclose(ours, from_torch(theirs), atol=1e-5)


def their_spatial(size, *, angle, scale):
    """Their transform, with one angle about each axis and one scale."""
    return their("spatial.spatial", "SpatialTransform")(
        size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=1,
        rotation=(angle, angle),
        p_scaling=1,
        scaling=(scale, scale),
        p_synchronize_scaling_across_axes=1,
        bg_style_seg_sampling=False,
        border_mode_seg="constant",
        padding_value_seg=0,
    )


@pytest.mark.parametrize(
    ("box", "size"), [((24, 28, 22), (14, 16, 12)), ((40, 36), (26, 24))]
)
@pytest.mark.parametrize(("angle", "scale"), [(0.4, 1.3), (-0.3, 0.7), (0.0, 1.4)])
def test_rotation_and_scale_are_theirs(box, size, angle, scale):
    image, labels = draw(box)
    transform = their_spatial(size, angle=angle, scale=scale)
    found = transform(
        image=to_torch(image), segmentation=torch().from_numpy(labels[None])
    )
    turn = geometry.rotation(np.full(1 if len(size) == 2 else 3, angle))
    affine = geometry.affine(turn * scale, size, offset=np.subtract(box, size) / 2)
    ours, own = resample(
        jnp.asarray(image), jnp.asarray(labels), jnp.asarray(affine), size=size
    )
    np.testing.assert_allclose(ours, from_torch(found["image"]), atol=1e-3)
    # theirs are counted in float16, so that near ties may fall to the other side
    assert np.mean(np.asarray(own) != found["segmentation"][0].numpy()) < 2e-3


def test_labels_are_theirs_where_the_patch_leaves_the_box():
    box, size = (12, 12, 12), (16, 16, 16)
    image, labels = draw(box)
    transform = their_spatial(size, angle=0.3, scale=1.0)
    found = transform(
        image=to_torch(image), segmentation=torch().from_numpy(labels[None])
    )
    turn = geometry.rotation(np.full(3, 0.3))
    affine = geometry.affine(turn, size, offset=np.subtract(box, size) / 2)
    ours, own = resample(
        jnp.asarray(image), jnp.asarray(labels), jnp.asarray(affine), size=size
    )
    np.testing.assert_allclose(ours, from_torch(found["image"]), atol=1e-3)
    assert np.mean(np.asarray(own) != found["segmentation"][0].numpy()) < 2e-3


def test_the_box_is_nnunets():
    get_patch_size = importlib.import_module(
        "nnunetv2.training.data_augmentation.compute_initial_patch_size"
    ).get_patch_size

    for size in [(64, 192, 160), (128, 160, 112), (128, 128, 128), (96, 256, 224)]:
        limit = np.deg2rad(30)
        theirs = get_patch_size(size, *[(-limit, limit)] * 3, (0.85, 1.25))
        assert Spatial().box_size(size) == tuple(theirs)
    theirs = get_patch_size((16, 128, 96), *[(-np.pi, np.pi)] * 3, (0.85, 1.25))
    assert Spatial().box_size((16, 128, 96)) == (16, *theirs[1:])
    for size, limit in (((192, 160), np.pi), ((256, 128), np.deg2rad(15))):
        theirs = get_patch_size(size, *[(-limit, limit)] * 3, (0.85, 1.25))
        assert Spatial().box_size(size) == tuple(theirs)


def test_moments_of_the_drawn_values_are_theirs():
    """Over 2,000 draws: factors, angles, scales."""
    count = 2000
    draw_one = factor()
    theirs = np.array([draw_one() for _ in range(count)])
    ours = np.asarray(
        intensity.split_uniform(jax.random.key(0), (count,), low=0.75, high=1.25)
    )
    assert abs(theirs.mean() - ours.mean()) < 0.02
    assert abs(theirs.std() - ours.std()) < 0.02
    rngs = [np.random.default_rng(i) for i in range(count)]
    drawn = [Spatial().draw(rng, (32, 32, 32)) for rng in rngs]
    scales = np.array([np.cbrt(np.linalg.det(p.matrix)) for p in drawn])
    is_scaled = np.abs(scales - 1) > 1e-5
    assert abs(is_scaled.mean() - 0.2) < 0.03
    assert scales[is_scaled].min() > 0.7 and scales.max() < 1.4
    assert abs(scales[is_scaled].mean() - 1.05) < 0.03
    turned = [not np.allclose(p.matrix, np.eye(3) * p.matrix[0, 0]) for p in drawn]
    assert abs(np.mean(turned) - 0.2) < 0.03


def test_the_noise_of_2000_samples_has_their_moments():
    image = jnp.zeros((2000, 2, 2, 2, 4))
    policy = AugmentPolicy(
        p_noise=1.0,
        **dict.fromkeys(
            ("p_blur", "p_brightness", "p_contrast", "p_low_resolution"), 0.0
        ),
        **dict.fromkeys(("p_gamma_inverted", "p_gamma", "p_mirror"), 0.0),
        keep_background=False,
    )
    keys = jax.random.split(jax.random.key(0), 2000)
    labels = jnp.zeros(image.shape[:-1], jnp.int8)
    ours, _ = jax.jit(lambda: policy(image, labels, keys=keys))()
    transform = their("intensity.gaussian_noise", "GaussianNoiseTransform")(
        (0, 0.1), 1, True
    )
    theirs = [
        transform(image=torch().zeros(4, 2, 2, 2))["image"].numpy() for _ in range(2000)
    ]
    # uniform standard deviations from 0 to .1; the bounds are five errors of the mean
    for power, moment, bound in (
        (1, 0.0, 1.2e-3),
        (2, 0.1**2 / 3, 3.5e-4),
        (4, 3 * 0.1**4 / 5, 1.0e-5),
    ):
        assert abs(np.mean(np.asarray(ours) ** power) - moment) < bound
        assert abs(np.mean(np.stack(theirs) ** power) - moment) < bound
