"""Prediction of a whole volume by overlapping windows, and the windowing by itself."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.nets import CHANNELS, NUM_CLASSES, PLAIN, TINY, Net
from benchmarks.timing import Work

PEERS = ("monai", "nnunet")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume and the network that slides over it.

    Attributes:
      size: of the volume [vox].
      net: its patch is the window, its batch the windows computed together; None for
        a network that does nothing.
      window: of a network that does nothing [vox].
    """

    size: tuple[int, int, int]
    net: Net | None
    window: tuple[int, int, int]

    def draw(self) -> np.ndarray:
        """Noise, z y x c."""
        return np.random.default_rng(0).standard_normal(
            (*self.size, CHANNELS), np.float32
        )


_WINDOW, _NARROW = (64, 64, 64), (16, 32, 64, 128)
CASES = {
    "PlainUNet(16..128) on 128x128x96": Volume(
        size=(128, 128, 96),
        net=replace(PLAIN, batch_size=1, features=_NARROW),
        window=_WINDOW,
    ),
    "no network on 160x192x160": Volume(size=(160, 192, 160), net=None, window=_WINDOW),
}
LARGE = {
    "PlainUNet(32..320) on 160x192x160": Volume(
        size=(160, 192, 160),
        net=replace(PLAIN, patch_size=(128, 128, 128)),
        window=(128, 128, 128),
    )
}
QUICK = {
    "tiny": Volume(size=(12, 8, 8), net=replace(TINY, batch_size=1), window=(8, 8, 8)),
    "no network": Volume(size=(12, 8, 8), net=None, window=(8, 8, 8)),
}


def ours(volume: Volume, *, scratch: Path) -> Work:
    from functools import partial

    import jax
    from jax.tree_util import Partial

    from benchmarks import programs
    from bmjax.inference import SlidingWindow, sliding_logits, windows
    from bmjax.sharding import split_cpu

    split_cpu()  # as `bmjax predict` does
    forward, num_params, gflop = Partial(_first_channels), None, None
    count = windows.num_windows(volume.size, volume.window)
    if volume.net is not None:
        model = programs.model_of(volume.net)
        image = jax.ShapeDtypeStruct((1, *volume.window, CHANNELS), np.float32)
        variables = jax.jit(model.init)(
            jax.random.key(0), np.zeros(image.shape, image.dtype)
        )
        function = partial(programs.first_output, model)
        forward = Partial(function, variables)
        num_params = programs.count(variables["params"])
        gflop = count * programs.gflop(function, variables, image)
    image = volume.draw()

    def call() -> None:
        sliding_logits(
            forward,
            image,
            window=volume.window,
            num_classes=NUM_CLASSES,
            settings=SlidingWindow(
                flips=volume.flips,
                batch_size=volume.net.batch_size if volume.net else 1,
                empty="each",  # the peers skip nothing
            ),
            devices=jax.devices(),
        )

    facts = {"windows": count, "num_params": num_params}
    return Work(call=call, gflop=gflop, facts=facts)


def _first_channels(x):
    return x[..., :NUM_CLASSES]
