"""One row for each predicted lesion: where it is, how large, how sure."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from bmjax.data import streams
from bmjax.data.geometry import Geometry
from bmjax.metrics.lesions import Lesion, components, measure
from bmjax.planning.plan import Plan

COLUMNS = (
    *("region", "lesion", "x_mm", "y_mm", "z_mm", "volume_mm3", "diameter_mm"),
    *("confidence", "confidence_max"),
)
Planes = Iterable[Float[np.ndarray, "v w"]]


def lesion_rows(
    labels: UInt8[np.ndarray, "z y x"],
    geometry: Geometry,
    plan: Plan,
    *,
    probability: Callable[[int], Planes],
) -> list[dict[str, Any]]:
    """The 26-connected components of each region, the largest first.

    Args:
      labels: cropped label map, in the plan's axes.
      geometry: of the case.
      plan: the regions.
      probability: slices of a region's probability, by its number.

    Returns:
      Rows of `COLUMNS`: the centroid in RAS+ millimetres, volume [mm3], diameter of the
      sphere of that volume [mm], and the mean and the largest probability inside.
    """
    rows = []
    for channel, (region, members) in enumerate(plan.regions):
        numbered = components(np.isin(labels, members))
        found = measure(numbered, spacing_mm=geometry.spacing_mm)
        total, most = np.zeros(len(found) + 1), np.zeros(len(found) + 1)
        planes = probability(channel) if found else ()
        for numbers, probs in zip(numbered, planes, strict=bool(found)):
            is_lesion = numbers > 0
            own, values = numbers[is_lesion], probs[is_lesion]
            total += np.bincount(own, weights=values, minlength=len(total))
            np.maximum.at(most, own, values)
        found = sorted(found, key=lambda lesion: -lesion.volume_mm3)
        for number, lesion in enumerate(found, start=1):
            x_mm, y_mm, z_mm = centre_mm(lesion, geometry)
            row = (
                *(region, number, round(x_mm, 2), round(y_mm, 2), round(z_mm, 2)),
                *(round(lesion.volume_mm3, 3), round(lesion.diameter_mm, 3)),
                round(total[lesion.index] / lesion.num_voxels, 4),
                round(most[lesion.index], 4),
            )
            rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def write_lesions(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; without lesions the header alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    streams.write_pieces(path, [text.getvalue().encode()])


def centre_mm(lesion: Lesion, geometry: Geometry) -> tuple[float, float, float]:
    """Centre of mass of a lesion of the cropped native grid, x y z in RAS+ [mm]."""
    back = np.argsort(geometry.transpose_forward)
    index = np.array(lesion.centre_vox)[back] + geometry.crop_start  # z y x as read
    x, y, z = (np.array(geometry.affine) @ [*index[::-1], 1])[:3]
    return float(x), float(y), float(z)
