"""Adds metastases to a sample: drawn ones, and real small ones of other cases.

Both put a box into the sample at a place inside the brain where no lesion is, blended
by a soft mask, so that the tissue around stays as it is.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, PRNGKeyArray

Pair = tuple[Array, Array]
_TRIES = 16  # places looked at
_FITS = 0.98  # fraction of a lesion that must lie in brain without a lesion


@dataclass(frozen=True, kw_only=True)
class NewLesions:
    """How often lesions are added, and what drawn ones look like.

    Attributes:
      p_drawn: probability of one drawn metastasis per sample.
      p_pasted: probability of one real lesion, copied from a training case.
      paste_mm3: smallest and largest volume of a lesion that is copied.
      paste_size: side of the box that is copied [vox].
      radius_vox: smallest and largest mean radius of a drawn one, log-uniform [vox].
      enhancement: what the enhancing part adds to each channel, in the order of the
        plan's channels and the units of the prepared image (standard deviations). The
        defaults, and those of necrosis, are the medians over twelve BraTS-Africa cases
        at 2 mm of the label's mean less that of the tissue 3 to 6 voxels around.
      necrosis: the same of the core of those of more than 3 voxels radius.
      spread: these are multiplied by a factor between 1 - spread and 1 + spread.
      enhancing_label: label value of the enhancing part.
      necrosis_label: label value of the core.
    """

    p_drawn: float = 0.0
    p_pasted: float = 0.0
    paste_mm3: tuple[float, float] = (10.0, 500.0)
    paste_size: int = 24
    radius_vox: tuple[float, float] = (1.0, 5.0)
    enhancement: tuple[float, ...] = (1.05, -0.1, 1.5, 1.3)
    necrosis: tuple[float, ...] = (-0.15, -0.25, 1.05, 1.9)
    spread: float = 0.4
    enhancing_label: int = 3
    necrosis_label: int = 1


def draw_lesion(
    image: Float[Array, "z y x c"],
    labels: Int[Array, "z y x"],
    *,
    key: PRNGKeyArray,
    look: NewLesions,
) -> tuple[Float[Array, "z y x c"], Int[Array, "z y x"]]:
    """Add one metastasis: a lumpy ellipsoid with a soft rim, larger ones with a core.

    Raises:
      ValueError: `look` has values for another number of channels.
    """
    channels = image.shape[-1]
    if {len(look.enhancement), len(look.necrosis)} != {channels}:
        raise ValueError(
            f"the image has {channels} channels, but new_lesions.enhancement has "
            f"{len(look.enhancement)} values and new_lesions.necrosis "
            f"{len(look.necrosis)}; give one for each channel of the plan"
        )
    keys = jax.random.split(key, 7)
    side = min(2 * int(1.6 * look.radius_vox[1]) + 5, *labels.shape)
    low, high = jnp.log(jnp.asarray(look.radius_vox))
    radius = jnp.exp(jax.random.uniform(keys[0], (), minval=low, maxval=high))
    stretch = jax.random.uniform(keys[1], (1, 1, 1, 3), minval=0.8, maxval=1.25)
    turn, _ = jnp.linalg.qr(jax.random.normal(keys[2], (3, 3)))
    axis = jnp.arange(side) - (side - 1) / 2
    place = jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), -1)  # z y x 3
    lumps = jax.random.normal(keys[3], (4, 4, 4))
    lumps = jax.image.resize(lumps, (side,) * 3, "cubic")
    depth_vox = radius - jnp.linalg.norm(place @ turn / stretch, axis=-1)
    depth_vox = depth_vox + 0.15 * radius * lumps  # below the surface
    share = jnp.clip(0.5 + depth_vox, 0, 1)  # of the voxel, partial volume
    core = jnp.where(radius > 3, jnp.clip(depth_vox - 0.4 * radius + 0.5, 0, 1), 0)
    factors = 1 + look.spread * jax.random.uniform(
        keys[4], (2, channels), minval=-1.0, maxval=1.0
    )
    rim = jnp.asarray(look.enhancement) * factors[0]
    middle = jnp.asarray(look.necrosis) * factors[1]
    shares = share[..., None], core[..., None]  # z y x 1
    added = shares[0] * (_wide(rim) + shares[1] * (_wide(middle) - _wide(rim)))
    solid = share >= 0.5
    own = jnp.where(core >= 0.5, look.necrosis_label, look.enhancing_label)
    own = jnp.where(solid, own, 0)
    start, fits = _find_place(image, labels, solid, key=keys[5])
    before = lax.dynamic_slice(image, (*start, 0), (side, side, side, channels))
    inside = jnp.any(before != 0, -1, keepdims=True)
    after = before + jnp.where(inside, added, 0)
    return _put(image, labels, after, own, start, fits)


def paste_lesion(
    image: Float[Array, "z y x c"],
    labels: Int[Array, "z y x"],
    donor_image: Float[Array, "n n n c"],
    donor_labels: Int[Array, "n n n"],
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "z y x c"], Int[Array, "z y x"]]:
    """Copy a real lesion to another place, on the brightness of the tissue there.

    The lesion is mirrored at random and blended over a rim of one voxel; what it adds
    to the tissue around it is kept. A donor without a lesion changes nothing.
    """
    place_key, flip_key = jax.random.split(key)
    cut = tuple(
        slice(0, min(a, b))
        for a, b in zip(donor_labels.shape, labels.shape, strict=True)
    )
    donor_image, donor_labels = donor_image[cut], donor_labels[cut]
    for axis, is_reversed in enumerate(jax.random.bernoulli(flip_key, 0.5, (3,))):
        donor_image = jnp.where(is_reversed, jnp.flip(donor_image, axis), donor_image)
        donor_labels = jnp.where(
            is_reversed, jnp.flip(donor_labels, axis), donor_labels
        )
    mask = donor_labels > 0
    start, fits = _find_place(image, labels, mask, key=place_key)
    before = lax.dynamic_slice(
        image, (*start, 0), (*donor_labels.shape, image.shape[-1])
    )
    near = _grown(_grown(_grown(mask)))
    rim = near & ~_grown(mask)
    lift = _mean_within(before, near) - _mean_within(donor_image, rim)
    soft = jnp.maximum(_smoothed(mask.astype(image.dtype)), mask)[..., None]
    inside = jnp.any(before != 0, -1, keepdims=True)
    after = before + jnp.where(inside, soft * (donor_image + lift - before), 0)
    return _put(image, labels, after, donor_labels, start, fits & jnp.any(mask))


def _find_place(image: Array, labels: Array, mask: Array, *, key: PRNGKeyArray) -> Pair:
    """First voxel for a box where its mask lies in free brain, and whether it does."""
    free = jnp.any(image != 0, -1) & (labels == 0)
    most = jnp.asarray(labels.shape) - jnp.asarray(mask.shape) + 1
    draws = jax.random.uniform(key, (_TRIES, 3))
    starts = jnp.floor(draws * most[None]).astype(jnp.int32)

    def fit(start: Array) -> Array:
        box = lax.dynamic_slice(free, start, mask.shape)
        return jnp.sum(box & mask) / jnp.maximum(jnp.sum(mask), 1)

    scores = lax.map(fit, starts)
    # the first place that fits, so that every such place has the same chance
    first = jnp.argmax(scores >= _FITS)
    return starts[first], scores[first] >= _FITS


def _put(
    image: Array, labels: Array, box: Array, own: Array, start: Array, fits: Array
) -> Pair:
    """The sample with a box changed, where the lesion fits."""
    old = lax.dynamic_slice(labels, start, own.shape)
    own = jnp.where(own > 0, own, old).astype(labels.dtype)
    new = (
        lax.dynamic_update_slice(image, box.astype(image.dtype), (*start, 0)),
        lax.dynamic_update_slice(labels, own, start),
    )
    return lax.cond(fits, lambda: new, lambda: (image, labels))


def _wide(values: Array) -> Array:
    return values.reshape(1, 1, 1, -1)


def _grown(mask: Array) -> Array:
    """With the voxels that touch it by a face."""
    padded = jnp.pad(mask, 1)
    for axis in range(mask.ndim):
        n = mask.shape[axis]
        own = [slice(1, -1)] * mask.ndim
        for step in (0, 2):
            own[axis] = slice(step, step + n)
            mask = mask | padded[tuple(own)]
    return mask


def _smoothed(x: Array) -> Array:
    """Mean over 3 voxels along each axis."""
    for axis in range(x.ndim):
        edges = [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)]
        padded, n = jnp.pad(x, edges), x.shape[axis]
        parts = [lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(3)]
        x = sum(parts[1:], parts[0]) / 3
    return x


def _mean_within(image: Array, mask: Array) -> Array:
    """Mean of each channel over brain voxels of a mask, shaped 1 1 1 c."""
    weights = (mask & jnp.any(image != 0, -1))[..., None]
    total = jnp.sum(jnp.where(weights, image, 0), (0, 1, 2), keepdims=True)
    return total / jnp.maximum(jnp.sum(weights), 1)
