"""The doors `plan` and `prepare`: from raw cases to decisions, and to a store."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from bmjax import models
from bmjax.data.cases import Case, sort_cases
from bmjax.data.description import Description, RawData, describe
from bmjax.data.estimate import estimate
from bmjax.data.layout import Problem, some_of
from bmjax.data.measure import measure_cases
from bmjax.data.soundness import require_regions
from bmjax.data.store import Precision, Store, fill_store
from bmjax.experiment import Experiment
from bmjax.locks import held
from bmjax.planning import Plan, make_plan, plan_from_nnunet, summarise
from bmjax.planning.labels import LabelScheme, describe_label_map
from bmjax.planning.nnunet_data import write_dataset, write_fingerprint
from bmjax.planning.plan import ConfigurationName
from bmjax.planning.reasons import Reason, explain
from bmjax.planning.topology import BUDGETS, Preset
from bmjax.planning.transfer import Moved, move_plan
from bmjax.runs import write_whole
from bmjax.training.memory import StepMemory, estimate_step, how_known, measure_step

Tick = Callable[[int, int, str], None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan and what led to it.

    Attributes:
      plan: the decisions.
      fingerprint: of the data set.
      reasons: one for each decision.
      moved: what was carried over, where another data set's plan was taken.
      preset: the planner.
      num_cases: in the data set.
    """

    plan: Plan
    fingerprint: dict[str, Any]
    reasons: tuple[Reason, ...]
    moved: Moved | None
    preset: Preset
    num_cases: int

    def step_memory(self) -> tuple[int, str]:
        """Memory of a training step [bytes], and how it is known, in words.

        Measured by compiling it for the accelerator of this process; without one, a
        liveness estimate.
        """
        is_residual = BUDGETS[self.preset].is_residual
        network = models.ResEncUNet() if is_residual else models.PlainUNet()
        experiment = Experiment(model=network).resolve(self.plan)
        step: dict[str, Any] = {
            "model": experiment.model,
            "loss": experiment.loss,
            "optimizer": experiment.optimizer.transformation(),
            "regions": self.plan.regions,
            "size": (self.plan.batch_size, *self.plan.patch_size),
            "num_channels": len(self.plan.channels),
        }
        name = type(network).__name__
        if how_known() == "measured":
            return measure_step(**step), f"measured: {name} as compiled for this device"
        found: StepMemory = estimate_step(**step)
        parts = ", ".join(
            f"{part} {getattr(found, part) / 2**30:.2f}"
            for part in ("params", "grads", "optimizer", "activations", "working")
        )
        return found.total, (
            f"liveness estimate of {name}, as this process has no accelerator to "
            f"compile for: {parts} GiB; a vendor's convolutions may ask for more"
        )

    def write_nnunet(self, folder: Path, *, memory_gb: float | None = None) -> None:
        """Write dataset.json, dataset_fingerprint.json and the plans for nnU-Net.

        Args:
          folder: made if it is not there.
          memory_gb: of the GPU [GB]; None: the one that the preset is made for.
        """
        dataset = write_dataset(
            self.plan.channels,
            self.plan.normalization,
            _scheme(self.plan),
            num_cases=self.num_cases,
            name=folder.name,
        )
        fingerprint = write_fingerprint(self.fingerprint)
        plans = plan_from_nnunet(fingerprint, dataset, self.preset, memory_gb=memory_gb)
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in (
            ("dataset", dataset),
            ("dataset_fingerprint", fingerprint),
            (plans["plans_name"], plans),
        ):
            write_whole(folder / f"{name}.json", json.dumps(values, indent=1))


def plan(
    root: str | Path,
    *,
    data: RawData | None = None,
    preset: Preset | None = None,
    configuration: ConfigurationName = "3d_fullres",
    memory_gb: float | None = None,
    source: Plan | None = None,
    keep_source_normalization: bool = False,
    num_workers: int | None = None,
    progress: Tick | None = None,
) -> Planned:
    """What nnU-Net's rules decide for a data set, with the reason of each decision.

    Args:
      root: raw data set, whose cases are measured; or a store, whose own plan is
        explained, or with a preset planned anew.
      data: what the names of a raw data set do not say.
      preset: the planner: its network and its memory target; None: the default.
      configuration: a 3-D network at full or low resolution, or a 2-D one.
      memory_gb: of the GPU [GB]; None: the one that the preset is made for.
      source: another data set's plan, to be moved onto this one.
      keep_source_normalization: normalise by this data set's own rules all the same.
      num_workers: cases measured at the same time; None takes all cores.
      progress: called with cases done, cases in all, and what was done.

    Raises:
      ValueError: a case cannot be read, or there is no such configuration.
    """
    root = Path(root)
    if (root / "store.json").is_file():
        store = Store(root)
        measured = store.fingerprint
        if measured is None:
            raise ValueError(
                f"{root}: prepared by a given plan, so that it holds no fingerprint; "
                "plan its raw data"
            )
        if preset is None and source is None:
            return Planned(
                plan=store.plan,
                fingerprint=measured,
                reasons=explain(store.plan, measured, memory_gb=memory_gb),
                moved=None,
                preset="default",
                num_cases=len(measured["spacings_mm"]),
            )
        return _planned(
            measured,
            _scheme(store.plan),
            store.plan.normalization,
            preset=preset or "default",
            configuration=configuration,
            memory_gb=memory_gb,
            source=source,
            keep_source_normalization=keep_source_normalization,
        )
    found, cases, _ = _found(root, data)
    facts = measure_cases(
        cases,
        channels=found.channels,
        orientation="RAS" if source is None else source.orientation,
        num_workers=num_workers,
        progress=progress,
    )
    return _planned(
        summarise(facts),
        found.scheme,
        found.normalization,
        preset=preset or "default",
        configuration=configuration,
        memory_gb=memory_gb,
        source=source,
        keep_source_normalization=keep_source_normalization,
    )


def prepare(
    raw: str | Path,
    store: str | Path,
    *,
    data: RawData | None = None,
    plan: Plan | None = None,
    keep_source_normalization: bool = False,
    preset: Preset = "default",
    configuration: ConfigurationName = "3d_fullres",
    memory_gb: float | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    patch_size: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    dtype: Precision = "float32",
    num_workers: int | None = None,
    timeout_s: float | None = None,
    progress: Tick | None = None,
    say: Say | None = None,
) -> Plan:
    """Turn raw cases into a store: fingerprint, plan, preprocessed arrays.

    Args:
      raw: folder of cases, or a CSV manifest.
      store: folder to make; a store that was interrupted is completed.
      data: what the names of the raw data set do not say.
      plan: take this plan, of another data set, instead of making one.
      keep_source_normalization: normalise by this data set's own rules all the same.
      preset: the planner: its network and its memory target.
      configuration: a 3-D network at full or low resolution, or a 2-D one.
      memory_gb: of the GPU [GB]; None: the one that the preset is made for.
      spacing_mm: target spacing instead of the plan's own, z y x [mm].
      patch_size: patch instead of the plan's own [vox].
      batch_size: batch size instead of the plan's own.
      dtype: of the stored images.
      num_workers: cases prepared at the same time; None takes all cores, or as many as
        memory allows.
      timeout_s: longest wait for the next case of a process [s]; None: for ever.
      progress: called with cases done, cases in all, and what was done.
      say: is told what should be known, line by line.

    Raises:
      ValueError: a case cannot be used, or a region occurs in none of them.
    """
    if plan is not None and (spacing_mm or patch_size or batch_size):
        raise ValueError(
            "a given plan says the spacing, the patch and the batch; leave those out, "
            "or the plan"
        )
    say = say or _silent
    found, cases, notes = _found(Path(raw), data)
    for line in some_of(notes):
        say(line)
    say(found.channel_text())
    say(found.scheme.table())
    for pairs in sorted({case.reading.label_map for case in cases} - {()}):
        count = sum(case.reading.label_map == pairs for case in cases)
        say(f"label map of {count} of {len(cases)} cases:")
        say(describe_label_map(dict(pairs), found.scheme))
    with held(Path(store), doing="preparing", otherwise="choose another folder"):
        facts = measure_cases(
            cases,
            channels=found.channels,
            orientation="RAS" if plan is None else plan.orientation,
            label_values=[value for _, value in found.scheme.labels],
            num_workers=num_workers,
            timeout_s=timeout_s,
            progress=progress,
        )
        voxels = {fact["id"]: fact["label_voxels"] for fact in facts}
        for fact in facts:
            if sum(fact["label_voxels"].values()) == prod(fact["size_after_crop"]):
                say(f"{fact['id']}: its labels have no background")
        require_regions(voxels, found.scheme.regions)
        fingerprint = summarise(facts)
        own = make_plan(
            fingerprint,
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            batch_size=batch_size,
            preset=preset,
            configuration=configuration,
            memory_gb=memory_gb,
            scheme=found.scheme,
            normalization=found.normalization,
        )
        if plan is None:
            plan = own
        else:
            moved = move_plan(
                plan, own, keep_source_normalization=keep_source_normalization
            )
            plan = moved.plan
            for line in (*map(str, moved.carried), *moved.warnings):
                say(line)
        ahead = estimate(
            cases, facts, plan, Path(store), dtype=dtype, num_workers=num_workers
        )
        say(str(ahead))
        fill_store(
            cases,
            plan,
            Path(store),
            fingerprint=fingerprint,
            dtype=dtype,
            num_workers=ahead.num_workers,
            timeout_s=timeout_s,
            progress=progress,
        )
    return plan


def _found(
    root: Path, data: RawData | None
) -> tuple[Description, list[Case], list[Problem]]:
    """Channels and labels of a raw data set, its cases, and files without a use."""
    data = data or RawData()
    found = describe(root, data)
    cases, problems, notes = sort_cases(
        root,
        channels=found.channels,
        need_labels=True,
        label_name=data.label_name,
        reading=data.reading(),
        allow_outside=data.allow_outside,
    )
    if problems:
        raise ValueError("\n".join(map(str, problems)))
    return found, cases, notes


def _scheme(plan: Plan) -> LabelScheme:
    return LabelScheme(labels=plan.labels, regions=plan.regions, paint=plan.paint)


def _planned(
    fingerprint: dict[str, Any],
    scheme: LabelScheme,
    normalization: tuple[str, ...],
    *,
    preset: Preset,
    configuration: ConfigurationName,
    memory_gb: float | None,
    source: Plan | None,
    keep_source_normalization: bool,
) -> Planned:
    decided = make_plan(
        fingerprint,
        preset=preset,
        configuration=configuration,
        memory_gb=memory_gb,
        scheme=scheme,
        normalization=normalization,
    )
    moved = None
    if source is not None:
        moved = move_plan(
            source, decided, keep_source_normalization=keep_source_normalization
        )
        decided = moved.plan
    return Planned(
        plan=decided,
        fingerprint=fingerprint,
        reasons=explain(decided, fingerprint, preset=preset, memory_gb=memory_gb),
        moved=moved,
        preset=preset,
        num_cases=len(fingerprint["spacings_mm"]),
    )


def _silent(text: str) -> None:
    """Nobody listens."""
