"""Where to cut a patch, and the cutting: a pure function of a case and a generator.

In a batch of b, the samples from `round(b * (1 - p_lesion))` on are centred on a lesion
voxel, the others lie anywhere (nnU-Net). That voxel is drawn class first, as nnU-Net
does, or lesion first, which gives a small lesion the same share as a large one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from bmjax.augment.geometry import Placement, Size, affine

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

    @property
    def voxels(self) -> Mapping[str, np.ndarray]:
        """Voxels of each region, z y x."""
        ...

    @property
    def lesions(self) -> Sequence[Mapping[str, Any]]:
        """`volume_mm3`, and rows `start` to `stop` in `lesion_voxels`, of each."""
        ...

    @property
    def lesion_voxels(self) -> np.ndarray:
        """Voxels of each lesion, z y x, lesion after lesion."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which voxel a patch is centred on.

    Attributes:
      centring: draw a region of the case, then one of its voxels (`class`, nnU-Net), or
        one of its lesions, then one of its voxels (`lesion`).
      volume_power: chance of a lesion as its volume to the power of minus this: 0 for
        all lesions alike, 1 for the inverse of the volume.
    """

    centring: Centring = "lesion"
    volume_power: float = 0.0


def generator(*, seed: int, stream: int, step: int, slot: int) -> np.random.Generator:
    """The generator of one sample: its numbers depend on these four integers alone."""
    return np.random.Generator(
        np.random.Philox(key=[seed, stream], counter=[0, 0, step, slot])
    )


def is_on_lesion(slot: int, *, batch_size: int, p_lesion: float) -> bool:
    """Whether the sample in this slot of the batch is centred on a lesion (nnU-Net)."""
    return slot >= round(batch_size * (1 - p_lesion))


def draw_voxel(
    case: Sampled, rng: np.random.Generator, *, sampling: Sampling
) -> Int[np.ndarray, "3"] | None:
    """A lesion voxel, z y x; None where the case has no lesion."""
    if sampling.centring == "class":
        present = [voxels for voxels in case.voxels.values() if len(voxels)]
        if not present:
            return None
        own = present[int(rng.integers(len(present)))]
    else:
        if not case.lesions:
            return None
        weights = np.array([lesion["volume_mm3"] for lesion in case.lesions], float)
        weights = weights**-sampling.volume_power
        lesion = case.lesions[int(rng.choice(len(weights), p=weights / weights.sum()))]
        own = case.lesion_voxels[lesion["start"] : lesion["stop"]]
    return np.array(own[int(rng.integers(len(own)))])


def patch_start(
    size: Size,
    patch_size: Size,
    *,
    box_size: Size,
    rng: np.random.Generator,
    centre: np.ndarray | None = None,
) -> tuple[int, ...]:
    """First voxel of a patch, as nnU-Net's loader places the box around it.

    Args:
      size: of the volume [vox].
      patch_size: [vox].
      box_size: what nnU-Net loads for a patch, at least as large [vox]. It lies between
        half its excess before the volume and half its excess behind.
      rng: draws the place where no centre is given.
      centre: voxel to put in the middle; only the lower bound holds it back.
    """
    start = []
    for axis, (whole, part, box) in enumerate(
        zip(size, patch_size, box_size, strict=True)
    ):
        excess = max(box - part, box - whole)
        low, high = -excess // 2, whole + excess // 2 + excess % 2 - box
        if centre is None:
            first = int(rng.integers(low, high + 1))
        else:
            first = max(low, int(centre[axis]) - box // 2)
        start.append(first + box // 2 - part // 2)
    return tuple(start)


def box_start(size: Size, start: Size, patch_size: Size, *, box_size: Size) -> Size:
    """First voxel of the box that holds what a moved patch may need of the volume.

    Args:
      size: of the volume [vox].
      start: first voxel of the patch.
      patch_size: [vox].
      box_size: what is cut; on an axis where the volume is smaller than nnU-Net's box,
        at least the volume [vox].
    """
    found = []
    for whole, first, part, box in zip(size, start, patch_size, box_size, strict=True):
        wished = first - (box - part) // 2
        # no zeros from beyond the volume while voxels of it are left out
        found.append(min(max(wished, min(0, whole - box)), max(0, whole - box)))
    return tuple(found)


def cut(
    array: np.ndarray, start: Size, size: Size, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Copy of a box, zero where it reaches beyond the array.

    Args:
      array: volume, space first; axes after it are kept whole.
      start: first voxel of the box; may be negative.
      size: of the box [vox].
      out: zeros to copy into, at least as large.
    """
    if out is None:
        out = np.zeros((*size, *array.shape[len(size) :]), array.dtype)
    inside, source = [], []
    for first, length, whole in zip(start, size, array.shape, strict=False):
        low, high = max(first, 0), max(min(first + length, whole), 0)
        source.append(slice(low, high))
        inside.append(slice(low - first, max(high, low) - first))
    out[tuple(inside)] = array[tuple(source)]
    return out


def cut_sample(
    case: Sampled,
    *,
    image: Float[np.ndarray, "*s c"],
    labels: Int[np.ndarray, "*s"],
    patch_size: Size,
    load_size: Size,
    on_lesion: bool,
    sampling: Sampling,
    placement: Placement | None,
    rng: np.random.Generator,
) -> Float[np.ndarray, "d e"]:
    """Fill image and labels of one training sample; a 2-D patch takes one slice.

    A patch that is moved needs its surroundings and is cut as large as `image`; one
    that is not lies at its beginning.

    Args:
      case: a stored case.
      image: zeros, to be filled.
      labels: zeros on the same grid.
      patch_size: two or three axes [vox].
      load_size: nnU-Net's box, which decides where a patch may lie [vox].
      on_lesion: centre the patch on a lesion voxel where the case has one.
      sampling: how that voxel is drawn.
      placement: how the patch is moved; None for not at all.
      rng: the generator of this sample.

    Returns:
      From a voxel of the patch to a place in what was cut.
    """
    if case.labels is None:
        raise ValueError("a case without labels cannot be trained on; prepare it anew")
    num_axes = len(patch_size)
    flat = (1,) * (3 - num_axes)
    whole, part = case.labels.shape, (*flat, *patch_size)
    centre = draw_voxel(case, rng, sampling=sampling) if on_lesion else None
    first = patch_start(
        whole, part, box_size=(*flat, *load_size), rng=rng, centre=centre
    )
    start, size = first, part
    if placement is not None and placement.is_moved:
        size = (*flat, *labels.shape)
        start = box_start(whole, first, part, box_size=size)
    for array, out in ((case.image, image), (case.labels, labels)):
        cut(array, start, size, out=out[(None,) * len(flat)])
    matrix = np.eye(num_axes) if placement is None else placement.matrix
    offset = np.subtract(first, start)[3 - num_axes :]
    return affine(matrix, patch_size, offset=offset)


def cut_donor(
    case: Sampled,
    *,
    size: int,
    volume_mm3: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "z y x c"], Int[np.ndarray, "z y x"]]:
    """A box around one of a case's small lesions, with that lesion's labels alone.

    Args:
      case: a stored case.
      size: side of the box [vox].
      volume_mm3: smallest and largest volume of the lesion.
      rng: draws it.

    Returns:
      Image and labels; both zero where the case has no such lesion that fits.
    """
    if case.labels is None:
        raise ValueError("a case without labels has no lesions to copy")
    small = [
        lesion
        for lesion in case.lesions
        if volume_mm3[0] <= lesion["volume_mm3"] <= volume_mm3[1]
        and np.max(np.subtract(*lesion["box"][::-1])) <= size - 4  # and some tissue
    ]
    image = np.zeros((size, size, size, case.image.shape[-1]), np.float32)
    labels = np.zeros((size,) * 3, np.int8)
    if not small:
        return image, labels
    lesion = small[int(rng.integers(len(small)))]
    middle = np.mean(lesion["box"], 0).astype(int)
    start = tuple(int(x) for x in middle - size // 2)
    cut(case.image, start, (size,) * 3, out=image)
    voxels = case.lesion_voxels[lesion["start"] : lesion["stop"]]
    labels[tuple((voxels - start).T)] = case.labels[tuple(voxels.T)]
    return image, labels
