"""Lesions one by one: components, sizes, and matching of predicted to real ones.

A lesion is a 26-connected component of a mask. Two matchings live here under their own
names, because their numbers are not comparable: `match` (any common voxel) and
`brats_mets_2023` (the challenge's rule: near lesions merged, 18-connected dilation).
"""

from dataclasses import dataclass

import cc3d
import numpy as np
from jaxtyping import Bool, Int, Num

SIZE_BINS_MM = (3.0, 5.0, 10.0)
SIZE_BIN_NAMES = ("<3 mm", "3-5 mm", "5-10 mm", ">=10 mm")
BRATS_METS_MIN_VOLUME_MM3 = 2.0


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


@dataclass(frozen=True, kw_only=True)
class LesionWise:
    """Result of the BraTS-METS 2023 rule; see `brats_mets_2023`.

    Attributes:
      dice: the lesion-wise Dice, 1 where there is neither lesion nor false positive.
      num_true_positive: reference lesions above the volume limit that are matched.
      num_false_negative: reference lesions above the volume limit that are not.
      num_false_positive: predicted components, of any size, that match nothing.
    """

    dice: float
    num_true_positive: int
    num_false_negative: int
    num_false_positive: int


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
    if not numbered.size or not numbered.any():
        return ()
    statistics = cc3d.statistics(numbered.astype(np.uint32))
    volume_mm3 = float(np.prod(spacing_mm))
    lesions = []
    for index in range(1, len(statistics["voxel_counts"])):
        num_voxels = int(statistics["voxel_counts"][index])
        z, y, x = statistics["bounding_boxes"][index]
        cz, cy, cx = (float(v) for v in statistics["centroids"][index])
        lesions.append(
            Lesion(
                index=index,
                num_voxels=num_voxels,
                volume_mm3=num_voxels * volume_mm3,
                diameter_mm=diameter_mm(num_voxels * volume_mm3),
                centre_vox=(cz, cy, cx),
                lower_vox=(int(z.start), int(y.start), int(x.start)),
                upper_vox=(int(z.stop), int(y.stop), int(x.stop)),
            )
        )
    return tuple(lesions)


def diameter_mm(volume_mm3: float) -> float:
    """Diameter of the sphere of a volume [mm]."""
    return float(np.cbrt(6.0 * volume_mm3 / np.pi))


def size_bin(diameter: float) -> str:
    """Name of the bin of an equivalent diameter [mm]; a bin holds its lower end."""
    return SIZE_BIN_NAMES[int(np.searchsorted(SIZE_BINS_MM, diameter, side="right"))]


def match(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> Matching:
    """Match lesions by any common voxel.

    A reference component is found if the prediction holds one of its voxels; a
    predicted component is a false positive if it holds no reference voxel. One
    predicted component may find several reference lesions, and then counts whole
    in the Dice of each.

    Args:
      prediction: predicted mask.
      reference: reference mask on the same grid.
      spacing_mm: voxel size, z y x [mm].
    """
    predicted, real = components(prediction), components(reference)
    predicted_lesions = measure(predicted, spacing_mm=spacing_mm)
    sizes = np.array([0, *(lesion.num_voxels for lesion in predicted_lesions)])
    is_shared = prediction & reference
    num = len(sizes)
    codes = real[is_shared].astype(np.int64) * num + predicted[is_shared]
    codes, overlaps = np.unique(codes, return_counts=True)
    pairs = np.stack([codes // num, codes % num])  # 2 pairs: reference, prediction
    matches = []
    for lesion in measure(real, spacing_mm=spacing_mm):
        is_own = pairs[0] == lesion.index
        total = lesion.num_voxels + int(sizes[pairs[1][is_own]].sum())
        matches.append(
            Match(
                lesion=lesion,
                is_found=bool(is_own.any()),
                dice=2 * int(overlaps[is_own].sum()) / total,
            )
        )
    touching = set(pairs[1].tolist())
    return Matching(
        matches=tuple(matches),
        false_positives=tuple(p for p in predicted_lesions if p.index not in touching),
    )


def brats_mets_2023(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
    min_volume_mm3: float = BRATS_METS_MIN_VOLUME_MM3,
) -> LesionWise:
    """Lesion-wise Dice of the BraTS-METS 2023 challenge, re-derived from its rule.

    Reference voxels whose 18-connected dilations (one voxel) meet are one lesion. The
    predicted components that meet a lesion's dilation match it, whole; its Dice is
    that of their union and the undilated lesion. Lesions of at most `min_volume_mm3`
    are left out, false positives of any size are not. The result is the sum of Dice
    over (lesions kept + false positives).

    Args:
      prediction: predicted mask.
      reference: reference mask on the same grid.
      spacing_mm: voxel size, z y x [mm].
      min_volume_mm3: lesions up to this volume do not count [mm3].
    """
    merged = np.where(reference, components(dilate_18(reference)), 0)
    predicted = components(prediction)
    sizes = np.bincount(predicted.ravel())
    voxel_mm3 = float(np.prod(spacing_mm))
    dices, is_found, matched = [], [], set()
    for lesion in measure(merged, spacing_mm=spacing_mm):
        box = _grown(lesion.box, merged.shape)
        own = merged[box] == lesion.index
        near = np.unique(predicted[box][dilate_18(own)])
        near = near[near > 0]
        matched.update(near.tolist())
        if lesion.num_voxels * voxel_mm3 <= min_volume_mm3:
            continue
        overlap = int(np.isin(predicted[box][own], near).sum())
        dices.append(2 * overlap / (lesion.num_voxels + int(sizes[near].sum())))
        is_found.append(bool(near.size))
    num_false_positive = int(predicted.max(initial=0)) - len(matched)
    num_counted = len(dices) + num_false_positive
    return LesionWise(
        dice=sum(dices) / num_counted if num_counted else 1.0,
        num_true_positive=sum(is_found),
        num_false_negative=len(is_found) - sum(is_found),
        num_false_positive=num_false_positive,
    )


def dilate_18(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Grow a mask by its 18 neighbours (faces and edges, not corners)."""
    along = [_dilate_line(mask, axis) for axis in range(3)]
    grown = _dilate_line(along[0], 1)  # the three coordinate squares, joined
    grown |= _dilate_line(along[1], 2)
    grown |= _dilate_line(along[2], 0)
    return grown


def volume_ml(
    mask: Num[np.ndarray, "z y x"] | Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> float:
    """Volume of the non-zero voxels [ml]."""
    return int(np.count_nonzero(mask)) * float(np.prod(spacing_mm)) / 1000.0


def _dilate_line(mask: np.ndarray, axis: int) -> np.ndarray:
    grown = mask.copy()
    source, target = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
    target[1:] |= source[:-1]
    target[:-1] |= source[1:]
    return grown


def _grown(
    box: tuple[slice, slice, slice], shape: tuple[int, ...]
) -> tuple[slice, slice, slice]:
    z, y, x = (
        slice(max(s.start - 1, 0), min(s.stop + 1, size))
        for s, size in zip(box, shape, strict=True)
    )
    return z, y, x
