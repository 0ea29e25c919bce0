"""Why a lesion was predicted: attributions for one window around it.

Integrated gradients (Sundararajan et al. 2017) and Grad-CAM (Selvaraju et al. 2017; for
segmentation Vinogradova et al. 2020) explain the mean logit of a region over a lesion;
occlusion replaces one modality by its mean, which is 0 after normalisation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from bmjax.inference.uncertainty import sigmoid
from bmjax.inference.windows import Box
from bmjax.models import Network
from bmjax.models.probing import apply_shifted, layers
from bmjax.typing import Size

Forward = Callable[[Float[Array, "b *s c"]], Float[Array, "b *s k"]]


def window_around(
    mask: Bool[np.ndarray, "z y x"], window: Size
) -> tuple[Box, tuple[tuple[int, int], ...]]:
    """The window around a lesion, and what pads it where the volume is smaller.

    Args:
      mask: the lesion, not empty.
      window: size, z y x; y x for a 2-D network, which gets the slice with most of it.
    """
    size = mask.shape
    window = (1,) * (3 - len(window)) + tuple(window)
    voxels = np.argwhere(mask)
    centre = voxels.mean(0).round().astype(int)
    if window[0] == 1:
        centre[0] = np.bincount(voxels[:, 0]).argmax()
    box, padding = [], []
    for middle, length, width in zip(centre, size, window, strict=True):
        start = int(np.clip(middle - width // 2, 0, max(length - width, 0)))
        box.append(slice(start, min(start + width, length)))
        missing = max(width - length, 0)
        padding.append((missing // 2, missing - missing // 2))
    return tuple(box), tuple(padding)


def integrated_gradients(
    forward: Forward,
    image: Float[np.ndarray, "*s c"],
    mask: Bool[np.ndarray, "*s"],
    *,
    region: int,
    num_steps: int = 32,
) -> Float[np.ndarray, "*s c"]:
    """Share of every voxel of every channel in the lesion's mean logit.

    Their sum is the logit less that of an image of zeros, up to the rule's error.

    Args:
      forward: a network.
      image: one window.
      mask: the lesion in it.
      region: which output.
      num_steps: points of the midpoint rule from zeros to the image.
    """
    gradient = _gradient(forward, region)
    total = np.zeros(image.shape, np.float32)
    for step in range(num_steps):
        part = image * np.float32((step + 0.5) / num_steps)
        total += np.asarray(gradient(jnp.asarray(part), jnp.asarray(mask)))
    return total / num_steps * image


def _gradient(forward: Forward, region: int) -> Callable[..., Array]:
    def score(image: Array, mask: Array) -> Array:
        return _score(forward(image[None])[0], mask, region)

    return jax.jit(jax.grad(score))


def grad_cam(
    model: Network,
    variables: Mapping[str, Any],
    image: Float[np.ndarray, "*s c"],
    mask: Bool[np.ndarray, "*s"],
    *,
    region: int,
    layer: str,
) -> Float[np.ndarray, "*s"]:
    """Where a layer speaks for the lesion: 0 to 1, on the window's grid.

    Args:
      model: the network.
      variables: its parameters and statistics.
      image: one window.
      mask: the lesion in it.
      region: which output.
      layer: path of the module, see `models.probing.layers`.

    Raises:
      ValueError: there is no such layer.
    """
    shapes = layers(model, variables, jnp.asarray(image)[None])
    if layer not in shapes:
        raise ValueError(f"no layer {layer!r}; there are {', '.join(shapes)}")

    @jax.jit
    def gradient(variables: Any, image: Array, mask: Array) -> tuple[Array, Array]:
        def score(shift: Array) -> tuple[Array, Array]:
            logits, activation = apply_shifted(
                model, variables, image[None], layer=layer, shift=shift
            )
            return _score(logits[0], mask, region), activation

        return jax.grad(score, has_aux=True)(jnp.zeros(shapes[layer]))

    by_output, activation = gradient(variables, jnp.asarray(image), jnp.asarray(mask))
    space = tuple(range(1, by_output.ndim - 1))
    weights = by_output.mean(space, keepdims=True)
    cam = jax.nn.relu((weights * activation).sum(-1))[0]
    cam = jax.image.resize(cam, mask.shape, "linear")
    return np.asarray(cam / jnp.maximum(cam.max(), jnp.finfo(cam.dtype).tiny))


def occlusion(
    forward: Forward, image: Float[np.ndarray, "*s c"], *, region: int
) -> Float[np.ndarray, "*s c"]:
    """How much the probability falls at each voxel where one channel is missing.

    Args:
      forward: a network.
      image: one window.
      region: which output.
    """
    run = jax.jit(forward)
    whole = sigmoid(np.asarray(run(jnp.asarray(image)[None]))[0, ..., region])
    falls = []
    for channel in range(image.shape[-1]):
        without = image.copy()
        without[..., channel] = 0
        logits = np.asarray(run(jnp.asarray(without)[None]))[0, ..., region]
        falls.append(whole - sigmoid(logits))
    return np.stack(falls, axis=-1)


def _score(logits: Array, mask: Array, region: int) -> Array:
    """Mean logit of a region over a lesion."""
    return (logits[..., region] * mask).sum() / mask.sum()
