"""How often each transform is applied, and in which order."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Key, PRNGKeyArray

from bmjax.augment import intensity
from bmjax.augment.spatial import mirror


@dataclass(frozen=True, kw_only=True)
class AugmentPolicy:
    """Probability of each transform per sample; the defaults are nnU-Net's.

    Attributes:
      p_noise: additive Gaussian noise.
      p_brightness: a factor per channel.
      p_contrast: a stretch about the mean per channel.
      p_gamma_inverted: a power of the inverted intensities.
      p_gamma: a power of the intensities.
      p_mirror: reversal of each spatial axis.
      keep_background: leave voxels at exactly zero in all channels untouched.
    """

    p_noise: float = 0.1
    p_brightness: float = 0.15
    p_contrast: float = 0.15
    p_gamma_inverted: float = 0.1
    p_gamma: float = 0.3
    p_mirror: float = 0.5
    keep_background: bool = True

    def __call__(
        self,
        image: Float[Array, "b *s c"],
        labels: Int[Array, "b *s"],
        *,
        keys: Key[Array, " b"],
    ) -> tuple[Float[Array, "b *s c"], Int[Array, "b *s"]]:
        """Augmented batch; sample i depends on its own key alone."""
        return jax.vmap(self._augment)(image, labels, keys)

    def _augment(
        self, image: Array, labels: Array, key: PRNGKeyArray
    ) -> tuple[Array, Array]:
        keys = jax.random.split(key, 6)
        brain = (image != 0).any(-1, keepdims=True)
        original = image
        image = _maybe(keys[0], self.p_noise, image, intensity.noise)
        image = _maybe(keys[1], self.p_brightness, image, intensity.brightness)
        image = _maybe(keys[2], self.p_contrast, image, intensity.contrast)
        image = _maybe(
            keys[3],
            self.p_gamma_inverted,
            image,
            lambda x, key: intensity.gamma(x, key=key, is_inverted=True),
        )
        image = _maybe(keys[4], self.p_gamma, image, intensity.gamma)
        if self.keep_background:
            image = jnp.where(brain, image, original)
        axes = tuple(range(labels.ndim))
        return mirror(image, labels, key=keys[5], p=self.p_mirror, axes=axes)


def _maybe(
    key: PRNGKeyArray, p: float, image: Array, transform: Callable[..., Array]
) -> Array:
    """`transform(image, key=...)` with probability `p`."""
    if p == 0:
        return image
    decision, draw = jax.random.split(key)
    return lax.cond(
        jax.random.bernoulli(decision, p),
        lambda x: transform(x, key=draw),
        lambda x: x,
        image,
    )
