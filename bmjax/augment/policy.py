"""How often each transform is applied, with which values, and in which order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Key, PRNGKeyArray

from bmjax.augment import intensity, spatial
from bmjax.augment.geometry import Spatial
from bmjax.augment.lesion import NewLesions, draw_lesion, paste_lesion
from bmjax.augment.platforms import each
from bmjax.augment.spatial import LabelRule
from bmjax.typing import Size

Pair = tuple[Array, Array]
Transform = Callable[[Array, Array, PRNGKeyArray], Pair]
Run = Callable[[list[Transform], Array, Array, Array, Array], Pair]


@dataclass(frozen=True, kw_only=True)
class AugmentPolicy:
    """Probability of each transform per sample; the defaults are nnU-Net's.

    Attributes:
      spatial: rotation, scale and elastic deformation, drawn on the host.
      label_rule: what a label becomes between voxels: the one with most weight
        (`linear`, nnU-Net) or the `nearest`.
      p_noise: additive Gaussian noise of a standard deviation up to 0.1.
      p_blur: Gaussian blur of half of the channels, sigma 0.5 to 1 voxel per axis.
      p_brightness: a factor per channel, 0.75 to 1.25.
      p_contrast: a stretch about the mean per channel, 0.75 to 1.25.
      p_low_resolution: half of the channels on a grid of half to full size.
      p_gamma_inverted: a power of the inverted intensities, 0.7 to 1.5.
      p_gamma: a power of the intensities, 0.7 to 1.5.
      p_mirror: reversal of each spatial axis.
      new_lesions: metastases added to a sample; nnU-Net has none.
      p_drop_channel: loss of each channel, never of all, for networks that have to do
        with fewer sequences (`bmjax predict --allow-missing`); nnU-Net has none.
      keep_background: leave voxels at exactly zero in all channels untouched.
    """

    spatial: Spatial = field(default_factory=Spatial)
    label_rule: LabelRule = "linear"
    p_noise: float = 0.1
    p_blur: float = 0.2
    p_brightness: float = 0.15
    p_contrast: float = 0.15
    p_low_resolution: float = 0.25
    p_gamma_inverted: float = 0.1
    p_gamma: float = 0.3
    p_mirror: float = 0.5
    new_lesions: NewLesions = field(default_factory=NewLesions)
    p_drop_channel: float = 0.0
    keep_background: bool = True

    def __call__(
        self,
        image: Float[Array, "b *s c"],
        labels: Int[Array, "b *s"],
        *,
        keys: Key[Array, " b"],
    ) -> tuple[Float[Array, "b *s c"], Int[Array, "b *s"]]:
        """All but what `place` does; sample i depends on its own key alone."""
        return lax.platform_dependent(
            image,
            labels,
            keys,
            cpu=partial(each, partial(self._vary, run=_only_drawn)),
            default=partial(each, partial(self._vary, run=_in_line)),
        )

    def place(
        self, batch: Mapping[str, Array], *, size: Size
    ) -> dict[str, Float[Array, "b *s c"] | Int[Array, "b *s"]]:
        """Patches out of what was cut for them, by one gather each.

        Args:
          batch: `image` and `labels`; with `affine` (`geometry.affine`, b d e) they are
            boxes, and a patch that is not moved is copied out of them; `elastic` are
            control points (b *g d); a lesion of `donor_image` (b n n n c) and
            `donor_labels` is pasted by `donor_seed` (b) where the policy says so.
          size: of the patches [vox].

        Returns:
          `image` and `labels` of the patches.
        """
        names = tuple(batch)

        def one(*values: Array) -> Pair:
            return self._place(dict(zip(names, values, strict=True)), size)

        image, labels = each(one, *batch.values())
        return {"image": image, "labels": labels}

    def _place(self, sample: Mapping[str, Array], size: Size) -> Pair:
        image, labels = sample["image"], sample["labels"]
        if "affine" in sample:
            affine, elastic = sample["affine"], sample.get("elastic")
            start = affine[:, -1].astype(jnp.int32)
            is_still = jnp.all(affine[:, :-1] == jnp.eye(len(size)))
            if elastic is not None:
                is_still &= ~jnp.any(elastic)
            image, labels = lax.cond(
                is_still,
                lambda: (
                    lax.dynamic_slice(image, (*start, 0), (*size, image.shape[-1])),
                    lax.dynamic_slice(labels, start, size),
                ),
                lambda: spatial.resample(
                    image,
                    labels,
                    affine,
                    size=size,
                    elastic=elastic,
                    label_rule=self.label_rule,
                ),
            )
        if "donor_image" in sample:
            decision, key = jax.random.split(jax.random.key(sample["donor_seed"]))
            donor = sample["donor_image"], sample["donor_labels"]
            image, labels = lax.cond(
                jax.random.bernoulli(decision, self.new_lesions.p_pasted),
                lambda: paste_lesion(image, labels, *donor, key=key),
                lambda: (image, labels),
            )
        return image, labels

    def _vary(
        self, image: Array, labels: Array, key: PRNGKeyArray, *, run: Run
    ) -> Pair:
        """Everything else, of one sample."""
        draw_key, change_key, flip_key, drop_key = jax.random.split(key, 4)
        look = self.new_lesions
        if labels.ndim == 2 and look.p_drawn + look.p_pasted > 0:
            raise ValueError(
                "new lesions need 3-D patches; set augment.new_lesions.p_drawn and "
                "p_pasted to 0 for 2-D ones"
            )
        draw = partial(_drawn_lesion, look)
        image, labels = _run_each(run, [(look.p_drawn, draw)], image, labels, draw_key)
        before = image
        image, labels = _run_each(run, self._changes(), image, labels, change_key)
        if self.keep_background:
            image = jnp.where(jnp.any(before != 0, -1, keepdims=True), image, 0)
        flips = [(self.p_mirror, partial(_flip, axis)) for axis in range(labels.ndim)]
        image, labels = _run_each(run, flips, image, labels, flip_key)
        if self.p_drop_channel > 0:
            kept = _kept(drop_key, self.p_drop_channel, image.shape[-1])
            image = intensity.drop_channels(image, kept)
        return image, labels

    def _changes(self) -> list[tuple[float, Transform]]:
        """Probability and function of what changes intensities, in nnU-Net's order."""
        is_flat = self.spatial.is_flat
        image_only = (
            (self.p_noise, _noise),
            (self.p_blur, _blur),
            (self.p_brightness, _brightness),
            (self.p_contrast, _contrast),
            (self.p_low_resolution, partial(_low_resolution, is_flat)),
            (self.p_gamma_inverted, partial(_gamma, is_inverted=True)),
            (self.p_gamma, _gamma),
        )
        return [
            (p, lambda x, y, key, change=change: (change(x, key=key), y))
            for p, change in image_only
        ]


_factors = partial(intensity.split_uniform, low=0.75, high=1.25)
_powers = partial(intensity.split_uniform, low=0.7, high=1.5)


def _noise(x: Array, *, key: PRNGKeyArray) -> Array:
    scale_key, voxel_key = jax.random.split(key)
    std = jax.random.uniform(scale_key, (), maxval=0.1)
    return intensity.noise(x, std, key=voxel_key)


def _blur(x: Array, *, key: PRNGKeyArray) -> Array:
    channel_key, sigma_key = jax.random.split(key)
    shape = (x.shape[-1], x.ndim - 1)
    sigma = jax.random.uniform(sigma_key, shape, minval=0.5, maxval=1.0)
    return intensity.blur(x, sigma, chosen=_half(channel_key, x))


def _brightness(x: Array, *, key: PRNGKeyArray) -> Array:
    return intensity.brightness(x, _factors(key, x.shape[-1:]))


def _contrast(x: Array, *, key: PRNGKeyArray) -> Array:
    return intensity.contrast(x, _factors(key, x.shape[-1:]))


def _low_resolution(
    is_flat: Callable[[Size], bool], x: Array, *, key: PRNGKeyArray
) -> Array:
    channel_key, scale_key = jax.random.split(key)
    return intensity.low_resolution(
        x,
        jax.random.uniform(scale_key, x.shape[-1:], minval=0.5, maxval=1.0),
        chosen=_half(channel_key, x),
        keep_first_axis=is_flat(x.shape[:-1]),
    )


def _gamma(x: Array, *, key: PRNGKeyArray, is_inverted: bool = False) -> Array:
    return intensity.gamma(x, _powers(key, x.shape[-1:]), is_inverted=is_inverted)


def _half(key: PRNGKeyArray, image: Array) -> Array:
    """Each channel with probability one half (nnU-Net)."""
    return jax.random.bernoulli(key, 0.5, image.shape[-1:])


def _flip(axis: int, x: Array, y: Array, key: PRNGKeyArray) -> Pair:
    return jnp.flip(x, axis), jnp.flip(y, axis)


def _drawn_lesion(look: NewLesions, x: Array, y: Array, key: PRNGKeyArray) -> Pair:
    return draw_lesion(x, y, key=key, look=look)


def _kept(key: PRNGKeyArray, p: float, num_channels: int) -> Array:
    """Channels that stay; one drawn at random does in any case."""
    drop_key, one_key = jax.random.split(key)
    kept = jax.random.uniform(drop_key, (num_channels,)) >= p
    one = jax.random.randint(one_key, (), 0, num_channels)
    return kept.at[one].set(kept[one] | ~jnp.any(kept))


def _run_each(
    run: Run,
    transforms: list[tuple[float, Transform]],
    image: Array,
    labels: Array,
    key: PRNGKeyArray,
) -> Pair:
    """Each transform with its probability, in order."""
    transforms = [(p, f) for p, f in transforms if p > 0]
    if not transforms:
        return image, labels
    decision, *own = jax.random.split(key, len(transforms) + 1)
    probabilities = jnp.asarray([p for p, _ in transforms])
    drawn = jax.random.uniform(decision, probabilities.shape) < probabilities
    return run([f for _, f in transforms], drawn, jnp.stack(own), image, labels)


def _only_drawn(
    functions: list[Transform], drawn: Array, keys: Array, image: Array, labels: Array
) -> Pair:
    """A loop over those drawn, which copies nothing for the others.

    Under `vmap` it would compute every transform in each of its rounds.
    """
    if len(functions) == 1:  # a switch of one is no condition
        return _in_line(functions, drawn, keys, image, labels)
    order = jnp.argsort(~drawn, stable=True)

    def one(i: Array, pair: Pair) -> Pair:
        return lax.switch(order[i], functions, *pair, keys[order[i]])

    return lax.fori_loop(0, jnp.sum(drawn), one, (image, labels))


def _in_line(
    functions: list[Transform], drawn: Array, keys: Array, image: Array, labels: Array
) -> Pair:
    """A condition for each, which `vmap` makes a choice between both results."""
    for i, function in enumerate(functions):
        image, labels = lax.cond(
            drawn[i], function, lambda x, y, _: (x, y), image, labels, keys[i]
        )
    return image, labels
