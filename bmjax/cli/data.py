"""The verbs on raw cases: check and prepare."""

from pathlib import Path

from rich.console import Console

import bmjax
from bmjax.cli.output import FAILED, OK, Positional, print_result
from bmjax.console import ticking


def check(raw: Positional[Path], /, *, json: bool = False) -> int:
    """Read every file of a data set and list all problems of all cases at once.

    Args:
      raw: folder of cases, or a CSV manifest.
      json: print the report as JSON.
    """
    with ticking(Console(stderr=True), "checking") as tick:
        report = bmjax.check(raw, progress=tick)
    print_result(report.to_dict() if json else str(report))
    return OK if report.ok else FAILED


def prepare(
    raw: Positional[Path],
    store: Positional[Path],
    /,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    patch_size: tuple[int, int, int] | None = None,
    batch_size: int | None = None,
    num_workers: int | None = None,
) -> int:
    """Turn raw cases into a store: fingerprint, plan, preprocessed arrays.

    Args:
      raw: folder of cases, or a CSV manifest.
      store: folder to make; one that was interrupted is completed.
      spacing_mm: target spacing instead of the plan's own, z y x.
      patch_size: patch instead of the plan's own, z y x.
      batch_size: batch size instead of the plan's own.
      num_workers: cases prepared at the same time; all cores if not given.
    """
    with ticking(Console(stderr=True), "preparing") as tick:
        plan = bmjax.prepare(
            raw,
            store,
            spacing_mm=spacing_mm,
            patch_size=patch_size,
            batch_size=batch_size,
            num_workers=num_workers,
            progress=tick,
        )
    print_result(plan.to_dict())
    return OK
