"""The verbs on raw cases: check, plan and prepare."""

import json as codec
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table

import bmjax
from bmjax.cli.output import FAILED, OK, AsFlags, Positional, print_result
from bmjax.console import ticking
from bmjax.data.description import RawData
from bmjax.data.plan_files import load_plan
from bmjax.data.store import Precision
from bmjax.data.store_check import check_store, is_store
from bmjax.data.streams import write_pieces
from bmjax.planning.plan import ConfigurationName
from bmjax.planning.topology import Preset

_PLAIN = RawData()


def check(
    raw: Positional[Path],
    /,
    *,
    data: Annotated[RawData, AsFlags] = _PLAIN,
    need_labels: bool = False,
    json: bool = False,
    num_workers: int | None = None,
    timeout_s: float | None = None,
) -> int:
    """Read every file of a data set, or of a store, and list all problems at once.

    Args:
      raw: folder of cases (BraTS, UCSF-BMSR, nnU-Net raw, BIDS), CSV manifest, or a
        store, whose arrays are compared with their hashes, plan and labels.
      data: what the names of the data set do not say.
      need_labels: every case must have labels, as for training.
      json: print the report as JSON.
      num_workers: cases read at the same time; all cores if not given.
      timeout_s: end where worker processes finish no case for so long, as when a
        network disk hangs; for ever if not given.
    """
    with ticking(Console(stderr=True), "checking") as tick:
        if is_store(raw):
            report = check_store(raw, num_workers=num_workers, progress=tick)
            print_result(report.to_dict() if json else str(report))
            return OK if report.ok else FAILED
        report = bmjax.check(
            raw,
            data=data,
            need_labels=need_labels,
            num_workers=num_workers,
            timeout_s=timeout_s,
            progress=tick,
        )
    print_result(report.to_dict() if json else str(report))
    return OK if report.ok else FAILED


def plan(
    raw: Positional[Path],
    /,
    *,
    data: Annotated[RawData, AsFlags] = _PLAIN,
    preset: Preset | None = None,
    configuration: ConfigurationName = "3d_fullres",
    memory_gb: float | None = None,
    source: Path | None = None,
    keep_source_normalization: bool = False,
    memory: bool = False,
    out: Path | None = None,
    nnunet: Path | None = None,
    json: bool = False,
    num_workers: int | None = None,
) -> int:
    """Say what nnU-Net's rules decide for a data set, and why.

    Args:
      raw: folder of cases, CSV manifest, or a store, whose own plan is explained.
      data: what the names of the data set do not say.
      preset: nnU-Net's planner: its network and its memory target; the default one
        if not given.
      configuration: a 3-D network at full or at low resolution, or a 2-D one.
      memory_gb: of the GPU; the one that the preset is made for if not given.
      source: move this plan onto the data set: a store, a run, a plan.json, or
        nnU-Net's plans with dataset.json beside them.
      keep_source_normalization: normalise by the data set's own rules all the same.
      memory: say what memory a training step takes.
      out: file for the plan, which `prepare --plan` takes.
      nnunet: folder for nnU-Net's dataset.json, dataset_fingerprint.json and plans.
      json: print the plan as JSON.
      num_workers: cases measured at the same time; all cores if not given.
    """
    with ticking(Console(stderr=True), "measuring") as tick:
        planned = bmjax.plan(
            raw,
            data=data,
            preset=preset,
            configuration=configuration,
            memory_gb=memory_gb,
            source=source and load_plan(source, configuration=configuration),
            keep_source_normalization=keep_source_normalization,
            num_workers=num_workers,
            progress=tick,
        )
    values = planned.plan.to_dict()
    if json:
        print_result(values)
    else:
        _print_plan(planned)
    if memory:
        num_bytes, how = planned.step_memory()
        text = f"memory of a training step: {num_bytes / 2**30:.2f} GiB ({how})"
        Console(stderr=json, soft_wrap=True, highlight=False).print(text)
    if out is not None:
        write_pieces(out, [codec.dumps(values, indent=1).encode() + b"\n"])
    if nnunet is not None:
        planned.write_nnunet(nnunet, memory_gb=memory_gb)
    return OK


def prepare(
    raw: Positional[Path],
    store: Positional[Path],
    /,
    *,
    data: Annotated[RawData, AsFlags] = _PLAIN,
    plan: Path | None = None,
    keep_source_normalization: bool = False,
    preset: Preset = "default",
    configuration: ConfigurationName = "3d_fullres",
    memory_gb: float | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    patch_size: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    dtype: Precision = "float32",
    num_workers: int | None = None,
    timeout_s: float | None = None,
) -> int:
    """Turn raw cases into a store: fingerprint, plan, preprocessed arrays.

    Args:
      raw: folder of cases (BraTS, UCSF-BMSR, nnU-Net raw, BIDS), or a CSV manifest.
      store: folder to make; one that was interrupted is completed.
      data: what the names of the data set do not say.
      plan: take the plan of another data set: a store, a run, a plan.json, or
        nnU-Net's plans with dataset.json beside them.
      keep_source_normalization: with a plan, normalise by the data set's own rules all
        the same.
      preset: nnU-Net's planner: its network and its memory target.
      configuration: a 3-D network at full or at low resolution, or a 2-D one.
      memory_gb: of the GPU; the one that the preset is made for if not given.
      spacing_mm: target spacing instead of the plan's own, z y x.
      patch_size: patch instead of the plan's own, z y x.
      batch_size: batch size instead of the plan's own.
      dtype: of the stored images; float16 takes half the disk.
      num_workers: cases prepared at the same time; all cores, or as many as memory
        allows, if not given.
      timeout_s: end where worker processes finish no case for so long, as when a
        network disk hangs; for ever if not given.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with ticking(Console(stderr=True), "preparing") as tick:
        decided = bmjax.prepare(
            raw,
            store,
            data=data,
            plan=plan and load_plan(plan, configuration=configuration),
            keep_source_normalization=keep_source_normalization,
            preset=preset,
            configuration=configuration,
            memory_gb=memory_gb,
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            batch_size=batch_size,
            dtype=dtype,
            num_workers=num_workers,
            timeout_s=timeout_s,
            progress=tick,
            say=lambda text: console.print(text, markup=False),
        )
    print_result(decided.to_dict())
    return OK


def _print_plan(planned: Any) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=140, highlight=False)
    table = Table(title=f"{planned.num_cases} cases, {planned.preset}")
    for name in ("decision", "value", "why"):
        table.add_column(name, overflow="fold")
    for reason in planned.reasons:
        table.add_row(reason.decision, reason.value, reason.why)
    console.print(table)
    if planned.moved is not None:
        for line in (*map(str, planned.moved.carried), *planned.moved.warnings):
            console.print(line, markup=False)
