"""Logits of a whole volume from a network that sees one window at a time.

nnU-Net's convention: windows spread evenly at no more than half a window's distance,
weighted by a Gaussian, logits averaged. Sums are float32 and lie on the host, so that
the device only ever sees batches of one shape and compiles once for all cases.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from itertools import combinations, product
from math import ceil
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import Partial
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter

from bmjax import sharding
from bmjax.typing import Size

Forward = Callable[[Float[Array, "b *s c"]], Float[Array, "b *s k"]]
Flips = Literal["none", "all"]
Box = tuple[slice, ...]
SIGMA = 1 / 8  # of the Gaussian, in windows


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """How a volume is covered by windows.

    Attributes:
      overlap: share of a window that its neighbour covers again, 0 to below 1.
      flips: average over all mirrored copies of a window ("all"), or none.
      batch_size: windows computed together.
    """

    overlap: float = 0.5
    flips: Flips = "none"
    batch_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def window_starts(
    size: Size, window: Size, *, overlap: float = 0.5
) -> tuple[tuple[int, ...], ...]:
    """First voxel of the windows along each axis, spread evenly from end to end.

    Args:
      size: of the volume, at least the window's [vox].
      window: size of a window [vox].
      overlap: least share of a window that its neighbour covers again.
    """
    starts = []
    for length, width in zip(size, window, strict=True):
        if length < width:
            raise ValueError(f"volume {size} is smaller than the window {window}")
        # the distance as nnU-Net writes it: window * (1 - overlap)
        count = ceil((length - width) / (width * (1 - overlap))) + 1
        step = (length - width) / max(count - 1, 1)
        starts.append(tuple(int(np.round(step * i)) for i in range(count)))
    return tuple(starts)


@lru_cache(maxsize=4)
def gaussian(window: Size) -> Float[np.ndarray, "*s"]:
    """Weight of each voxel of a window: 1 at the centre, positive everywhere."""
    delta = np.zeros(window)
    delta[tuple(n // 2 for n in window)] = 1
    sigma = tuple(n * SIGMA for n in window)
    weights = gaussian_filter(delta, sigma, order=0, mode="constant", cval=0)
    weights = (weights / weights.max()).astype(np.float32)
    weights[weights == 0] = weights[weights > 0].min()
    weights.setflags(write=False)
    return weights


def num_windows(size: Size, window: Size, *, overlap: float = 0.5) -> int:
    """Windows that cover a volume; a 2-D window covers each of its slices."""
    return sum(1 for _ in _boxes(_padded(size, window), window, overlap=overlap))


def sliding_logits(
    forward: Forward,
    image: Float[np.ndarray, "z y x c"],
    *,
    window: Size,
    num_classes: int,
    overlap: float = 0.5,
    batch_size: int = 1,
    flips: Flips = "none",
    devices: Sequence[Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Float[np.ndarray, "z y x {num_classes}"]:
    """Logits of every voxel of a volume of any size.

    Args:
      forward: a network: a batch of windows to their logits. Compiled here, once for
        each function object; wrap parameters as `jax.tree_util.Partial(apply, params)`
        so that they are passed and not compiled in.
      image: the volume; padded with zeros where it is smaller than a window.
      window: size of a window, z y x; y x for a 2-D network, run slice by slice [vox].
      num_classes: channels that `forward` returns.
      overlap: least share of a window that its neighbour covers again.
      batch_size: windows that a device computes together; the last batch is filled
        with zeros.
      flips: average over all mirrored copies of each window, or none.
      devices: share the windows; None takes the first one. They do not change what
        comes out.
      progress: called with the number of windows done and their total.
    """
    settings = SlidingWindow(overlap=overlap, batch_size=batch_size, flips=flips)
    padded, inside = _pad(image, window)
    boxes = list(_boxes(padded.shape[:3], window, overlap=settings.overlap))
    weights = gaussian(window).reshape((1,) * (3 - len(window)) + window)
    total = np.zeros((*padded.shape[:3], num_classes), np.float32)
    norm = np.zeros((*padded.shape[:3], 1), np.float32)
    mesh = sharding.data_mesh(devices or jax.devices()[:1])
    num_together = settings.batch_size * mesh.devices.size
    network = forward if isinstance(forward, Partial) else Partial(forward)
    network = sharding.replicate(network, mesh)
    mirrors = range(2 ** len(window)) if settings.flips == "all" else (None,)
    device_weights = sharding.replicate(gaussian(window) / len(mirrors), mesh)

    def add(batch: list[Box], logits: Array) -> None:
        if logits.shape[-1] != num_classes:
            raise ValueError(
                f"forward returned {logits.shape[-1]} channels, expected {num_classes}"
            )
        for box, values in zip(batch, np.asarray(logits), strict=False):
            total[box] += values.reshape(*weights.shape, num_classes)
            norm[box] += weights[..., None]

    waiting: tuple[list[Box], Array] | None = None
    for first in range(0, len(boxes), num_together):
        batch = boxes[first : first + num_together]
        images = np.zeros((num_together, *window, image.shape[-1]), np.float32)
        for row, box in zip(images, batch, strict=False):
            row[...] = padded[box].reshape(row.shape)
        on_device = sharding.put_batch(images, mesh)
        logits = reduce(
            jnp.add,
            (_weighted_logits(network, on_device, device_weights, m) for m in mirrors),
        )
        # the device computes this batch while the host adds the one before
        if waiting is not None:
            add(*waiting)
        waiting = (batch, logits)
        if progress is not None:
            progress(first + len(batch), len(boxes))
    if waiting is not None:
        add(*waiting)
    total /= norm
    return total[inside]


@jax.jit
def _weighted_logits(
    forward: Partial,
    images: Float[Array, "b *s c"],
    weights: Float[Array, "*s"],
    mirror: int | Int[Array, ""] | None,
) -> Float[Array, "b *s k"]:
    logits = forward(_mirrored(images, mirror))
    if not isinstance(logits, jax.Array):
        raise ValueError(
            "forward must return one array of logits; of a network with deep "
            f"supervision take the first output, got {type(logits).__name__}"
        )
    return _mirrored(logits, mirror).astype(jnp.float32) * weights[None, ..., None]


def _mirrored(
    x: Float[Array, "b *s f"], mirror: int | Int[Array, ""] | None
) -> Float[Array, "b *s f"]:
    """One of the mirrored copies, chosen by number without compiling for each."""
    if mirror is None:
        return x
    axes = range(1, x.ndim - 1)
    copies = [
        partial(lax.rev, dimensions=chosen)
        for count in range(len(axes) + 1)
        for chosen in combinations(axes, count)
    ]
    return lax.switch(mirror, copies, x)


def _padded(size: Size, window: Size) -> Size:
    window = (1,) * (3 - len(window)) + tuple(window)
    return tuple(max(n, w) for n, w in zip(size, window, strict=True))


def _pad(image: np.ndarray, window: Size) -> tuple[np.ndarray, Box]:
    """The image at least as large as the window, and where it lies in the result."""
    size = image.shape[:3]
    missing = [p - n for p, n in zip(_padded(size, window), size, strict=True)]
    inside = tuple(
        slice(m // 2, m // 2 + n) for m, n in zip(missing, size, strict=True)
    )
    if not any(missing):
        return image, inside
    return np.pad(image, [*((m // 2, m - m // 2) for m in missing), (0, 0)]), inside


def _boxes(size: Size, window: Size, *, overlap: float) -> Iterator[Box]:
    starts = window_starts(size[-len(window) :], window, overlap=overlap)
    if len(window) == 2:
        starts = (tuple(range(size[0])), *starts)
        window = (1, *window)
    for corner in product(*starts):
        yield tuple(slice(a, a + w) for a, w in zip(corner, window, strict=True))
