"""A network of classes that exclude each other, as one of regions that overlap.

What predicts whole volumes asks each region for a logit of its own, as nnU-Net's
region-based training has it. The probability of a region is the sum over its classes.
"""

from typing import Literal

import flax.linen as nn
import numpy as np
from jax import numpy as jnp
from jax.nn import logsumexp
from jaxtyping import Array, Float

from bmjax.typing import Image, Logits


class RegionsOfClasses(nn.Module):
    """Logits of regions from those of classes, class 0 being the background.

    Attributes:
      net: network of the classes; its parameters lie under `net`.
      regions: classes of each region.
      probs: how the network's logits are meant: `softmax`, or a `sigmoid` of each
        class, where a region is as probable as its likeliest class.
    """

    net: nn.Module
    regions: tuple[tuple[int, ...], ...]
    probs: Literal["softmax", "sigmoid"] = "softmax"

    @nn.compact
    def __call__(
        self, image: Image, *, is_training: bool = False
    ) -> tuple[Logits, ...]:
        """Logits of the regions, for each output of the network."""
        outputs = self.net(image, is_training=is_training)
        return tuple(
            jnp.stack([self._region(logits, own) for own in self.regions], axis=-1)
            for logits in outputs
        )

    def _region(
        self, logits: Float[Array, "b *s k"], members: tuple[int, ...]
    ) -> Float[Array, "b *s"]:
        inside = logits[..., np.array(members)]
        if self.probs == "sigmoid":
            return inside.max(-1)
        others = np.setdiff1d(np.arange(logits.shape[-1]), members)
        return logsumexp(inside, axis=-1) - logsumexp(logits[..., others], axis=-1)
