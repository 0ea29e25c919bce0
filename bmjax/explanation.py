"""The door explain: why a network predicted one lesion of one exam, as NIfTI maps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.data.geometry import Geometry, to_grid, uncrop
from bmjax.data.preprocess import Prepared, preprocess
from bmjax.ensemble import read_ensemble
from bmjax.inference import explain as methods
from bmjax.inference import sliding_logits
from bmjax.metrics.lesions import components, measure
from bmjax.models.probing import deepest_encoder_stage
from bmjax.planning import Plan
from bmjax.prediction import first_fold, network, widest_region
from bmjax.runs import write_whole

Method = Literal["gradients", "gradcam", "occlusion"]
METHODS: tuple[Method, ...] = ("gradients", "gradcam", "occlusion")


@dataclass(frozen=True, kw_only=True)
class _Lesion:
    """A predicted lesion on the network's grid.

    Attributes:
      mask: its voxels.
      centre_mm: x y z in RAS+ [mm].
      volume_mm3: size [mm3].
      distance_mm: from the place that was asked for; 0 if none was [mm].
    """

    mask: Bool[np.ndarray, "z y x"]
    centre_mm: tuple[float, float, float]
    volume_mm3: float
    distance_mm: float


def explain(
    model: str | Path,
    *,
    case: Case,
    out: str | Path,
    region: str | None = None,
    at_mm: tuple[float, float, float] | None = None,
    method: Sequence[Method] = METHODS,
    layer: str | None = None,
    num_steps: int = 32,
    fold: int | None = None,
    checkpoint: str = "best",
    allow: tuple[str, ...] = (),
) -> Path:
    """Write maps of what speaks for a predicted lesion, and their sums.

    Args:
      model: run folder, folder of `fold_N` runs, or bundle.
      case: the exam.
      out: folder for `CASE_REGION_METHOD[_CHANNEL].nii.gz`, in the input's geometry,
        and `CASE_REGION_explain.json`.
      region: which one; None: the one of the most labels.
      at_mm: place whose nearest predicted lesion is explained, x y z in RAS+ [mm];
        None: the largest lesion.
      method: integrated gradients, Grad-CAM, occlusion of one modality after another.
      layer: of Grad-CAM; None: the deepest stage of the encoder.
      num_steps: of integrated gradients.
      fold: which network; None: the first one.
      checkpoint: `best` or `last`.
      allow: packages outside bmjax that a network of your own comes from.

    Returns:
      The JSON file.

    Raises:
      ValueError: there is no such region or layer, or no such lesion is predicted.
    """
    out = Path(out)
    folds = None if fold is None else [fold]
    found = read_ensemble(Path(model), folds=folds, checkpoint=checkpoint, allow=allow)
    plan, region = found.plan, region or widest_region(found.plan)
    names = [name for name, _ in plan.regions]
    if region not in names:
        raise ValueError(f"no region {region!r}; the network has {', '.join(names)}")
    absent = [channel for channel in plan.channels if channel not in case.images]
    if absent:
        raise ValueError(
            f"{case.id}: {', '.join(absent)} missing; the network needs "
            f"{', '.join(plan.channels)}"
        )
    first = dict([next(iter(found.folds.items()))])
    forward, _ = network(replace(found, folds=first))
    prepared = preprocess(case, plan)
    lesion = _lesion(forward, prepared, plan, names.index(region), at_mm, case.id)
    box, padding = methods.window_around(lesion.mask, plan.patch_size)
    image = np.pad(prepared.image[box], [*padding, (0, 0)])
    mask = np.pad(lesion.mask[box], padding)
    flat = plan.patch_size
    image, mask = image.reshape(*flat, image.shape[-1]), mask.reshape(flat)
    layer = layer or deepest_encoder_stage(
        found.experiment.model, first_fold(found), image[None]
    )
    facts: dict[str, Any] = {
        "case": case.id,
        "region": region,
        "fold": next(iter(first)),
        "centre_mm": [round(x, 2) for x in lesion.centre_mm],
        "volume_mm3": round(lesion.volume_mm3, 3),
        "distance_mm": round(lesion.distance_mm, 2),
    }

    def write(name: str, values: Float[np.ndarray, "*s"]) -> None:
        _write_map(
            out / f"{case.id}_{region}_{name}.nii.gz",
            values.reshape(np.add(_size(box), [sum(p) for p in padding])),
            box,
            padding,
            prepared.geometry,
        )

    arguments: dict[str, Any] = {"region": names.index(region)}
    if "gradients" in method:
        shares = methods.integrated_gradients(
            forward, image, mask, num_steps=num_steps, **arguments
        )
        for i, channel in enumerate(plan.channels):
            write(f"gradients_{channel}", shares[..., i])
        facts["gradients"] = _by_channel(plan, shares.sum(tuple(range(len(flat)))))
    if "gradcam" in method:
        cam = methods.grad_cam(
            found.experiment.model,
            first_fold(found),
            image,
            mask,
            layer=layer,
            **arguments,
        )
        write("gradcam", cam)
        facts["gradcam_layer"] = layer
    if "occlusion" in method:
        falls = methods.occlusion(forward, image, **arguments)
        for i, channel in enumerate(plan.channels):
            write(f"occlusion_{channel}", falls[..., i])
        facts["occlusion"] = _by_channel(plan, falls[mask].mean(0))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{case.id}_{region}_explain.json"
    write_whole(path, json.dumps(facts, indent=1))
    return path


def _lesion(
    forward: Partial,
    prepared: Prepared,
    plan: Plan,
    region: int,
    at_mm: tuple[float, float, float] | None,
    case: str,
) -> _Lesion:
    """The largest predicted lesion, or the one nearest to a place."""
    logits = sliding_logits(
        forward,
        prepared.image,
        window=plan.patch_size,
        num_classes=plan.num_classes,
        devices=jax.local_devices(),
    )
    numbered = components(logits[..., region] > 0)
    geometry = prepared.geometry
    found = measure(numbered, spacing_mm=geometry.new_spacing_mm)
    if not found:
        raise ValueError(
            f"{case}: no lesion of {plan.regions[region][0]} is predicted, so there is "
            "none to explain; choose another region or exam"
        )
    distance_mm = {lesion.index: 0.0 for lesion in found}
    if at_mm is None:
        chosen = max(found, key=lambda lesion: lesion.volume_mm3)
    else:
        places = np.argwhere(numbered)
        apart_mm = np.linalg.norm(_places_mm(places, geometry) - at_mm, axis=1)
        nearest = places[apart_mm.argmin()]
        index = int(numbered[tuple(nearest)])
        chosen = next(lesion for lesion in found if lesion.index == index)
        distance_mm[index] = float(apart_mm.min())
    x, y, z = _places_mm(np.array([chosen.centre_vox]), geometry)[0]
    return _Lesion(
        mask=numbered == chosen.index,
        centre_mm=(float(x), float(y), float(z)),
        volume_mm3=chosen.volume_mm3,
        distance_mm=distance_mm[chosen.index],
    )


def _places_mm(places: np.ndarray, geometry: Geometry) -> Float[np.ndarray, "n 3"]:
    """Voxels of the network's grid as x y z in RAS+ millimetres."""
    ratio = np.divide(geometry.size_after_crop, geometry.size_after_resampling)
    native = (places + 0.5) * ratio - 0.5  # cells cover the same space
    back = np.argsort(geometry.transpose_forward)
    native = native[:, back] + np.array(geometry.crop_start)
    affine = np.array(geometry.affine)
    return native[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]


def _write_map(
    path: Path,
    values: np.ndarray,
    box: tuple[slice, ...],
    padding: tuple[tuple[int, int], ...],
    geometry: Geometry,
) -> None:
    """A map of the window on the whole grid of the source, 0 around it."""
    size = _size(box)
    inside = tuple(
        slice(low, low + n) for (low, _), n in zip(padding, size, strict=True)
    )
    volume = np.zeros((*geometry.size_after_resampling, 1), np.float32)
    volume[(*box, 0)] = values[inside]
    native = uncrop(np.ascontiguousarray(to_grid(volume, geometry)[..., 0]), geometry)
    nifti.write_like(
        path, native, source=Path(geometry.source), orientation=geometry.orientation
    )


def _size(box: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in box)


def _by_channel(plan: Plan, values: Float[np.ndarray, " c"]) -> dict[str, float]:
    return {
        channel: round(float(value), 5)
        for channel, value in zip(plan.channels, values, strict=True)
    }
