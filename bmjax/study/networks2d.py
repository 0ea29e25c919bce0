"""Networks of the 2-D study as run folders, which predict whole volumes.

`bmjax predict` crops an exam to its content and resamples slices to a pixel size, where
the study resizes whole slices to a number of pixels: the same scale for exams of one
size, up to half a pixel over the slice, on a grid that is shifted within a pixel.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax import models
from bmjax.augment import AugmentPolicy, Spatial
from bmjax.data import nifti, streams
from bmjax.data.cases import Case
from bmjax.data.pipeline import Loader
from bmjax.experiment import Experiment
from bmjax.inference import SlidingWindow
from bmjax.losses import BinaryCrossEntropy, CrossEntropy
from bmjax.planning import Plan
from bmjax.planning.labels import BRATS_METS, LESION
from bmjax.runs import Run, write_run
from bmjax.study.fit2d import Schedule
from bmjax.study.holdout import ThreeWay
from bmjax.study.slices2d import CHANNELS, Slicing

_LOGGED = ("loss", "accuracy", "dice", "iou")


def write_network(
    folder: Path,
    *,
    net: Any,
    variables: Mapping[str, Any],
    schedule: Schedule,
    plan: Plan,
    split: ThreeWay,
    epochs: Sequence[Mapping[str, float]],
    steps_per_epoch: int,
    seed: int,
) -> None:
    """Write a run folder, which `bmjax predict`, `bundle` and `report` take.

    Args:
      folder: made whole; one that is there is kept.
      net: the network as it was trained.
      variables: its parameters and statistics.
      schedule: how it was trained.
      plan: from `slice_plan`.
      split: its exams.
      epochs: lines of its log, which become metrics.jsonl.
      steps_per_epoch: updates of an epoch.
      seed: of the training.
    """
    if (folder / "metrics.jsonl").is_file():
        return
    is_softmax = schedule.loss == "categorical"
    experiment = Experiment(
        model=models.RegionsOfClasses(
            net=net,
            regions=tuple(members for _, members in plan.regions),
            probs="softmax" if is_softmax else "sigmoid",
        ),
        loss=CrossEntropy() if is_softmax else BinaryCrossEntropy(),
        data=Loader(patch_size=plan.patch_size, batch_size=plan.batch_size),
        augment=_NO_AUGMENTATION,
        optimizer=schedule.optimizer(),
        inference=SlidingWindow(batch_size=plan.batch_size),
        seed=seed,
    )
    wrapped = {kind: {"net": tree} for kind, tree in variables.items()}
    if not (folder / "experiment.json").is_file():
        write_run(folder, Run(experiment, plan, 0, wrapped))
    parts = {"train": list(split.train), "val": list(split.val)}
    streams.write_pieces(folder / "split.json", [json.dumps(parts, indent=1).encode()])
    records = []
    for line in epochs:
        step = round(line["epoch"]) * steps_per_epoch
        for kind, start in (("train", ""), ("val", "val_")):
            found = {name: line[start + name] for name in _LOGGED}
            # JSON has no NaN
            own = {
                n: None if math.isnan(value) else value for n, value in found.items()
            }
            own |= {"lr": line["lr"]} if kind == "train" else {}
            records.append({"kind": kind, "step": step, **own})
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    streams.write_pieces(folder / "metrics.jsonl", [text.encode()])


def slice_plan(
    cases: Sequence[Case],
    slicing: Slicing,
    *,
    classes: Sequence[str],
    features: tuple[int, ...],
    batch_size: int,
) -> Plan:
    """How exams are prepared for a network of the study.

    The pixel is the median one of the exams' slices at their size of the study.

    Args:
      cases: exams that it was trained on.
      slicing: how they became slices.
      classes: names of the classes; one is taken for a single kind of lesion.
      features: channels of the network's levels.
      batch_size: slices of a batch.

    Raises:
      ValueError: images are not scaled to 0 to 1; `predict` crops before it scales,
        which changes mean and spread.
    """
    if slicing.scaling != "unit":
        raise ValueError(
            f"scaling {slicing.scaling!r} of whole exams is not what `bmjax predict` "
            "does, which crops them first; train with --scaling unit"
        )
    grids = [nifti.grid_of(case.images[CHANNELS[0]]) for case in cases]
    spacings = [nifti.spacing_of(affine) for _, affine in grids]
    pixel_mm = tuple(
        statistics.median(
            size[axis] * spacing[axis] / slicing.size
            for (size, _), spacing in zip(grids, spacings, strict=True)
        )
        for axis in (1, 2)
    )
    scheme = BRATS_METS if len(classes) > 1 else LESION
    stages = len(features)
    return Plan(
        channels=CHANNELS,
        labels=scheme.labels,
        regions=scheme.regions,
        paint=scheme.paint,
        spacing_mm=pixel_mm,
        normalization=("rescale_to_0_1",) * len(CHANNELS),
        use_mask_for_norm=False,
        patch_size=(slicing.size,) * 2,
        batch_size=batch_size,
        features=features,
        strides=((1, 1), *((2, 2),) * (stages - 1)),
        kernel_sizes=((3, 3),) * stages,
        batch_dice=False,
        median_size=(
            round(statistics.median(size[0] for size, _ in grids)),
            slicing.size,
            slicing.size,
        ),
    )


_NO_AUGMENTATION = AugmentPolicy(
    spatial=Spatial(p_rotation=0.0, p_scaling=0.0, p_elastic=0.0),
    p_noise=0.0,
    p_blur=0.0,
    p_brightness=0.0,
    p_contrast=0.0,
    p_low_resolution=0.0,
    p_gamma_inverted=0.0,
    p_gamma=0.0,
    p_mirror=0.0,
)
