"""Logits of a whole volume from networks that see one window at a time.

One compiled program takes a batch of windows through all mirrors and all folds. Its
only shape is that of the batch: the sums, float32, lie on the host, so that volumes of
any size share one compilation and the device holds no volume.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import Partial
from jaxtyping import Float, Int

from bmjax import sharding
from bmjax.inference.windows import Box, SlidingWindow, alike, boxes, gaussian, pad
from bmjax.typing import Size

Forward = Callable[[Float[Array, "b *s c"]], Float[Array, "b *s k"]]
Tick = Callable[[int, int], None]
HALF_OVERLAP = SlidingWindow()


def stack_folds(networks: Sequence[Partial]) -> Partial:
    """Several networks of one function as one, their parameters along a first axis.

    Args:
      networks: `jax.tree_util.Partial(apply, params)`, with arrays of the same shapes.
    """
    if len({network.func for network in networks}) != 1:
        raise ValueError("folds must be parameters of one function")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *networks)


def sliding_logits(
    forward: Forward,
    image: Float[np.ndarray, "z y x c"],
    *,
    window: Size,
    num_classes: int,
    settings: SlidingWindow = HALF_OVERLAP,
    num_folds: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Tick | None = None,
) -> Float[np.ndarray, "z y x {num_classes}"]:
    """Logits of every voxel of a volume of any size, averaged over folds and mirrors.

    Args:
      forward: a network: a batch of windows to their logits. Compiled here, once for
        each function object; wrap parameters as `jax.tree_util.Partial(apply, params)`
        so that they are passed and not compiled in.
      image: the volume; padded with zeros where it is smaller than a window.
      window: size of a window, z y x; y x for a 2-D network, run slice by slice [vox].
      num_classes: channels that `forward` returns.
      settings: grid, weights and mirrors.
      num_folds: networks in `forward`, if it is from `stack_folds`; else None.
      devices: share the windows; None takes the first one. They do not change what
        comes out.
      progress: called with the number of windows done and their total.
    """
    total = _slide(
        forward,
        image,
        window=window,
        num_classes=num_classes,
        settings=settings,
        num_folds=num_folds,
        num_apart=1,
        devices=devices,
        progress=progress,
    )
    return total[0]


def fold_logits(
    forward: Forward,
    image: Float[np.ndarray, "z y x c"],
    *,
    window: Size,
    num_classes: int,
    settings: SlidingWindow = HALF_OVERLAP,
    num_folds: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Tick | None = None,
) -> Float[np.ndarray, "f z y x {num_classes}"]:
    """As `sliding_logits`, the logits of each fold for itself."""
    return _slide(
        forward,
        image,
        window=window,
        num_classes=num_classes,
        settings=settings,
        num_folds=num_folds,
        num_apart=num_folds or 1,
        devices=devices,
        progress=progress,
    )


def _slide(
    forward: Forward,
    image: Float[np.ndarray, "z y x c"],
    *,
    window: Size,
    num_classes: int,
    settings: SlidingWindow,
    num_folds: int | None,
    num_apart: int,
    devices: Sequence[Any] | None,
    progress: Tick | None,
) -> Float[np.ndarray, "{num_apart} z y x {num_classes}"]:
    padded, inside = pad(image, window)
    places = tuple(boxes(padded.shape[:3], window, settings))
    is_once = settings.empty == "once"
    windows = alike(padded, places) if is_once else [[box] for box in places]
    weights = gaussian(window, settings.convention)
    total = np.zeros((num_apart, *padded.shape[:3], num_classes), np.float32)
    mesh = sharding.data_mesh(devices or jax.devices()[:1])
    num_together = settings.batch_size * mesh.devices.size
    network = forward if isinstance(forward, Partial) else Partial(forward)
    if num_folds is None:
        network = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], network)
    network = sharding.replicate(network, mesh)
    run = partial(
        _weighted_logits,
        network,
        weights=sharding.replicate(weights, mesh),
        num_folds=num_folds or 1,
        num_mirrors=settings.num_mirrors(window),
        is_apart=num_apart > 1,
        mesh=mesh,
    )
    shape = (1,) * (3 - len(window)) + window

    def add(batch: list[list[Box]], logits: Array) -> None:
        if logits.shape[-1] != num_classes:
            raise ValueError(
                f"forward returned {logits.shape[-1]} channels, expected {num_classes}"
            )
        for same, values in zip(batch, np.asarray(logits), strict=False):
            values = values.reshape(num_apart, *shape, num_classes)
            for box in same:
                total[:, *box] += values

    num_done, num_all = 0, sum(map(len, windows))
    waiting: tuple[list[list[Box]], Array] | None = None
    for first in range(0, len(windows), num_together):
        batch = windows[first : first + num_together]
        images = np.zeros((num_together, *window, image.shape[-1]), np.float32)
        for row, same in zip(images, batch, strict=False):
            row[...] = padded[same[0]].reshape(row.shape)
        logits = run(sharding.put_batch(images, mesh))
        # the device computes this batch while the host adds the one before
        if waiting is not None:
            add(*waiting)
        waiting = (batch, logits)
        num_done += sum(map(len, batch))
        if progress is not None:
            progress(num_done, num_all)
    if waiting is not None:
        add(*waiting)
    _divide(total, places, weights.reshape(*shape, 1))
    return total[:, *inside]


def _divide(
    total: Float[np.ndarray, "f z y x k"],
    places: Sequence[Box],
    weights: Float[np.ndarray, "a b c 1"],
) -> None:
    """Divide sums by the weights of all windows over a voxel, some planes at a time."""
    num_planes = max(len(weights), 16)
    for start in range(0, total.shape[1], num_planes):
        part = total[:, start : start + num_planes]
        norm = np.zeros((*part.shape[1:4], 1), np.float32)
        for z, y, x in places:
            low, high = max(z.start, start), min(z.stop, start + len(norm))
            if low < high:
                own = weights[low - z.start : high - z.start]
                norm[low - start : high - start, y, x] += own
        part /= norm


@partial(jax.jit, static_argnames=("num_folds", "num_mirrors", "is_apart", "mesh"))
def _weighted_logits(
    networks: Partial,
    images: Float[Array, "b *s c"],
    *,
    weights: Float[Array, "*s"],
    num_folds: int,
    num_mirrors: int,
    is_apart: bool,
    mesh: Mesh,
) -> Float[Array, "b f *s k"]:
    """Weighted logits of windows: the mean over mirrors, and over folds or of each."""

    def of_share(
        networks: Partial, images: Float[Array, "b *s c"], weights: Float[Array, "*s"]
    ) -> Float[Array, "b f *s k"]:
        def of_fold(numbered: tuple[Array, Partial]) -> Float[Array, "b *s k"]:
            return _over_mirrors(numbered[1], images, num_mirrors)

        folds = (jnp.arange(num_folds), networks)  # a plain function has no leaves
        if is_apart:
            logits = jnp.moveaxis(lax.map(of_fold, folds), 0, 1)
        else:
            logits = _mean(of_fold, folds)[:, None]
        return logits * weights[None, None, ..., None]

    split, whole = PartitionSpec(sharding.DATA_AXIS), PartitionSpec()
    spread = jax.shard_map(
        of_share,
        mesh=mesh,
        in_specs=(whole, split, whole),
        out_specs=split,
        check_vma=False,  # no window knows of another
    )
    return spread(networks, images, weights)


def _over_mirrors(
    network: Partial, images: Float[Array, "b *s c"], num_mirrors: int
) -> Float[Array, "b *s k"]:
    def of_mirror(mirror: Int[Array, ""]) -> Float[Array, "b *s k"]:
        if num_mirrors == 1:
            return _logits(network, images)
        return _mirrored(_logits(network, _mirrored(images, mirror)), mirror)

    return _mean(of_mirror, jnp.arange(num_mirrors))


def _mean(function: Callable[[Any], Array], items: Any) -> Array:
    """Mean of a function over items, one after the other, in the memory of two."""
    first = jax.tree.map(lambda leaf: leaf[0], items)
    total = jax.eval_shape(function, first)
    total, _ = lax.scan(
        lambda total, item: (total + function(item), None),
        jnp.zeros(total.shape, total.dtype),
        items,
    )
    return total / len(jax.tree.leaves(items)[0])


@jax.jit
def _logits(network: Partial, images: Float[Array, "b *s c"]) -> Float[Array, "b *s k"]:
    logits = network(images)
    if not isinstance(logits, jax.Array):
        raise ValueError(
            "forward must return one array of logits; of a network with deep "
            f"supervision take the first output, got {type(logits).__name__}"
        )
    return logits.astype(jnp.float32)


def _mirrored(x: Float[Array, "b *s f"], mirror: Int[Array, ""]) -> Array:
    """One of the mirrored copies, chosen by number without compiling for each."""
    axes = range(1, x.ndim - 1)
    copies = [
        partial(lax.rev, dimensions=chosen)
        for count in range(len(axes) + 1)
        for chosen in combinations(axes, count)
    ]
    return lax.switch(mirror, copies, x)
