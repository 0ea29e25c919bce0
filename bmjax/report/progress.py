"""The picture of a run while it trains: progress.png, for a glance or a chat."""

import os
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np

from bmjax.report.curves import DPI, draw_lines, draw_loss, draw_plain, series
from bmjax.report.sources import read_records
from bmjax.report.style import house_style

_SIZE_IN = (9.4, 6.0)


def write_progress(run: str | Path) -> Path:
    """Draw loss, Dice, learning rate and time per step as far as they go.

    Args:
      run: run folder; its `progress.png` is replaced whole.
    """
    run = Path(run)
    records: list[dict[str, Any]] = list(read_records(run / "metrics.jsonl"))
    kind, title = "pseudo_dice", "Pseudo-Dice, validation"
    if any("volume_dice" in record for record in records):
        kind, title = "volume_dice", "Dice of whole cases, validation"
    regions = dict.fromkeys(
        region for record in records for region in record.get(kind) or ()
    )
    dice = {region: series(records, "val", kind, region) for region in regions}
    score = series(records, "val", "score")
    if len(score[0]):
        dice["running mean"] = score
    with house_style("light"):
        figure = matplotlib.figure.Figure(figsize=_SIZE_IN, layout="constrained")
        loss, overlap, rate, pace = figure.subplots(2, 2).flat
        draw_loss(loss, "light", {run.name: records})
        draw_lines(overlap, "light", dice, title)
        rates = {"learning rate": series(records, "train", "lr")}
        draw_plain(rate, "light", rates, "Learning rate")
        times = {
            "whole step": series(records, "train", "step_ms"),
            "waiting for data": series(records, "train", "wait_ms"),
        }
        draw_plain(pace, "light", times, "Time per step [ms]")
        if len(times["whole step"][1]):
            # the first step compiles, for as long as a thousand others
            pace.set_ylim(0, 3 * float(np.median(times["whole step"][1])))
        path, fresh = run / "progress.png", run / ".progress.png.tmp"
        figure.savefig(fresh, format="png", dpi=DPI)
    os.replace(fresh, path)
    return path
