"""The way of a case from its file to the network, and predictions back on that way."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from bmjax.data import nifti
from bmjax.data.resample import linear_slices, resample_labels, thick_axis
from bmjax.data.small_lesions import keep_lesions

Triple = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The way of a case from its file to the network, so that it can be gone back.

    Attributes:
      source: file of the first channel.
      orientation: how it was turned on reading.
      size: of the turned volume, z y x [vox].
      affine: of the turned volume, from (x, y, z) index to RAS+ millimetres.
      crop_start: first voxel kept, z y x.
      crop_stop: voxel after the last one kept.
      transpose_forward: order of the axes after cropping.
      size_after_crop: in the plan's axes [vox].
      size_after_resampling: in the plan's axes [vox].
      spacing_mm: in the plan's axes, before resampling.
      new_spacing_mm: in the plan's axes, after resampling.
    """

    source: str
    orientation: nifti.Orientation
    size: Triple
    affine: tuple[tuple[float, ...], ...]
    crop_start: Triple
    crop_stop: Triple
    transpose_forward: Triple
    size_after_crop: Triple
    size_after_resampling: Triple
    spacing_mm: tuple[float, float, float]
    new_spacing_mm: tuple[float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Geometry":
        """The geometry that `to_dict` wrote, also after a way through JSON."""
        exact = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**{**exact, "affine": tuple(tuple(row) for row in values["affine"])})


def to_grid(
    probs: Float[np.ndarray, "z y x k"], geometry: Geometry
) -> Float[np.ndarray, "u v w k"]:
    """Class maps from the plan's grid to the cropped native grid, linearly.

    Args:
      probs: probabilities or logits of each class.
      geometry: of the case, from `preprocess`.
    """
    planes = slices_on_grid(probs, geometry)
    return restore_axes(np.stack(list(planes)), geometry)


def slices_on_grid(
    probs: Float[np.ndarray, "z y x k"], geometry: Geometry
) -> Iterator[Float[np.ndarray, "v w k"]]:
    """As `to_grid`, but slice by slice, in the plan's axes: it needs little memory."""
    _require_size(probs.shape[:3], geometry)
    apart = thick_axis(geometry.new_spacing_mm, geometry.spacing_mm)
    return linear_slices(probs, geometry.size_after_crop, apart=apart)


def restore_axes(
    volume: Shaped[np.ndarray, "z y x *k"], geometry: Geometry
) -> Shaped[np.ndarray, "u v w *k"]:
    """A cropped volume from the plan's axes to those it was read in."""
    back = np.argsort(geometry.transpose_forward).tolist()
    return volume.transpose(*back, *range(3, volume.ndim))


def labels_to_grid(
    labels: Integer[np.ndarray, "z y x"], geometry: Geometry
) -> Integer[np.ndarray, "u v w"]:
    """Labels from the plan's grid to the cropped native grid; no lesion is lost."""
    _require_size(labels.shape, geometry)
    apart = thick_axis(geometry.new_spacing_mm, geometry.spacing_mm)
    native = resample_labels(labels, geometry.size_after_crop, apart=apart)
    if native is not labels:
        keep_lesions(labels, native)
    return restore_axes(native, geometry)


def uncrop(
    volume: Shaped[np.ndarray, "z y x"], geometry: Geometry
) -> Shaped[np.ndarray, "u v w"]:
    """The cropped native grid in the whole turned volume, 0 around it."""
    whole = np.zeros(geometry.size, volume.dtype)
    box = zip(geometry.crop_start, geometry.crop_stop, strict=True)
    whole[tuple(slice(*edge) for edge in box)] = volume
    return whole


def triple(values: Iterable[Any]) -> tuple[Any, Any, Any]:
    """Exactly three values, for a type checker."""
    first, second, third = values
    return first, second, third


def permute(values: Sequence[Any], order: Iterable[int]) -> tuple[Any, Any, Any]:
    """Three values in another order."""
    return triple(values[i] for i in order)


def _require_size(size: tuple[int, ...], geometry: Geometry) -> None:
    if tuple(size) != geometry.size_after_resampling:
        raise ValueError(
            f"{geometry.source}: a prediction of {tuple(size)} voxels does not fit its "
            f"prepared size {geometry.size_after_resampling}; predict this case again"
        )
