"""The doors predict and bundle: trained folds meet cases, and leave as one file."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from bmjax import models
from bmjax.bundle import read_bundle, write_bundle
from bmjax.data.cases import Case, sort_cases
from bmjax.data.layout import Problem, some_of
from bmjax.data.reading import Reading
from bmjax.ensemble import Ensemble, read_ensemble
from bmjax.inference import (
    CaseResult,
    Outputs,
    SlidingWindow,
    predict_cases,
    stack_folds,
)
from bmjax.inference.card import held_out_scores, model_card
from bmjax.inference.estimate import estimate
from bmjax.inference.export import LABELS_ALONE
from bmjax.planning import Plan
from bmjax.runs import read_split
from bmjax.sharding import require_platform

Preset = Literal["fast", "accurate"]
Tick = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class _Way:
    """What a preset stands for.

    Attributes:
      window: fields of the sliding window.
      is_one_fold: the first fold alone.
    """

    window: Mapping[str, Any]
    is_one_fold: bool


PRESETS: dict[Preset, _Way] = {
    "fast": _Way(window={"flips": "none", "overlap": 0.25}, is_one_fold=True),
    "accurate": _Way(window={"flips": "all", "overlap": 0.5}, is_one_fold=False),
}


def predict(
    model: str | Path,
    *,
    images: str | Path | Sequence[Case],
    out: str | Path,
    cases: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    preset: Preset | None = None,
    window: Mapping[str, Any] | None = None,
    outputs: Outputs = LABELS_ALONE,
    checkpoint: str = "best",
    overwrite: bool = False,
    allow_missing: bool = False,
    resample_to: str | None = None,
    zero_nonfinite: bool = False,
    allow_outside: bool = False,
    allow: tuple[str, ...] = (),
    announce: Callable[[str], None] | None = None,
    progress: Tick | None = None,
) -> list[CaseResult]:
    """Write a label file, in the input's own geometry, for each case.

    Args:
      model: run folder, folder of `fold_N` runs, or bundle.
      images: folder of cases, CSV manifest, or cases already found.
      out: folder for `CASE.nii.gz`.
      cases: ids of the cases wanted; None for all.
      folds: which networks to average; None: all that the preset says.
      preset: `fast` is the first fold without flips, windows overlapping by a quarter;
        `accurate` all folds with flips, overlapping by half; None: all folds as the
        experiment says.
      window: fields of `SlidingWindow` that go before preset and experiment.
      outputs: what is written beside the label files.
      checkpoint: `best` or `last`.
      overwrite: replace what another network or setting left in the folder.
      allow_missing: also predict cases that lack channels, which count as zero; for
        networks trained with `augment.p_drop_channel`.
      resample_to: channel on whose grid the others are resampled where they lie on
        another; the label file has that grid.
      zero_nonfinite: take NaN and infinite voxels for 0 instead of refusing them.
      allow_outside: follow links and paths that lead out of the folder of cases.
      allow: packages outside bmjax that a network of your own comes from.
      announce: called with what the prediction will take and cost, before it begins.
      progress: called with cases done, cases in all, and the case at hand.

    Returns:
      One result per case; a failed case holds its error and the others are finished.
    """
    require_platform()
    model = Path(model)
    found = read_ensemble(model, folds=folds, checkpoint=checkpoint, allow=allow)
    if preset is not None and PRESETS[preset].is_one_fold and folds is None:
        found = replace(found, folds=dict([next(iter(found.folds.items()))]))
    settings = _settings(model, found, preset, window)
    if allow_missing and found.experiment.augment.p_drop_channel == 0:
        raise ValueError(
            f"{model}: was trained with all of {', '.join(found.plan.channels)} "
            "(augment.p_drop_channel is 0), so it cannot do without one; train with "
            "--augment.p-drop-channel 0.2, or predict without --allow-missing"
        )
    if "disagreement" in outputs.maps and len(found.folds) == 1:
        raise ValueError(
            f"{model}: one fold cannot disagree; give a folder or a bundle of several, "
            "or leave out the map"
        )
    unusable: dict[str, str] = {}
    notes: list[Problem] = []
    if isinstance(images, str | Path):
        images, problems, notes = sort_cases(
            Path(images),
            channels=found.plan.channels,
            ids=cases,
            allow_missing=allow_missing,
            reading=Reading(resample_to=resample_to, zero_nonfinite=zero_nonfinite),
            allow_outside=allow_outside,
        )
        for problem in problems:
            before = unusable.get(problem.case)
            unusable[problem.case] = f"{before}\n{problem}" if before else str(problem)
    forward, num_folds = network(found)
    devices = jax.local_devices()
    if announce is not None:
        taken = estimate(
            forward,
            images,
            found.plan,
            settings=settings,
            outputs=outputs,
            out=Path(out),
            num_folds=num_folds,
            devices=devices,
        )
        announce(str(taken))
        for line in some_of(notes):
            announce(line)
        if outputs.min_volume_mm3:
            announce(cost_of_min_volume(found, outputs.min_volume_mm3))
    return predict_cases(
        forward,
        images,
        found.plan,
        Path(out),
        settings=settings,
        outputs=outputs,
        num_folds=num_folds,
        unusable=unusable,
        overwrite=overwrite,
        allow_missing=allow_missing,
        devices=devices,
        progress=progress,
    )


def one_exam(
    files: Mapping[str, Path],
    *,
    case: str,
    resample_to: str | None = None,
    zero_nonfinite: bool = False,
) -> Case:
    """A case of files that are named one by one, without a folder of their own.

    Args:
      files: file of each channel.
      case: its id, which names its label file.
      resample_to: as in `predict`.
      zero_nonfinite: as in `predict`.

    Raises:
      FileNotFoundError: a file is not there.
    """
    absent = [
        f"{channel} {path}" for channel, path in files.items() if not path.is_file()
    ]
    if absent:
        raise FileNotFoundError(f"{case}: no such file: {', '.join(absent)}")
    reading = Reading(resample_to=resample_to, zero_nonfinite=zero_nonfinite)
    return Case(id=case, patient=case, images=files, reading=reading)


def bundle(
    model: str | Path,
    *,
    out: str | Path,
    folds: Sequence[int] | None = None,
    checkpoint: str = "best",
    allow: tuple[str, ...] = (),
) -> Path:
    """Write one verified archive of a trained model, see `bmjax.bundle`.

    Args:
      model: run folder, or folder of `fold_N` runs.
      out: file to write; ends in .bmjax.
      folds: which to take; None: all.
      checkpoint: `best` or `last` of each run.
      allow: packages outside bmjax that a network of your own comes from.
    """
    model, out = Path(model), Path(out)
    found = read_ensemble(model, folds=folds, checkpoint=checkpoint, allow=allow)
    regions = [name for name, _ in found.plan.regions]
    splits = {n: read_split(run) for n, run in found.runs.items()}
    count = sum(np.size(leaf) for leaf in jax.tree.leaves(first_fold(found)["params"]))
    card = model_card(
        found.plan,
        title=out.stem,
        network=f"{type(found.experiment.model).__name__}, {count:,} parameters",
        splits={n: split for n, split in splits.items() if split is not None},
        steps=found.steps,
        scores={
            n: held_out_scores(run / "validation", regions)
            for n, run in found.runs.items()
        },
    )
    write_bundle(
        out,
        experiment=found.experiment.to_json(),
        plan=found.plan,
        folds=found.folds,
        steps=found.steps,
        card=card,
    )
    return out


def verify(path: str | Path) -> str:
    """What a bundle holds, in words, once all members were compared with their hashes.

    Raises:
      ValueError: it is damaged, changed, or holds what a bundle may not.
    """
    found = read_bundle(Path(path))
    versions = ", ".join(f"{name} {v}" for name, v in found.versions.items())
    lines = [f"{digest}  {name}" for name, digest in sorted(found.digests.items())]
    folds = ", ".join(f"{n} (step {found.steps[n]})" for n in found.folds)
    return "\n".join([f"{path}: whole; folds {folds}; made with {versions}", *lines])


def cost_of_min_volume(found: Ensemble, min_volume_mm3: float) -> str:
    """What leaving out small predicted lesions costs in sensitivity, as validated.

    Args:
      found: the model; its runs hold what became of the lesions that were held out.
      min_volume_mm3: predicted lesions below it are removed.
    """
    region = widest_region(found.plan)
    lesions = []
    for run in found.runs.values():
        path = run / "validation" / "lesions.csv"
        if path.is_file():
            with path.open(newline="") as file:
                lesions += [
                    row
                    for row in csv.DictReader(file)
                    if row["region"] == region and row["kind"] == "reference"
                ]
    what = f"lesions below {min_volume_mm3:g} mm3 are removed"
    if not lesions:
        return f"{what}: its cost in sensitivity is not known, no validation was found"
    is_found = [row["is_found"] in ("1", "True") for row in lesions]
    is_small = [float(row["volume_mm3"]) < min_volume_mm3 for row in lesions]
    lost = sum(a and b for a, b in zip(is_found, is_small, strict=True))
    before, count = sum(is_found), len(lesions)
    return (
        f"{what}: of {count} real ones ({region}) held out in validation, "
        f"{sum(is_small)} are so small and {lost} of those were found; sensitivity "
        f"falls from {before / count:.3f} to {(before - lost) / count:.3f} if these "
        "go, too"
    )


def widest_region(plan: Plan) -> str:
    """The region of the most labels."""
    return max(plan.regions, key=lambda region: len(region[1]))[0]


def first_fold(found: Ensemble) -> dict[str, Any]:
    """Parameters and model statistics of the first network."""
    return next(iter(found.folds.values()))


def network(found: Ensemble) -> tuple[Partial, int | None]:
    """The networks as one function, and how many are stacked in it."""
    apply = models.first_output(found.experiment.model)
    if len(found.folds) == 1:
        return Partial(apply, jax.tree.map(jnp.asarray, first_fold(found))), None
    folds = [Partial(apply, variables) for variables in found.folds.values()]
    return stack_folds(folds), len(folds)


def _settings(
    model: Path,
    found: Ensemble,
    preset: Preset | None,
    window: Mapping[str, Any] | None,
) -> SlidingWindow:
    settings = found.experiment.inference
    if preset is not None:
        settings = replace(settings, **PRESETS[preset].window)
    settings = replace(settings, **(window or {}))
    if settings.flips == "all" and found.experiment.augment.p_mirror == 0:
        raise ValueError(
            f"{model}: was trained without mirrored images (augment.p_mirror is 0), so "
            "flips would feed it what it has not seen; predict with --tta none"
        )
    return settings
