"""How a patient moved between two scans that are not registered, by the lesions."""

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from bmjax.tracking.observation import Observation

NEAR_MM = 5.0
TRUSTED_MM = 0.5  # a couple that lies so far off counts half
NUM_FITS = 10
MAX_CORNERS = 12  # lesions of a scan, the largest, whose triangles are compared
MIN_HEIGHT_MM = 5.0  # of a triangle: a thin one says little about its own axis
MAX_TRIANGLES = 20_000  # the most alike, of those that are tried
STILL_VECTOR = (0.0, 0.0, 0.0)
Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Movement:
    """A rigid movement: turned about a place, then shifted; x y z in RAS+ millimetres.

    Attributes:
      shift_mm: of the place that is turned about [mm].
      rotation: rows of the rotation matrix.
      centre_mm: the place [mm].
    """

    shift_mm: Vector = STILL_VECTOR
    rotation: tuple[Vector, Vector, Vector] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    centre_mm: Vector = STILL_VECTOR

    @property
    def angle_deg(self) -> float:
        """How far it turns, about whatever axis [degree]."""
        return float(_angles_deg(np.array(self.rotation, float)[None])[0])

    @property
    def is_still(self) -> bool:
        """Whether nothing moves."""
        return self.angle_deg == 0 and not any(self.shift_mm)

    def __call__(self, points_mm: Float[np.ndarray, "*n 3"]) -> np.ndarray:
        """Where the movement takes places of the earlier scan [mm]."""
        if self.angle_deg == 0:
            return points_mm + np.array(self.shift_mm)
        centre = np.array(self.centre_mm)
        turned = (points_mm - centre) @ np.array(self.rotation, float).T
        return turned + centre + np.array(self.shift_mm)

    def inverse(self) -> "Movement":
        """The way back."""
        rotation = np.array(self.rotation, float).T
        centre = np.add(self.centre_mm, self.shift_mm)
        return _movement(rotation, centre, -np.array(self.shift_mm))

    def then(self, other: "Movement") -> "Movement":
        """This movement, and another one after it."""
        rotation = np.array(other.rotation, float) @ np.array(self.rotation, float)
        centre = np.array(self.centre_mm)
        return _movement(rotation, centre, other(self(centre)) - centre)


STILL = Movement()


def movement(
    first: Observation, second: Observation, *, limit_mm: float, limit_deg: float = 0.0
) -> Movement:
    """The movement that brings most lesions of two scans near each other.

    Shifts are proposed by couples of lesions, from centre to centre; rotations by
    triangles of lesions that have the same sides in both scans, up to 5 mm. A lesion
    counts as near within 5 mm of one of the other scan. What wins is fitted again to
    the couples that are nearest to each other: the median of their shifts, or the
    rotation of least squares in which couples that do not fit, such as a lesion that
    merged, hardly count.

    Args:
      first: earlier scan.
      second: later scan.
      limit_mm: longest movement of the lesions' middle that is looked for; 0: the scans
        are registered.
      limit_deg: widest rotation that is looked for, from three lesions on; 0: none.
    """
    if limit_mm <= 0 or not first.lesions or not second.lesions:
        return STILL
    before = np.stack([lesion.centre_mm for lesion in first.lesions])
    after = np.stack([lesion.centre_mm for lesion in second.lesions])
    shifted = _shift(before, after, limit_mm)
    if limit_deg <= 0:
        return shifted
    turned = _rotation(before, after, limit_mm=limit_mm, limit_deg=limit_deg)
    return min((shifted, turned), key=lambda own: _cost(_apart_mm(own(before), after)))


def _shift(
    before: Float[np.ndarray, "n 3"], after: Float[np.ndarray, "m 3"], limit_mm: float
) -> Movement:
    proposed = (after[None] - before[:, None]).reshape(-1, 3)
    proposed = proposed[np.linalg.norm(proposed, axis=1) <= limit_mm]
    proposed = np.concatenate([np.zeros((1, 3)), proposed])
    best = max(
        proposed,
        key=lambda shift: (
            int((_apart_mm(before + shift, after) <= NEAR_MM).sum()),
            -float(np.linalg.norm(shift)),
        ),
    )
    own, others = _mutual(before + best, after)
    if not len(own):
        return STILL
    return _movement(
        np.eye(3), before.mean(0), np.median(after[others] - before[own], axis=0)
    )


def _rotation(
    before: Float[np.ndarray, "n 3"],
    after: Float[np.ndarray, "m 3"],
    *,
    limit_mm: float,
    limit_deg: float,
) -> Movement:
    """The best movement by triangles; none where there are not three lesions."""
    corners, others = before[:MAX_CORNERS], after[:MAX_CORNERS]
    if min(len(corners), len(others)) < 3:
        return STILL
    triangles = corners[[*combinations(range(len(corners)), 3)]]  # t 3 3
    turned = others[[*permutations(range(len(others)), 3)]]
    unlike_mm = np.abs(_sides(triangles)[:, None] - _sides(turned)[None]).max(-1)
    order = np.argsort(unlike_mm, axis=None, kind="stable")[:MAX_TRIANGLES]
    order = order[unlike_mm.ravel()[order] <= NEAR_MM]
    one, other = np.unravel_index(order, unlike_mm.shape)
    is_wide = _heights_mm(triangles)[one] >= MIN_HEIGHT_MM
    one, other = one[is_wide], other[is_wide]
    same = np.ones((len(one), 3))
    rotations, centres, shifts = _fit(triangles[one], turned[other], same)
    middle = before.mean(0)
    # all told of one place
    shifts = shifts + centres - middle
    shifts += np.einsum("tij,tj->ti", rotations, middle - centres)
    is_allowed = (_angles_deg(rotations) <= limit_deg) & (
        np.linalg.norm(shifts, axis=1) <= limit_mm
    )
    if not is_allowed.any():
        return STILL
    rotations, shifts = rotations[is_allowed], shifts[is_allowed]
    moved = np.einsum("tij,nj->tni", rotations, corners - middle)
    apart_mm = np.linalg.norm(
        (moved + (middle + shifts)[:, None])[:, :, None] - others, axis=-1
    )
    nearest_mm = np.concatenate([apart_mm.min(2), apart_mm.min(1)], axis=1)
    i = int(np.argmin(_cost(nearest_mm)))
    best = _movement(rotations[i], middle, shifts[i])
    for _ in range(NUM_FITS):
        own, near = _mutual(best(before), after)
        if len(own) < 3:
            break
        off_mm = np.linalg.norm(best(before[own]) - after[near], axis=1)
        weights = 1 / (1 + np.square(off_mm / TRUSTED_MM))
        fitted = _fit(before[own][None], after[near][None], weights[None])
        best = _movement(*(part[0] for part in fitted))
    return best


def _fit(
    before: Float[np.ndarray, "t n 3"],
    after: Float[np.ndarray, "t n 3"],
    weights: Float[np.ndarray, "t n"],
) -> tuple[
    Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3"], Float[np.ndarray, "t 3"]
]:
    """Rotation, centre and shift of least squares (Kabsch 1976), of each set."""
    shares = (weights / weights.sum(1, keepdims=True))[..., None]
    centres, goals = (shares * before).sum(1), (shares * after).sum(1)
    own, others = before - centres[:, None], after - goals[:, None]
    u, _, vt = np.linalg.svd(np.einsum("tni,tnj->tij", shares * own, others))
    # no reflection
    vt[:, 2] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))[:, None]
    return np.einsum("tji,tkj->tik", vt, u), centres, goals - centres


def _sides(triangles: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    return np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=-1)


def _heights_mm(triangles: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, " t"]:
    """The smallest height of each triangle."""
    doubled = np.linalg.norm(
        np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]),
        axis=-1,
    )
    return doubled / np.maximum(_sides(triangles).max(-1), 1e-9)


def _angles_deg(rotations: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, " t"]:
    # by the chord, which near 0 keeps the digits that the trace loses
    chord = np.linalg.norm(rotations - np.eye(3), axis=(1, 2)) / np.sqrt(8)
    return np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))


def _movement(
    rotation: Float[np.ndarray, "3 3"],
    centre_mm: Float[np.ndarray, " 3"],
    shift_mm: Float[np.ndarray, " 3"],
) -> Movement:
    first, second, third = (_vector(row) for row in rotation)
    return Movement(
        shift_mm=_vector(shift_mm),
        rotation=(first, second, third),
        centre_mm=_vector(centre_mm),
    )


def _vector(values: Float[np.ndarray, " 3"]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _mutual(
    moved: Float[np.ndarray, "n 3"], after: Float[np.ndarray, "m 3"]
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Couples that are nearest to each other, and near."""
    apart_mm, forth = (np.asarray(found) for found in KDTree(after).query(moved))
    back = np.asarray(KDTree(moved).query(after)[1])
    own = np.flatnonzero((back[forth] == np.arange(len(moved))) & (apart_mm <= NEAR_MM))
    return own, forth[own]


def _apart_mm(
    moved: Float[np.ndarray, "n 3"], after: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, " n+m"]:
    """From every lesion of both scans to the nearest one of the other."""
    forth, back = KDTree(after).query(moved)[0], KDTree(moved).query(after)[0]
    return np.concatenate([forth, back])


def _cost(apart_mm: Float[np.ndarray, "*t n"]) -> Any:
    """Of each row, or of one: few lesions that fit outweigh many that nearly do.

    Cauchy's, since a lesion that merged lies elsewhere with its whole weight.
    """
    off = np.minimum(apart_mm, NEAR_MM) / TRUSTED_MM
    return np.log1p(np.square(off)).sum(-1)
