"""How far a patient moved between two scans that are not registered, by the lesions."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from bmjax.tracking.observation import Observation

NEAR_MM = 5.0


def movement_mm(
    first: Observation, second: Observation, *, limit_mm: float
) -> tuple[float, float, float]:
    """The shift that brings most lesions of two scans near each other, x y z [mm].

    Every couple of lesions proposes the shift between its centres. The one that brings
    most lesions of both scans within 5 mm of one wins, the shortest of equals; it is
    then replaced by the median over the couples that are nearest to each other.

    Args:
      first: earlier scan.
      second: later scan.
      limit_mm: longest movement that is looked for; 0: the scans are registered.
    """
    if limit_mm <= 0 or not first.lesions or not second.lesions:
        return 0.0, 0.0, 0.0
    before = np.stack([lesion.centre_mm for lesion in first.lesions])
    after = np.stack([lesion.centre_mm for lesion in second.lesions])
    proposed = (after[None] - before[:, None]).reshape(-1, 3)
    proposed = proposed[np.linalg.norm(proposed, axis=1) <= limit_mm]
    proposed = np.concatenate([np.zeros((1, 3)), proposed])
    best = max(proposed, key=lambda shift: _score(before + shift, after, shift))
    forth, back = _nearest(before + best, after), _nearest(after, before + best)
    mutual = [
        (i, j)
        for i, (j, apart) in enumerate(forth)
        if back[j][0] == i and apart <= NEAR_MM
    ]
    if not mutual:
        return 0.0, 0.0, 0.0
    steps = np.stack([after[j] - before[i] for i, j in mutual])
    x, y, z = (float(v) for v in np.median(steps, axis=0))
    return x, y, z


def _nearest(
    points: Float[np.ndarray, "n 3"], others: Float[np.ndarray, "m 3"]
) -> list[tuple[int, float]]:
    apart, which = (np.asarray(found) for found in KDTree(others).query(points))
    return list(zip(which.tolist(), apart.tolist(), strict=True))


def _score(
    moved: Float[np.ndarray, "n 3"],
    after: Float[np.ndarray, "m 3"],
    shift: Float[np.ndarray, " 3"],
) -> tuple[int, float]:
    near = sum(apart <= NEAR_MM for _, apart in _nearest(moved, after))
    near += sum(apart <= NEAR_MM for _, apart in _nearest(after, moved))
    return near, -float(np.linalg.norm(shift))
