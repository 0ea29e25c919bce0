"""Lists where in a label map a patch may be centred: by region and by lesion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cc3d
import numpy as np
from jaxtyping import Int32, Integer

MAX_LOCATIONS = 10_000
MIN_FRACTION = 0.01
SEED = 1234


@dataclass(frozen=True)
class Lesions:
    """The 26-connected components of all labels together.

    Attributes:
      facts: of each lesion, values that JSON can hold: `id` from 1, `num_voxels`,
        `volume_mm3`, `centre` (its voxel closest to the centre of mass), `box` (first
        voxel, and the one after the last), `labels` (voxels by label value), and its
        rows `start` to `stop` in `voxels`.
      voxels: index z, y, x of every lesion voxel, lesion after lesion.
    """

    facts: list[dict[str, Any]]
    voxels: Int32[np.ndarray, "n 3"]


def region_locations(
    labels: Integer[np.ndarray, "z y x"],
    regions: Mapping[str, Sequence[int]],
) -> dict[str, Int32[np.ndarray, "_ 3"]]:
    """Voxels drawn from each region: 10,000, or 1 % of it if that is more (nnU-Net)."""
    rng = np.random.RandomState(SEED)
    voxels = np.argwhere(labels).astype(np.int32)
    values = labels[tuple(voxels.T)]
    locations = {}
    for name, members in regions.items():
        own = voxels[np.isin(values, members)]
        count = max(min(MAX_LOCATIONS, len(own)), int(np.ceil(len(own) * MIN_FRACTION)))
        locations[name] = (
            own[rng.choice(len(own), count, replace=False)] if count else own
        )
    return locations


def index_lesions(
    labels: Integer[np.ndarray, "z y x"], *, spacing_mm: Sequence[float]
) -> Lesions:
    """Every lesion of a label map and its voxels."""
    components = cc3d.connected_components(labels > 0, connectivity=26)
    voxels = np.argwhere(components).astype(np.int32)
    owner = components[tuple(voxels.T)]
    order = np.argsort(owner, kind="stable")
    voxels, owner = voxels[order], owner[order]
    edges = [*np.unique(owner, return_index=True)[1], len(owner)]
    voxel_mm3 = float(np.prod(spacing_mm))
    facts = []
    for number, (start, stop) in enumerate(pairwise(edges), start=1):
        own = voxels[start:stop]
        values, counts = np.unique(labels[tuple(own.T)], return_counts=True)
        centre = own[np.square(own - own.mean(0)).sum(1).argmin()]
        facts.append(
            {
                "id": number,
                "num_voxels": len(own),
                "volume_mm3": len(own) * voxel_mm3,
                "centre": centre.tolist(),
                "box": [own.min(0).tolist(), (own.max(0) + 1).tolist()],
                "labels": {
                    str(int(k)): int(n) for k, n in zip(values, counts, strict=True)
                },
                "start": int(start),
                "stop": int(stop),
            }
        )
    return Lesions(facts, voxels)
