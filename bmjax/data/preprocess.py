"""Turns a case into what a network sees: nnU-Net's steps in nnU-Net's order.

Read, turn, crop to the non-zero region, normalise, resample.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int8

from bmjax.data.cases import Case
from bmjax.data.cropping import read_cropped
from bmjax.data.geometry import Geometry, permute, triple
from bmjax.data.normalise import normalise
from bmjax.data.plausibility import background_doubts
from bmjax.data.resample import new_size, resample, resample_labels, thick_axis
from bmjax.data.small_lesions import keep_lesions
from bmjax.planning import Plan


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
      image: normalised channels on the plan's grid; in memory channel by channel.
      labels: on the same grid; None for a case without.
      geometry: the way back.
      warnings: what was odd, in words.
    """

    image: Float[np.ndarray, "z y x c"]
    labels: Int8[np.ndarray, "z y x"] | None
    geometry: Geometry
    warnings: tuple[str, ...] = ()


def preprocess(case: Case, plan: Plan) -> Prepared:
    """Read, turn, crop, normalise and resample a case.

    Raises:
      ValueError: a file is damaged, files do not fit each other, or labels are unknown.
    """
    raw = read_cropped(
        case,
        channels=plan.channels,
        orientation=plan.orientation,
        label_values=tuple(value for _, value in plan.labels),
    )
    order = triple(plan.transpose_forward)
    spacing_mm = permute(raw.spacing_mm, order)
    # a 2-D plan leaves the slices as they are
    new_spacing_mm = triple((*spacing_mm[: 3 - len(plan.spacing_mm)], *plan.spacing_mm))
    cropped_size = permute(raw.brain.shape, order)
    size = triple(
        new_size(cropped_size, spacing_mm=spacing_mm, new_spacing_mm=new_spacing_mm)
    )
    apart = thick_axis(spacing_mm, new_spacing_mm)
    # channel by channel, so that each takes the memory of the one read before
    image = np.empty((len(plan.channels), *size), np.float32)
    brain = None
    if plan.use_mask_for_norm:
        brain = raw.brain
        channels = dict(zip(plan.channels, raw.images, strict=True))
        raw.warnings += background_doubts(channels, brain, raw.spacing_mm)
        del channels
    for i, scheme in enumerate(plan.normalization):
        channel = normalise(
            raw.images.pop(0),  # its memory is wanted for the next one
            scheme=scheme,
            brain=brain,
            foreground=plan.foreground[i] if plan.foreground else None,
        )
        channel = np.ascontiguousarray(channel.transpose(order))
        image[i] = resample(channel, size, kind="cubic", apart=apart)
    labels = None
    if raw.labels is not None:
        before = np.ascontiguousarray(raw.labels.transpose(order))
        labels = resample_labels(before, size, apart=apart)
        if labels is not before:
            raw.warnings += keep_lesions(before, labels)
    geometry = Geometry(
        source=str(case.reading.source(case.images, plan.channels[0])),
        orientation=plan.orientation,
        size=raw.size,
        affine=tuple(tuple(float(v) for v in row) for row in raw.affine),
        crop_start=raw.start,
        crop_stop=triple(
            s + n for s, n in zip(raw.start, raw.brain.shape, strict=True)
        ),
        transpose_forward=order,
        size_after_crop=cropped_size,
        size_after_resampling=size,
        spacing_mm=spacing_mm,
        new_spacing_mm=new_spacing_mm,
    )
    image = np.moveaxis(image, 0, -1)
    return Prepared(image, labels, geometry, tuple(raw.warnings))
