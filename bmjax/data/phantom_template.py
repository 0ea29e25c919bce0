"""Holds the averaged brain that phantoms are warped from, and random smooth fields."""

from dataclasses import dataclass

import cc3d
import edt
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage as ndi

Grid = Float32[np.ndarray, "z y x"]
Atlas = Float32[np.ndarray, "depth height width"]
Axes = tuple[Float[np.ndarray, " z"], Float[np.ndarray, " y"], Float[np.ndarray, " x"]]

# Random fields live on this box [mm]; it holds any warped brain.
_BOX_MM = ((-140.0, 150.0), (-170.0, 150.0), (-130.0, 130.0))
# Standard deviation of a random cubic spline with unit coefficients.
_SPLINE_STD = 0.4793650793650794**1.5


@dataclass(frozen=True)
class Template:
    """The averaged brain at 1 mm, cropped to what is not zero.

    Attributes:
      t1: T1 signal, 0 to 1.
      grey: share of grey matter.
      white: share of white matter.
      brain: 1 inside the brain, else 0.
      depth_mm: distance from the brain's surface, blurred by 1.5 mm.
      caps: where ageing white matter brightens around the ventricles.
      origin_mm: z, y, x of the first voxel.
    """

    t1: Atlas
    grey: Atlas
    white: Atlas
    brain: Atlas
    depth_mm: Atlas
    caps: Atlas
    origin_mm: tuple[float, float, float]

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels, that is millimetres, along z, y, x."""
        z, y, x = self.t1.shape
        return z, y, x

    def blurred(self, spacing_mm: tuple[float, float, float]) -> "Template":
        """What a voxel of that size averages."""
        sigma_vox = [0.4 * max(spacing - 1.0, 0.0) ** 0.8 for spacing in spacing_mm]

        def blur(values: Atlas) -> Atlas:
            return ndi.gaussian_filter(values, sigma_vox, truncate=3.0)

        return Template(
            blur(self.t1),
            blur(self.grey),
            blur(self.white),
            blur(self.brain),
            self.depth_mm,
            blur(self.caps),
            self.origin_mm,
        )


def make_template(
    t1: Atlas, grey: Atlas, white: Atlas, *, origin_mm: tuple[float, float, float]
) -> Template:
    """Crop the maps and derive depth and periventricular white matter."""
    inside = np.asarray(ndi.binary_fill_holes(t1 > 0))
    box = bounding_box(inside)
    origin = tuple(float(o + b.start) for o, b in zip(origin_mm, box, strict=True))
    t1, grey, white, inside = t1[box], grey[box], white[box], inside[box]
    depth_mm = edt.edt(inside, black_border=True)
    fluid = np.clip(inside - grey - white, 0, 1)
    z, y, x = (o + np.arange(n) for o, n in zip(origin, t1.shape, strict=True))
    is_near = (abs(x) < 44)[None, None] & (abs(y + 10) < 55)[None, :, None]
    is_near = is_near & (abs(z - 14) < 26)[:, None, None]
    parts = cc3d.connected_components(
        (fluid > 0.5) & (depth_mm > 15) & is_near, connectivity=6
    )
    sizes = np.bincount(parts.ravel())[1:]
    ventricles = np.isin(parts, 1 + np.flatnonzero(sizes > 800))
    reach_mm = edt.edt(~ventricles)
    ends = 0.25 + np.clip((abs(y + 6) - 14) / 22, 0, 1)[None, :, None]
    caps = np.exp(-np.square(reach_mm / 4.0)) * white * np.minimum(ends, 1)
    return Template(
        t1=np.ascontiguousarray(t1, np.float32),
        grey=np.ascontiguousarray(grey, np.float32),
        white=np.ascontiguousarray(white, np.float32),
        brain=inside.astype(np.float32),
        depth_mm=ndi.gaussian_filter(depth_mm.astype(np.float32), 1.5),
        caps=caps.astype(np.float32),
        origin_mm=(origin[0], origin[1], origin[2]),
    )


class Reader:
    """Reads maps at many points by linear interpolation, weights computed once."""

    def __init__(
        self, points: Float32[np.ndarray, "3 n"], size: tuple[int, int, int]
    ) -> None:
        last = np.array(size)[:, None] - 1
        low = np.clip(np.floor(points).astype(np.intp), 0, last - 1)
        high_share = np.clip(points - low, 0, 1).astype(np.float32)
        shares = (1 - high_share, high_share)
        self._corners = [
            (
                ((low[0] + a) * size[1] + low[1] + b) * size[2] + low[2] + c,
                shares[a][0] * shares[b][1] * shares[c][2],
            )
            for a, b, c in np.ndindex(2, 2, 2)
        ]

    def __call__(self, values: Atlas) -> Float32[np.ndarray, " n"]:
        """The values of a map at the points."""
        flat = values.reshape(-1)
        total = np.zeros(len(self._corners[0][0]), np.float32)
        for place, share in self._corners:
            total += share * flat[place]
        return total


def smooth_field(
    rng: np.random.Generator, axes: Axes, *, scale_mm: float, box_mm=_BOX_MM
) -> Grid:
    """A random cubic spline of unit variance, at the points of a grid.

    Args:
      rng: how much is drawn depends on `scale_mm` and `box_mm`, not on the grid.
      axes: coordinates of the grid along z, y, x [mm].
      scale_mm: distance of the spline's control points [mm].
      box_mm: where the spline is defined; coordinates beyond are clamped.
    """
    counts = [int(np.ceil((high - low) / scale_mm)) + 4 for low, high in box_mm]
    values = rng.standard_normal(counts, dtype=np.float32) / np.float32(_SPLINE_STD)
    for axis, (points, (low, high)) in enumerate(zip(axes, box_mm, strict=True)):
        basis = _cubic_basis((np.clip(points, low, high) - low) / scale_mm)
        full = np.zeros((len(points), counts[axis]), np.float32)
        start = np.floor((np.clip(points, low, high) - low) / scale_mm).astype(int)
        for tap in range(4):
            full[np.arange(len(points)), start + tap] = basis[tap]
        values = np.moveaxis(np.tensordot(full, values, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(values, np.float32)


def bounding_box(mask: Bool[np.ndarray, "z y x"]) -> tuple[slice, slice, slice]:
    """The smallest box that holds everything."""
    places = [
        np.flatnonzero(mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))
    ]
    z, y, x = (slice(int(place[0]), int(place[-1]) + 1) for place in places)
    return z, y, x


def largest_piece(mask: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """The largest of the pieces that touch at faces, edges or corners."""
    parts = np.asarray(cc3d.connected_components(mask, connectivity=26))
    sizes = np.bincount(parts.ravel())
    if len(sizes) < 3:
        return mask
    sizes[0] = 0
    return parts == sizes.argmax()


def _cubic_basis(position: Float[np.ndarray, " n"]) -> list[Float[np.ndarray, " n"]]:
    t = position - np.floor(position)
    return [
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    ]
