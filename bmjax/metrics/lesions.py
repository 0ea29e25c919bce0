"""Lesions one by one: components, sizes, and which predicted one meets which real one.

A lesion is a 26-connected component of a mask. `match` asks for any common voxel; the
rules of challenges and of instance metrics, whose numbers are not comparable, live in
`challenge` and `instances`. All of them start from the same `Pair`.
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from jaxtyping import Bool, Int, Num

SIZE_BINS_MM = (3.0, 5.0, 10.0)
SIZE_BIN_NAMES = ("<3 mm", "3-5 mm", "5-10 mm", ">=10 mm")
SMALL_MM3 = 100.0
VOLUME_BIN_NAMES = ("<100 mm3", ">=100 mm3")


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One 26-connected component.

    Attributes:
      index: its number in the component volume, from 1.
      num_voxels: size [vox].
      volume_mm3: size [mm3].
      diameter_mm: diameter of the sphere of the same volume [mm].
      centre_vox: centre of mass, z y x [vox].
      lower_vox: first voxel of the bounding box, z y x.
      upper_vox: one past the last voxel of the bounding box, z y x.
    """

    index: int
    num_voxels: int
    volume_mm3: float
    diameter_mm: float
    centre_vox: tuple[float, float, float]
    lower_vox: tuple[int, int, int]
    upper_vox: tuple[int, int, int]

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The bounding box as slices."""
        z, y, x = (
            slice(low, high)
            for low, high in zip(self.lower_vox, self.upper_vox, strict=True)
        )
        return z, y, x


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The lesions of a prediction and of a reference, and where they overlap.

    Attributes:
      predicted_numbers: number of the predicted component of each voxel, 0 outside.
      reference_numbers: number of the reference component of each voxel, 0 outside.
      predicted: predicted lesions, number 1 first.
      reference: reference lesions, number 1 first.
      overlaps: one row per overlapping couple: reference number, predicted number,
        common voxels.
      spacing_mm: voxel size, z y x [mm].
    """

    predicted_numbers: Int[np.ndarray, "z y x"]
    reference_numbers: Int[np.ndarray, "z y x"]
    predicted: tuple[Lesion, ...]
    reference: tuple[Lesion, ...]
    overlaps: Int[np.ndarray, "o 3"]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Match:
    """One reference lesion and what the prediction made of it.

    Attributes:
      lesion: the reference lesion.
      is_found: whether any predicted component matches it.
      dice: Dice with the union of its matching predicted components, 0 if none.
    """

    lesion: Lesion
    is_found: bool
    dice: float


@dataclass(frozen=True, kw_only=True)
class Matching:
    """All lesions of one case and region.

    Attributes:
      matches: one entry per reference lesion.
      false_positives: predicted lesions that touch no reference lesion.
    """

    matches: tuple[Match, ...]
    false_positives: tuple[Lesion, ...]


def components(mask: Bool[np.ndarray, "z y x"]) -> Int[np.ndarray, "z y x"]:
    """Number the 26-connected components of a mask from 1; 0 is background."""
    numbered = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=26)
    return numbered.astype(np.int32)


def measure(
    numbered: Int[np.ndarray, "z y x"], *, spacing_mm: tuple[float, float, float]
) -> tuple[Lesion, ...]:
    """Size and place of each component.

    Args:
      numbered: components as `components` numbers them.
      spacing_mm: voxel size, z y x [mm].
    """
    place = np.flatnonzero(numbered)  # few voxels: what follows is quick
    if not place.size:
        return ()
    numbers = numbered.reshape(-1)[place]
    order = np.argsort(numbers, kind="stable")
    where = np.stack(np.unravel_index(place[order], numbered.shape))  # 3 voxels
    indices, starts, counts = np.unique(
        numbers[order], return_index=True, return_counts=True
    )
    lower = np.minimum.reduceat(where, starts, axis=1).T.tolist()
    upper = (np.maximum.reduceat(where, starts, axis=1) + 1).T.tolist()
    centres = (np.add.reduceat(where, starts, axis=1) / counts).T.tolist()
    volume_mm3 = float(np.prod(spacing_mm))
    return tuple(
        Lesion(
            index=int(index),
            num_voxels=int(count),
            volume_mm3=int(count) * volume_mm3,
            diameter_mm=diameter_mm(int(count) * volume_mm3),
            centre_vox=tuple(centre),
            lower_vox=tuple(low),
            upper_vox=tuple(high),
        )
        for index, count, centre, low, high in zip(
            indices, counts, centres, lower, upper, strict=True
        )
    )


def diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere of a volume [mm]."""
    return float(np.cbrt(6.0 * volume_mm3 / np.pi))


def volume_bin(volume_mm3: float) -> str:
    """Whether a lesion is smaller than 100 mm3, where challenges and studies cut."""
    return VOLUME_BIN_NAMES[int(volume_mm3 >= SMALL_MM3)]


def size_bin(diameter: float) -> str:
    """Name of the bin of an equivalent diameter [mm]; a bin holds its lower end."""
    return SIZE_BIN_NAMES[int(np.searchsorted(SIZE_BINS_MM, diameter, side="right"))]


def pair(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> Pair:
    """Number the lesions of two masks and find their overlaps.

    Args:
      prediction: predicted mask.
      reference: reference mask on the same grid.
      spacing_mm: voxel size, z y x [mm].
    """
    predicted, real = components(prediction), components(reference)
    is_shared = prediction & reference
    num = int(predicted.max(initial=0)) + 1
    codes = real[is_shared].astype(np.int64) * num + predicted[is_shared]
    codes, counts = np.unique(codes, return_counts=True)
    return Pair(
        predicted_numbers=predicted,
        reference_numbers=real,
        predicted=measure(predicted, spacing_mm=spacing_mm),
        reference=measure(real, spacing_mm=spacing_mm),
        overlaps=np.stack([codes // num, codes % num, counts], axis=1),
        spacing_mm=spacing_mm,
    )


def match(lesions: Pair) -> Matching:
    """Match lesions by any common voxel.

    A reference component is found if the prediction holds one of its voxels; a
    predicted component is a false positive if it holds no reference voxel. One
    predicted component may find several reference lesions, and then counts whole
    in the Dice of each.
    """
    sizes = np.array([0, *(lesion.num_voxels for lesion in lesions.predicted)])
    real, predicted, common = lesions.overlaps.T
    matches = []
    for lesion in lesions.reference:
        is_own = real == lesion.index
        total = lesion.num_voxels + int(sizes[predicted[is_own]].sum())
        matches.append(
            Match(
                lesion=lesion,
                is_found=bool(is_own.any()),
                dice=2 * int(common[is_own].sum()) / total,
            )
        )
    touching = set(predicted.tolist())
    return Matching(
        matches=tuple(matches),
        false_positives=tuple(
            lesion for lesion in lesions.predicted if lesion.index not in touching
        ),
    )


def volume_ml(
    mask: Num[np.ndarray, "z y x"] | Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> float:
    """Volume of the non-zero voxels [ml]."""
    return int(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / 1000.0
