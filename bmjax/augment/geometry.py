"""Draws where the voxels of a patch come from: rotation, scale and elastic offsets.

Ranges, probabilities and the order of the factors are those of nnU-Net's default
trainer with batchgeneratorsv2. Drawn on the host, which must know how much to cut, so
this file needs numpy alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Shaped

Size = tuple[int, ...]
ANISOTROPY = 3.0  # nnU-Net's threshold for rotating within slices only
_CUT_SCALE = 0.85  # nnU-Net sizes its box by this, not by the scales that it draws


@dataclass(frozen=True)
class Placement:
    """Where one patch comes from.

    Attributes:
      matrix: from offsets about the patch's centre to offsets in the volume [vox].
      elastic: displacement at control points, before the matrix [vox]; None without.
      is_moved: false where the patch can be cut as it is.
    """

    matrix: Float32[np.ndarray, "d d"]
    elastic: Float32[np.ndarray, "*g d"] | None
    is_moved: bool


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """How often and how far patches are turned, scaled and bent.

    Attributes:
      p_rotation: probability of a rotation.
      rotation_deg: largest angle about each axis [degrees]; None is nnU-Net's rule: 30,
        within slices 180, and 15 for 2-D patches longer than 1.5 times their width.
      p_scaling: probability of another scale, the same along all axes.
      scaling: smallest and largest; above 1 makes objects smaller.
      p_elastic: probability of an elastic deformation (nnU-Net: 0).
      elastic_vox: standard deviation of the control points' displacement, drawn up to
        this [vox].
      elastic_points: control points along each axis.
      slices_only: turn and scale within slices only (nnU-Net's dummy 2-D); None decides
        by the patch: its longest axis is more than three times its first.
    """

    p_rotation: float = 0.2
    rotation_deg: float | None = None
    p_scaling: float = 0.2
    scaling: tuple[float, float] = (0.7, 1.4)
    p_elastic: float = 0.0
    elastic_vox: float = 6.0
    elastic_points: int = 6
    slices_only: bool | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scaling[0] <= self.scaling[1]:
            raise ValueError(
                f"scaling is {self.scaling}; expected two positive numbers, the "
                "smaller first, such as (0.7, 1.4)"
            )
        if self.elastic_points < 4:
            raise ValueError(
                f"elastic_points is {self.elastic_points}; a cubic spline needs 4"
            )

    def is_flat(self, patch_size: Size) -> bool:
        """Whether a 3-D patch is moved within its slices only."""
        if len(patch_size) == 2:
            return False
        if self.slices_only is not None:
            return self.slices_only
        return max(patch_size) / patch_size[0] > ANISOTROPY

    def limit_deg(self, patch_size: Size) -> float:
        """Largest angle for a patch of this size."""
        if self.rotation_deg is not None:
            return self.rotation_deg
        if len(patch_size) == 2:
            return 15.0 if max(patch_size) / min(patch_size) > 1.5 else 180.0
        return 180.0 if self.is_flat(patch_size) else 30.0

    def box_size(self, patch_size: Size) -> Size:
        """What is cut for a patch that is moved (nnU-Net's `get_patch_size`) [vox].

        The corner of the patch is turned about one axis at a time. What a rotation
        about several axes, or a scale beyond 1 / 0.85, asks for outside counts as zero.
        """
        if self.p_rotation == self.p_scaling == self.p_elastic == 0:
            return patch_size
        angle = math.radians(min(self.limit_deg(patch_size), 90.0))
        if self.is_flat(patch_size):
            # nnU-Net computes it for the whole patch, then resets the first axis
            inner = _box(np.asarray(patch_size, float), angle)
            return (patch_size[0], *inner[1:])
        return _box(np.asarray(patch_size, float), angle)

    def draw(self, rng: np.random.Generator, patch_size: Size) -> Placement:
        """The placement of one sample.

        Args:
          rng: the generator of this sample; always gives as many numbers.
          patch_size: two or three axes [vox].
        """
        num_axes = len(patch_size)
        turns, scales, bends = rng.random(3) < (
            self.p_rotation,
            self.p_scaling,
            self.p_elastic,
        )
        limit = math.radians(self.limit_deg(patch_size))
        angles = rng.uniform(-limit, limit, 3) * turns
        scale = rng.uniform(*self.scaling) if scales else 1.0
        matrix = identity = np.eye(num_axes)
        if num_axes == 2 or self.is_flat(patch_size):
            matrix = identity.copy()
            matrix[-2:, -2:] = rotation(angles[-1:]) * scale
        else:
            matrix = rotation(angles) * scale
        elastic = None
        if self.p_elastic > 0:
            shape = (*(self.elastic_points,) * num_axes, num_axes)
            spread = rng.uniform(0, self.elastic_vox) * bends
            elastic = (spread * rng.standard_normal(shape)).astype(np.float32)
            if self.is_flat(patch_size):
                elastic[..., 0] = 0
        matrix = matrix.astype(np.float32)
        is_bent = elastic is not None and bool(elastic.any())
        return Placement(matrix, elastic, is_bent or bool((matrix != identity).any()))


def affine(
    matrix: Float[np.ndarray, "d d"],
    patch_size: Size,
    *,
    offset: Shaped[np.ndarray, " d"],
) -> Float32[np.ndarray, "d e"]:
    """The map from a voxel of the patch to a place in the box that was cut for it.

    Args:
      matrix: of a placement.
      patch_size: [vox].
      offset: first voxel of the patch, were it not moved, in the box [vox].
    """
    middle = (np.asarray(patch_size) - 1) / 2
    shift = middle + np.asarray(offset) - matrix @ middle
    return np.concatenate([matrix, shift[:, None]], 1).astype(np.float32)


def rotation(angles: Float[np.ndarray, " a"]) -> Float[np.ndarray, "d d"]:
    """A turn of the plane by one angle; in space by three, about z, then y, then x."""
    if len(angles) == 1:
        c, s = np.cos(angles[0]), np.sin(angles[0])
        return np.array([[c, -s], [s, c]])
    turns = []
    for angle, sign, (a, b) in zip(
        angles, (1, -1, 1), ((1, 2), (0, 2), (0, 1)), strict=True
    ):
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -sign * np.sin(angle), sign * np.sin(angle)
        turns.append(turn)
    return turns[2] @ turns[1] @ turns[0]


def _box(corner: Float[np.ndarray, " d"], angle: float) -> Size:
    """The largest extent of a corner turned about each axis, over the cut scale."""
    reach = [corner]
    if len(corner) == 2:
        # batchgenerators turns row vectors
        reach.append(np.abs(corner @ rotation(np.array([angle]))))
    else:
        for axis in range(3):
            turn = rotation(np.where(np.arange(3) == axis, angle, 0.0))
            reach.append(np.abs(corner @ turn))
    return tuple(int(n) for n in np.max(reach, 0) / _CUT_SCALE)
