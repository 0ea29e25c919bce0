"""Distances between two surfaces in mm, each published definition under its own name.

Two kinds of surface: `surfels` (marching-cubes elements at voxel corners, weighted by
their area, as in DeepMind's surface-distance) and `voxels` (the voxels of a mask that
have a face neighbour outside it, all of one weight, as in MONAI and panoptica). What
lies beyond the volume is outside. Distances are exact.

An empty mask has no surface. Where exactly one is empty, distances are infinite and the
surface Dice is 0; where both are, everything is NaN.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from bmjax.metrics.surfels import places, surfels


@dataclass(frozen=True, kw_only=True)
class Distances:
    """From every element of each surface to the nearest one of the other.

    Attributes:
      to_reference: from the predicted surface [mm].
      to_prediction: from the reference surface [mm].
      predicted_areas: weight of each element of the predicted surface.
      reference_areas: weight of each element of the reference surface.
    """

    to_reference: Float[np.ndarray, " p"]
    to_prediction: Float[np.ndarray, " r"]
    predicted_areas: Float[np.ndarray, " p"]
    reference_areas: Float[np.ndarray, " r"]

    @property
    def undefined(self) -> float | None:
        """What a distance is where a surface is missing; None where both are there."""
        num_missing = (not self.to_reference.size) + (not self.to_prediction.size)
        return (None, math.inf, math.nan)[num_missing]


def surfel_distances(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> Distances:
    """Distances between surface elements at voxel corners, weighted by area.

    Args:
      prediction: predicted mask.
      reference: reference mask on the same grid.
      spacing_mm: voxel size, z y x [mm].
    """
    predicted, predicted_areas = surfels(prediction, spacing_mm=spacing_mm)
    real, reference_areas = surfels(reference, spacing_mm=spacing_mm)
    return _distances(
        predicted, real, predicted_areas, reference_areas, spacing_mm=spacing_mm
    )


def voxel_distances(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> Distances:
    """Distances between border voxels (6-connected), each of weight one.

    Args:
      prediction: predicted mask.
      reference: reference mask on the same grid.
      spacing_mm: voxel size, z y x [mm].
    """
    predicted, real = places(border(prediction)), places(border(reference))
    weights = np.ones(len(predicted)), np.ones(len(real))
    return _distances(predicted, real, *weights, spacing_mm=spacing_mm)


def border(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Voxels of a mask that have a face neighbour outside of it."""
    inner = np.pad(mask, 1)
    core = inner[1:-1, 1:-1, 1:-1].copy()
    for axis in range(3):
        middle = [slice(1, -1)] * 3
        for shift in (slice(None, -2), slice(2, None)):
            middle[axis] = shift
            core &= inner[tuple(middle)]
    return mask & ~core


def hausdorff(distances: Distances) -> float:
    """The largest distance of either direction [mm]."""
    if distances.undefined is not None:
        return distances.undefined
    return float(max(distances.to_reference.max(), distances.to_prediction.max()))


def weighted_hausdorff(distances: Distances, *, percent: float = 95.0) -> float:
    """The larger of the two distances within which `percent` of each area lies [mm].

    DeepMind's robust Hausdorff distance: the first distance, in ascending order, at
    which the accumulated area reaches the share.
    """
    if distances.undefined is not None:
        return distances.undefined
    return max(
        _reached(distances.to_reference, distances.predicted_areas, percent),
        _reached(distances.to_prediction, distances.reference_areas, percent),
    )


def larger_percentile(distances: Distances, *, percent: float = 95.0) -> float:
    """The larger of the interpolated percentiles of the two directions [mm]: MONAI."""
    if distances.undefined is not None:
        return distances.undefined
    both = (distances.to_reference, distances.to_prediction)
    return max(float(np.percentile(one, percent)) for one in both)


def pooled_percentile(distances: Distances, *, percent: float = 95.0) -> float:
    """The interpolated percentile of both directions together [mm]: panoptica."""
    if distances.undefined is not None:
        return distances.undefined
    both = np.concatenate([distances.to_reference, distances.to_prediction])
    return float(np.percentile(both, percent))


def pooled_mean(distances: Distances) -> float:
    """Mean distance over both surfaces together, by weight [mm]; MONAI's for voxels."""
    if distances.undefined is not None:
        return distances.undefined
    forth = (distances.to_reference * distances.predicted_areas).sum()
    back = (distances.to_prediction * distances.reference_areas).sum()
    areas = distances.predicted_areas.sum() + distances.reference_areas.sum()
    return float((forth + back) / areas)


def mean_of_means(distances: Distances) -> float:
    """Mean of the mean distances of the two directions, by weight [mm].

    panoptica's for voxels; for surfels, the mean of what DeepMind's library returns.
    """
    if distances.undefined is not None:
        return distances.undefined
    forth = np.average(distances.to_reference, weights=distances.predicted_areas)
    back = np.average(distances.to_prediction, weights=distances.reference_areas)
    return float((forth + back) / 2)


def surface_dice(distances: Distances, *, tolerance_mm: float) -> float:
    """Share of both surfaces together that lies within a tolerance of the other.

    The normalised surface distance (NSD) of Nikolov et al. (2018) for surfels, MONAI's
    for voxels.
    """
    if distances.undefined is not None:
        return 0.0 if math.isinf(distances.undefined) else math.nan
    forth = distances.predicted_areas[distances.to_reference <= tolerance_mm].sum()
    back = distances.reference_areas[distances.to_prediction <= tolerance_mm].sum()
    areas = distances.predicted_areas.sum() + distances.reference_areas.sum()
    return float((forth + back) / areas)


def mean_surface_share(distances: Distances, *, tolerance_mm: float) -> float:
    """Mean of the shares of each surface within a tolerance: panoptica's NSD."""
    if distances.undefined is not None:
        return 0.0 if math.isinf(distances.undefined) else math.nan
    forth = (distances.to_reference <= tolerance_mm).mean()
    back = (distances.to_prediction <= tolerance_mm).mean()
    return float((forth + back) / 2)


def hd95_to_mask(
    prediction: Bool[np.ndarray, "z y x"],
    reference: Bool[np.ndarray, "z y x"],
    *,
    spacing_mm: tuple[float, float, float],
) -> float:
    """HD95 of BrainMetaSeg's later script: to the other body, not to its surface [mm].

    Border voxels are those with any of 26 neighbours outside; those that lie inside the
    other mask have distance 0, so this is the smallest of the variants. The larger of
    the interpolated percentiles. 0 where both are empty, NaN where one is.
    """
    if not prediction.any() and not reference.any():
        return 0.0
    if not prediction.any() or not reference.any():
        return math.nan
    percentiles = []
    for one, other in ((prediction, reference), (reference, prediction)):
        shell = one & ~_eroded_26(one)
        far = places(shell & ~other)  # the others are inside: distance 0
        distances = np.zeros(np.count_nonzero(shell))
        nearest = places(border(other))
        distances[: len(far)] = _nearest_mm(far, nearest, spacing_mm)
        percentiles.append(float(np.percentile(distances, 95)))
    return max(percentiles)


def _distances(
    predicted: Int[np.ndarray, "p 3"],
    real: Int[np.ndarray, "r 3"],
    predicted_areas: Float[np.ndarray, " p"],
    reference_areas: Float[np.ndarray, " r"],
    *,
    spacing_mm: tuple[float, float, float],
) -> Distances:
    return Distances(
        to_reference=_nearest_mm(predicted, real, spacing_mm),
        to_prediction=_nearest_mm(real, predicted, spacing_mm),
        predicted_areas=predicted_areas,
        reference_areas=reference_areas,
    )


def _nearest_mm(
    points: Int[np.ndarray, "p 3"],
    others: Int[np.ndarray, "r 3"],
    spacing_mm: tuple[float, float, float],
) -> Float[np.ndarray, " p"]:
    """Distance of each grid point to the nearest of the others, infinite if none."""
    if not len(points) or not len(others):
        return np.full(len(points), math.inf)
    spacing = np.asarray(spacing_mm)
    # a balanced tree is slow to build on a grid, where many coordinates are equal
    tree = KDTree(others * spacing, leafsize=32, balanced_tree=False)
    nearest = tree.query(points * spacing)[1]
    # from whole numbers, so that equal distances are equal to the last bit
    apart = ((points - others[nearest]) * spacing).T
    return np.sqrt((apart**2).sum(axis=0))


def _reached(
    distances: Float[np.ndarray, " p"], areas: Float[np.ndarray, " p"], percent: float
) -> float:
    order = np.lexsort((areas, distances))
    share = np.cumsum(areas[order]) / np.sum(areas)
    at = int(np.searchsorted(share, percent / 100.0))
    return float(distances[order][min(at, len(order) - 1)])


def _eroded_26(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Voxels of a mask whose 26 neighbours are inside it."""
    core = np.pad(mask, 1)
    core = core[:-2] & core[1:-1] & core[2:]
    core = core[:, :-2] & core[:, 1:-1] & core[:, 2:]
    return core[:, :, :-2] & core[:, :, 1:-1] & core[:, :, 2:]
