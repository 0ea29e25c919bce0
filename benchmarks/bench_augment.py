"""Augmentation by nnU-Net's recipe: single samples, from the box to the patch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.timing import Work

PEERS = ("nnunet",)
NUM_CHANNELS = 4


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What is augmented.

    Attributes:
      patch_size: [vox].
      threads: cores of each process; None for all.
      num_samples: of one call, each with other random numbers.
    """

    patch_size: tuple[int, int, int]
    threads: int | None = 1
    num_samples: int = 9

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """A box as nnU-Net loads it, a fifth of it empty, with a lesion of 3 labels."""
        from bmjax.augment import Spatial

        box = Spatial().box_size(self.patch_size)
        rng = np.random.default_rng(0)
        image = rng.standard_normal((*box, NUM_CHANNELS), np.float32)
        labels = np.zeros(box, np.int8)
        image[: box[0] // 5] = 0
        middle = [n // 2 for n in box]
        for label, size in ((2, 12), (3, 7), (1, 3)):
            inside = tuple(slice(max(m - size, 0), m + size) for m in middle)
            labels[inside] = label
        return image, labels


CASES = {
    f"{'x'.join(map(str, size))}, 1 thread": Samples(patch_size=size)
    for size in ((128, 160, 112), (64, 192, 160))
}
QUICK = {"16x24x20": Samples(patch_size=(16, 24, 20), num_samples=1)}


def ours(samples: Samples, *, scratch: Path) -> Work:
    import jax

    from benchmarks.programs import compiled
    from bmjax.augment import AugmentPolicy, geometry

    policy, size = AugmentPolicy(), samples.patch_size
    image, labels = samples.draw()
    offset = np.subtract(labels.shape, size) // 2
    inside = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
    still = geometry.affine(np.eye(3), size, offset=offset)
    box = jax.device_put({"image": image[None], "labels": labels[None]})
    patch = jax.device_put(
        {"image": image[inside][None], "labels": labels[inside][None]}
    )
    place, place_s = compiled(
        jax.jit(lambda box, affine: policy.place({**box, "affine": affine}, size=size)),
        box,
        still[None],
    )
    vary, vary_s = compiled(
        jax.jit(
            lambda patch, seed: policy(
                patch["image"],
                patch["labels"],
                keys=jax.random.split(jax.random.key(seed), 1),
            )
        ),
        patch,
        0,
    )
    seeds = iter(range(1_000_000))  # another draw each time

    def augment(seed: int) -> None:
        placement = policy.spatial.draw(np.random.default_rng(seed), size)
        placed = patch  # the host cuts no more where nothing moves
        if placement.is_moved:
            affine = geometry.affine(placement.matrix, size, offset=offset)
            placed = place(box, affine[None])
        jax.block_until_ready(vary(placed, seed))

    def call() -> None:
        for _ in range(samples.num_samples):
            augment(next(seeds))

    return Work(
        call=call,
        compile_s=place_s + vary_s,
        facts={"samples_per_call": samples.num_samples},
    )
