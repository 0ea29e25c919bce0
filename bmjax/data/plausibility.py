"""Whether images look skull-stripped, and registered to one another.

Both are judged by measures that a person can check, and lead to warnings, not errors.
On real BraTS cases the gradients of two registered sequences correlate by 0.4 to 0.9
inside the brain, and 6 mm of displacement costs a fifth of that or more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import binary_erosion

from bmjax.data.nifti import Scan

BRAIN = ("t1c", "t1n", "t2f", "t2w")
BLOCK_MM = 4.0
MAX_BLOCKS = 2  # looked at along each axis and direction
MIN_ZERO = 0.2  # share of background in the tightest box around a brain is near a half
MAX_BRAIN_ML = 2600.0  # above brains stretched to MNI space; heads have more
MIN_SHARED = 0.9  # Dice of the non-zero regions of two channels
MAX_LOSS = 0.85  # correlation in place, as a share of the best one nearby
MIN_CORRELATION = 0.2
MIN_BLOCKS = 500
_EDGE = 4  # blocks left out around the content: the mask's own edge says nothing


@dataclass(frozen=True)
class Look:
    """One image, seen from afar.

    Attributes:
      blocks: means over blocks of about 4 mm.
      block_mm: their size.
      p_zero: share of voxels that are exactly 0.
      content_ml: volume of the others [ml].
    """

    blocks: Float[np.ndarray, "z y x"]
    block_mm: tuple[float, ...]
    p_zero: float
    content_ml: float


def look(scan: Scan) -> Look:
    """An image, seen from afar."""
    factors = [
        min(n, max(1, round(BLOCK_MM / s)))
        for n, s in zip(scan.array.shape, scan.spacing_mm, strict=True)
    ]
    kept = tuple(
        slice(n // f * f) for n, f in zip(scan.array.shape, factors, strict=True)
    )
    pairs: list[int] = []
    for n, f in zip(scan.array.shape, factors, strict=True):
        pairs += [n // f, f]
    blocks = scan.array[kept].reshape(pairs).mean((1, 3, 5), dtype=np.float32)
    content = np.count_nonzero(scan.array)
    return Look(
        blocks=blocks,
        block_mm=tuple(f * s for f, s in zip(factors, scan.spacing_mm, strict=True)),
        p_zero=1 - content / scan.array.size,
        content_ml=content * float(np.prod(scan.spacing_mm)) / 1000,
    )


def is_stripped(looks: Mapping[str, Look]) -> bool | None:
    """Whether all brain sequences show a brain on zeros; None without a sequence."""
    brains = [seen for name, seen in looks.items() if name in BRAIN]
    if not brains:
        return None
    return all(
        seen.p_zero >= MIN_ZERO and seen.content_ml <= MAX_BRAIN_ML for seen in brains
    )


def stripping_doubts(looks: Mapping[str, Look]) -> list[str]:
    """Why the brain sequences of a case may not be stripped, or not alike."""
    brains = {name: seen for name, seen in looks.items() if name in BRAIN}
    doubts = []
    bare = [name for name, seen in brains.items() if seen.p_zero < MIN_ZERO]
    large = [
        f"{name} {seen.content_ml:.0f} ml"
        for name, seen in brains.items()
        if name not in bare and seen.content_ml > MAX_BRAIN_ML
    ]
    if bare:
        share = max(brains[name].p_zero for name in bare)
        doubts.append(
            f"{', '.join(bare)} not skull-stripped? at most {share:.0%} of the voxels "
            "are 0, where a stripped image has a background of zeros; strip all "
            "channels with one mask"
        )
    if large:
        doubts.append(
            f"not skull-stripped? more than a brain is not 0: {', '.join(large)} (a "
            f"brain has less than {MAX_BRAIN_ML:.0f} ml); strip all channels with one "
            "mask"
        )
    if doubts or len(brains) < 2:
        return doubts
    first, *others = brains
    here = brains[first].blocks != 0
    for name in others:
        there = brains[name].blocks != 0
        if there.shape != here.shape:
            continue
        shared = 2 * np.count_nonzero(here & there) / max(here.sum() + there.sum(), 1)
        if shared < MIN_SHARED:
            doubts.append(
                f"{name} and {first} are not 0 in different places (Dice {shared:.2f}):"
                f" {brains[name].content_ml:.0f} and {brains[first].content_ml:.0f} ml;"
                " strip all channels with one mask"
            )
    return doubts


def background_doubts(
    channels: Mapping[str, Float[np.ndarray, "z y x"]],
    brain: Bool[np.ndarray, "z y x"],
    spacing_mm: Sequence[float],
) -> list[str]:
    """Why a case may not look as a network expects that saw stripped brains on zeros.

    Args:
      channels: of the case, within the tightest box around what is not 0.
      brain: where any channel is not 0, holes filled.
      spacing_mm: of its voxels, z y x [mm].
    """
    brains = {name: volume for name, volume in channels.items() if name in BRAIN}
    if not brains:
        return []
    where = "the network was trained on brains on a background of zeros"
    p_zero, count = 1 - float(brain.mean()), int(np.count_nonzero(brain))
    brain_ml = count * float(np.prod(spacing_mm)) / 1000
    if p_zero < MIN_ZERO:
        return [
            f"not skull-stripped? {p_zero:.0%} of the box around its content is 0, "
            f"around a brain about a half; {where}: strip all channels with one mask"
        ]
    if brain_ml > MAX_BRAIN_ML:
        return [
            f"not skull-stripped? {brain_ml:.0f} ml are not 0, a brain has less than "
            f"{MAX_BRAIN_ML:.0f} ml; {where}: strip all channels with one mask"
        ]
    doubts = []
    for name, volume in brains.items():
        own = int(np.count_nonzero(volume))
        shared = 2 * own / (own + count)
        if own and shared < MIN_SHARED:
            doubts.append(
                f"{name} is 0 where other channels are not (Dice {shared:.2f} of its "
                "content with that of all); strip all channels with one mask"
            )
    return doubts


def registration_doubts(looks: Mapping[str, Look]) -> list[str]:
    """Which brain sequences of a case fit the first one better in another place."""
    brains = {name: seen for name, seen in looks.items() if name in BRAIN}
    if len(brains) < 2:
        return []
    first, *others = brains
    fixed = brains[first]
    inside = binary_erosion(fixed.blocks != 0, iterations=_EDGE)
    if np.count_nonzero(inside) < MIN_BLOCKS:
        return []
    doubts = []
    for name in others:
        moving = brains[name]
        if moving.blocks.shape != fixed.blocks.shape:
            continue
        found = _correlations(fixed.blocks, moving.blocks, inside)
        shift = max(found, key=lambda key: found[key])
        best, in_place = found[shift], found[0, 0, 0]
        if best < MIN_CORRELATION:
            doubts.append(
                f"{name} not registered to {first}? their edges have little in common "
                f"(correlation {in_place:.2f}); register all channels"
            )
        elif in_place < MAX_LOSS * best:
            moved = [n * mm for n, mm in zip(shift, fixed.block_mm, strict=True)]
            away = float(np.linalg.norm(moved))
            doubts.append(
                f"{name} not registered to {first}? their edges fit better about "
                f"{away:.0f} mm away (correlation {best:.2f} there, {in_place:.2f} "
                "here); register all channels"
            )
    return doubts


def _correlations(
    fixed: Float[np.ndarray, "z y x"],
    moving: Float[np.ndarray, "z y x"],
    inside: Bool[np.ndarray, "z y x"],
) -> dict[tuple[int, ...], float]:
    """Correlation of the gradients' lengths, for each displacement by whole blocks."""
    reference = _centred(_steepness(fixed)[inside])
    steep = _steepness(moving)
    steps = range(-MAX_BLOCKS, MAX_BLOCKS + 1)
    found = {}
    for shift in product(steps, repeat=3):
        values = _centred(np.roll(steep, shift, (0, 1, 2))[inside])
        found[shift] = float(reference @ values)
    return found


def _steepness(blocks: Float[np.ndarray, "z y x"]) -> Float[np.ndarray, "z y x"]:
    return np.sqrt(sum(part**2 for part in np.gradient(blocks)))


def _centred(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-12)
