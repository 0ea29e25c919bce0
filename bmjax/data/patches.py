"""Where to cut a patch, and the cutting: a pure function of a case and a generator.

The rule is nnU-Net's: in a batch of b, the samples from `round(b * (1 - p_lesion))` on
are centred on a lesion voxel, the others lie anywhere. A lesion voxel is drawn either
class first (nnU-Net) or lesion first, which gives a small lesion the same share as a
large one.
"""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

Size = tuple[int, ...]
Centring = Literal["class", "lesion"]


@runtime_checkable
class Sampled(Protocol):
    """What a case must offer to be cut from."""

    @property
    def image(self) -> np.ndarray:
        """Channels, z y x c."""
        ...

    @property
    def labels(self) -> np.ndarray | None:
        """Label map, z y x."""
        ...

    def draw_voxel(
        self, rng: np.random.Generator, *, by: Centring
    ) -> np.ndarray | None:
        """Index z y x of a lesion voxel; None where the case has no lesion."""
        ...


def generator(*, seed: int, stream: int, step: int, slot: int) -> np.random.Generator:
    """The generator of one sample: its numbers depend on these four integers alone."""
    return np.random.Generator(
        np.random.Philox(key=[seed, stream], counter=[0, 0, step, slot])
    )


def is_on_lesion(slot: int, *, batch_size: int, p_lesion: float) -> bool:
    """Whether the sample in this slot of the batch is centred on a lesion (nnU-Net)."""
    return slot >= round(batch_size * (1 - p_lesion))


def patch_start(
    size: Size,
    patch_size: Size,
    *,
    rng: np.random.Generator,
    centre: np.ndarray | None = None,
) -> tuple[int, ...]:
    """First voxel of a patch, negative where the patch is larger than the volume.

    Args:
      size: of the volume [vox].
      patch_size: of the patch [vox].
      rng: draws the place where no centre is given.
      centre: voxel to put in the middle, as far as the volume's border lets it.
    """
    start = []
    for axis, (whole, part) in enumerate(zip(size, patch_size, strict=True)):
        low, high = min(0, (whole - part) // 2), max(whole - part, (whole - part) // 2)
        if centre is None:
            start.append(int(rng.integers(low, high + 1)))
        else:
            start.append(int(np.clip(centre[axis] - part // 2, low, high)))
    return tuple(start)


def cut(array: np.ndarray, start: Size, patch_size: Size) -> np.ndarray:
    """Copy of a box, zero where it reaches beyond the array.

    Args:
      array: volume, space first; axes after it are kept whole.
      start: first voxel of the box; may be negative.
      patch_size: of the box [vox].
    """
    patch = np.zeros((*patch_size, *array.shape[len(patch_size) :]), array.dtype)
    inside, source = [], []
    for first, length, whole in zip(start, patch_size, array.shape, strict=False):
        low, high = max(first, 0), min(first + length, whole)
        source.append(slice(low, high))
        inside.append(slice(low - first, high - first))
    patch[tuple(inside)] = array[tuple(source)]
    return patch


def cut_sample(
    case: Sampled,
    *,
    patch_size: Size,
    on_lesion: bool,
    centring: Centring,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "*s c"], Int[np.ndarray, "*s"]]:
    """Image and labels of one training patch; a 2-D patch size gives one slice.

    Args:
      case: a stored case.
      patch_size: two or three axes [vox].
      on_lesion: centre the patch on a lesion voxel where the case has one.
      centring: how that voxel is drawn.
      rng: the generator of this sample.
    """
    if case.labels is None:
        raise ValueError("a case without labels cannot be trained on; prepare it anew")
    centre = case.draw_voxel(rng, by=centring) if on_lesion else None
    box = patch_size if len(patch_size) == 3 else (1, *patch_size)
    start = patch_start(case.labels.shape, box, rng=rng, centre=centre)
    image, labels = cut(case.image, start, box), cut(case.labels, start, box)
    if len(patch_size) == 2:
        image, labels = image[0], labels[0]
    return image.astype(np.float32, copy=False), labels
