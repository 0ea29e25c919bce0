"""Which lesion of one scan is which of another: one to one, then merged and split.

Couples come from an optimal assignment (Kuhn 1955, scipy's solver), after the tracking
script of BrainMetaSeg, whose costs are overlap, distance of the centres and distance of
the surfaces. Where this differs:

- Its surface criterion never fires: the distance is computed only for couples that are
  candidates already. Here it is computed for every couple that is near enough.
- Overlap and Dice go before distance for good: no number of far couples outweighs a
  near one, and a lesion stays alone rather than join a couple that is no candidate.
- Scans on other grids are compared in world millimetres, not by rank of volume.
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from bmjax.tracking.motion import STILL, Movement
from bmjax.tracking.observation import Lesion, Observation

OVERLAP_WEIGHT, DICE_WEIGHT, SURFACE_WEIGHT = 1000.0, 10.0, 0.5  # per mm3, -, per mm


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """When two lesions may be the same one.

    Attributes:
      max_centre_mm: distance of the centres of mass [mm].
      max_surface_mm: smallest distance between voxels of the two [mm].
      min_share: of a lesion's volume that must lie in another one for it to have
        merged with that, or to have split from it.
    """

    max_centre_mm: float = 10.0
    max_surface_mm: float = 5.0
    min_share: float = 0.5

    def __post_init__(self):
        if min(self.max_centre_mm, self.max_surface_mm) < 0:
            raise ValueError(
                f"max_centre_mm {self.max_centre_mm} and max_surface_mm "
                f"{self.max_surface_mm} must not be negative"
            )
        if not 0 < self.min_share <= 1:
            raise ValueError(f"min_share {self.min_share} must lie in (0, 1]")


DEFAULT = Criteria()


@dataclass(frozen=True, kw_only=True)
class Couple:
    """Two lesions and how near they are.

    Attributes:
      first: index in the earlier scan.
      second: index in the later scan.
      overlap_mm3: common volume [mm3].
      dice: of the two.
      centre_mm: distance of the centres of mass [mm].
      surface_mm: smallest distance of their voxels, 0 where they overlap [mm].
    """

    first: int
    second: int
    overlap_mm3: float
    dice: float
    centre_mm: float
    surface_mm: float

    @property
    def gain(self) -> float:
        """What the assignment maximises; less than 1 without overlap."""
        near = 1 / (1 + self.centre_mm + SURFACE_WEIGHT * self.surface_mm)
        return OVERLAP_WEIGHT * self.overlap_mm3 + DICE_WEIGHT * self.dice + near


@dataclass(frozen=True, kw_only=True)
class Matching:
    """What became of the lesions between two scans.

    Attributes:
      matched: one to one.
      merged: earlier lesions that went into a later one which is matched to another.
      split: later lesions that came out of an earlier one which is matched to another.
      resolved: indices of the earlier lesions that are in none of these.
      new: indices of the later lesions that are in none of these.
    """

    matched: tuple[Couple, ...]
    merged: tuple[Couple, ...]
    split: tuple[Couple, ...]
    resolved: tuple[int, ...]
    new: tuple[int, ...]


def match(
    first: Observation,
    second: Observation,
    *,
    criteria: Criteria = DEFAULT,
    moved: Movement = STILL,
    among: tuple[Collection[int], Collection[int]] | None = None,
) -> Matching:
    """Match the lesions of two scans; time reversed, merged and split change places.

    Args:
      first: earlier scan.
      second: later scan.
      criteria: when two lesions may be the same.
      moved: how the patient moved in between.
      among: indices of the lesions to consider in both; None: all.
    """
    own = [
        lesion for lesion in first.lesions if among is None or lesion.index in among[0]
    ]
    others = [
        lesion for lesion in second.lesions if among is None or lesion.index in among[1]
    ]
    couples = _candidates(first, second, own, others, criteria, moved)
    matched = _assign(own, others, couples)
    of_first = {couple.first: couple for couple in matched}
    of_second = {couple.second: couple for couple in matched}
    volumes = (
        {lesion.index: lesion.volume_mm3 for lesion in own},
        {lesion.index: lesion.volume_mm3 for lesion in others},
    )
    merged, split = {}, {}
    for couple in couples.values():
        is_free = couple.first not in of_first, couple.second not in of_second
        if is_free == (True, False):
            if couple.overlap_mm3 >= criteria.min_share * volumes[0][couple.first]:
                best = merged.get(couple.first)
                if best is None or couple.overlap_mm3 > best.overlap_mm3:
                    merged[couple.first] = couple
        elif is_free == (False, True):
            if couple.overlap_mm3 >= criteria.min_share * volumes[1][couple.second]:
                best = split.get(couple.second)
                if best is None or couple.overlap_mm3 > best.overlap_mm3:
                    split[couple.second] = couple
    return Matching(
        matched=tuple(sorted(matched, key=lambda c: c.first)),
        merged=tuple(merged[i] for i in sorted(merged)),
        split=tuple(split[i] for i in sorted(split)),
        resolved=tuple(i for i in volumes[0] if i not in of_first and i not in merged),
        new=tuple(i for i in volumes[1] if i not in of_second and i not in split),
    )


def _candidates(
    first: Observation,
    second: Observation,
    own: list[Lesion],
    others: list[Lesion],
    criteria: Criteria,
    moved: Movement,
) -> dict[tuple[int, int], Couple]:
    """Couples that overlap, or whose centres or surfaces are near enough."""
    overlaps = _overlaps_mm3(first, second, moved)
    trees = {lesion.index: KDTree(moved(lesion.points_mm)) for lesion in own}
    couples = {}
    for a, b in product(own, others):
        overlap_mm3 = overlaps.get((a.index, b.index), 0.0)
        centre_mm = float(np.linalg.norm(b.centre_mm - moved(a.centre_mm)))
        surface_mm = 0.0
        if not overlap_mm3:
            surface_mm = float(trees[a.index].query(b.points_mm)[0].min())
        if (
            overlap_mm3
            or centre_mm <= criteria.max_centre_mm
            or surface_mm <= criteria.max_surface_mm
        ):
            couples[a.index, b.index] = Couple(
                first=a.index,
                second=b.index,
                overlap_mm3=overlap_mm3,
                dice=2 * overlap_mm3 / (a.volume_mm3 + b.volume_mm3),
                centre_mm=centre_mm,
                surface_mm=surface_mm,
            )
    return couples


def _overlaps_mm3(
    first: Observation, second: Observation, moved: Movement
) -> dict[tuple[int, int], float]:
    """Common volume of couples, the mean of what the voxels of either scan say."""
    found: dict[tuple[int, int], float] = {}
    back = moved.inverse()
    for scan, other, way in ((first, second, moved), (second, first, back)):
        for lesion in scan.lesions:
            met = other.at(way(lesion.points_mm))
            numbers, counts = np.unique(met[met > 0], return_counts=True)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                key = (number, lesion.index) if way is back else (lesion.index, number)
                found[key] = found.get(key, 0.0) + count * scan.voxel_mm3 / 2
    return found


def _assign(
    own: list[Lesion], others: list[Lesion], couples: dict[tuple[int, int], Couple]
) -> list[Couple]:
    """The couples of the largest gain in all, each lesion at most once.

    Rows and columns are put into an order of their own first, so that where several
    assignments are equally good neither numbering nor the direction of time decides.
    """
    rows, columns = sorted(own, key=_rank), sorted(others, key=_rank)
    is_turned = [*map(_rank, rows)] > [*map(_rank, columns)]
    gains = np.zeros((len(rows), len(columns)))
    for i, j in product(range(len(rows)), range(len(columns))):
        couple = couples.get((rows[i].index, columns[j].index))
        gains[i, j] = couple.gain if couple is not None else 0.0
    chosen = linear_sum_assignment(gains.T if is_turned else gains, maximize=True)
    at_row, at_column = reversed(chosen) if is_turned else chosen
    keys = [
        (rows[i].index, columns[j].index)
        for i, j in zip(at_row, at_column, strict=True)
    ]
    return [couples[key] for key in keys if key in couples]


def _rank(lesion: Lesion) -> tuple[float, ...]:
    return (-lesion.volume_mm3, *lesion.centre_mm.tolist())
