"""The lesions of one scan, where they lie in the world."""

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
from jaxtyping import Bool, Float, Int

from bmjax.metrics.lesions import diameter_mm


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """One connected component of a scan.

    Attributes:
      index: its number in the scan, the largest lesion is 1.
      points_mm: centres of its voxels, x y z in RAS+ world coordinates [mm].
      volume_mm3: its size [mm3].
    """

    index: int
    points_mm: Float[np.ndarray, "n 3"]
    volume_mm3: float

    @property
    def num_voxels(self) -> int:
        """Its size [vox]."""
        return len(self.points_mm)

    @property
    def centre_mm(self) -> Float[np.ndarray, " 3"]:
        """Centre of mass, x y z [mm]."""
        return self.points_mm.mean(axis=0)

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere of the same volume [mm]."""
        return diameter_mm(self.volume_mm3)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All lesions of one scan.

    Attributes:
      numbers: number of the lesion of each voxel, 0 outside and in those left out.
      affine: from the (x, y, z) index to RAS+ millimetres.
      lesions: number 1 first.
      num_small: components left out for their size.
    """

    numbers: Int[np.ndarray, "z y x"]
    affine: Float[np.ndarray, "4 4"]
    lesions: tuple[Lesion, ...]
    num_small: int = 0

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel [mm3]."""
        return voxel_mm3(self.affine)

    def at(self, points_mm: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
        """Number of the lesion at each place of the world; 0 outside of the scan."""
        back = np.linalg.inv(self.affine)
        places = np.rint(points_mm @ back[:3, :3].T + back[:3, 3]).astype(int)  # x y z
        size = np.array(self.numbers.shape[::-1])
        is_inside = ((places >= 0) & (places < size)).all(axis=1)
        found = np.zeros(len(points_mm), np.int32)
        x, y, z = places[is_inside].T
        found[is_inside] = self.numbers[z, y, x]
        return found


def voxel_mm3(affine: Float[np.ndarray, "4 4"]) -> float:
    """Volume of a voxel, exact where the axes are those of the world [mm3]."""
    x, y, z = affine[:3, :3].T
    return float(abs(np.dot(np.cross(x, y), z)))


def observe(
    mask: Bool[np.ndarray, "z y x"],
    affine: Float[np.ndarray, "4 4"],
    *,
    min_volume_mm3: float = 0.0,
    connectivity: Literal[6, 18, 26] = 26,
) -> Observation:
    """Find the lesions of a scan, largest first.

    Args:
      mask: what is lesion.
      affine: from the (x, y, z) index to RAS+ millimetres.
      min_volume_mm3: smaller components are left out [mm3].
      connectivity: neighbours that belong together: 6, 18 or 26.
    """
    numbered = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=connectivity
    ).astype(np.int32)
    each_mm3 = voxel_mm3(affine)
    place = np.flatnonzero(numbered)
    own = numbered.reshape(-1)[place]
    order = np.argsort(own, kind="stable")
    z, y, x = np.unravel_index(place[order], numbered.shape)
    points_mm = np.stack([x, y, z], axis=1) @ affine[:3, :3].T + affine[:3, 3]
    _, starts = np.unique(own[order], return_index=True)
    parts = np.split(points_mm, starts[1:]) if len(starts) else []
    kept = [p for p in parts if len(p) * each_mm3 >= min_volume_mm3]
    # equal volumes by place, so that the order does not depend on the grid's direction
    kept.sort(key=lambda points: (-len(points), *points.mean(axis=0).tolist()))
    lesions = tuple(
        Lesion(index=i, points_mm=points, volume_mm3=len(points) * each_mm3)
        for i, points in enumerate(kept, start=1)
    )
    numbers = np.zeros(mask.shape, np.int32)
    back = np.linalg.inv(affine)
    for lesion in lesions:
        places = np.rint(lesion.points_mm @ back[:3, :3].T + back[:3, 3]).astype(int)
        x, y, z = places.T
        numbers[z, y, x] = lesion.index
    return Observation(
        numbers=numbers,
        affine=affine,
        lesions=lesions,
        num_small=len(parts) - len(kept),
    )
