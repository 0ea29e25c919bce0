"""The record of a run: one JSON object per line, TensorBoard, and a bar for people."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter


class RunLog:
    """Metrics of a run, appended to `metrics.jsonl` and to TensorBoard.

    Args:
      folder: of the run.
      start: number of updates already done; later lines, left by a killed run, are cut.
      is_silent: write nothing: of several processes one logs.
    """

    def __init__(
        self, folder: Path, *, start: int = 0, is_silent: bool = False
    ) -> None:
        self._is_silent = is_silent
        if is_silent:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            _cut_back(path, start)
        self._file = path.open("a", buffering=1)
        self._board = SummaryWriter(
            str(folder / "tensorboard"), purge_step=start + 1 if start else None
        )

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record: its `kind`, its `step`, numbers and maps of numbers."""
        if self._is_silent:
            return
        self._file.write(json.dumps(record) + "\n")
        kind, step = record["kind"], record["step"]
        for name, value in record.items():
            if isinstance(value, Mapping):
                for part, number in value.items():
                    self._board.add_scalar(f"{kind}/{name}/{part}", number, step)
            elif name not in ("kind", "step"):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def show(self, name: str, image: np.ndarray, step: int) -> None:
        """Put a picture, y x rgb, into TensorBoard."""
        if self._is_silent:
            return
        self._board.add_image(name, image, step, dataformats="HWC")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush everything to disk."""
        if self._is_silent:
            return
        self._file.close()
        self._board.close()


def _cut_back(path: Path, step: int) -> None:
    """Drop the lines after a step, and a last line that a kill left incomplete."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if record["step"] > step:
            break
        kept.append(line + "\n")
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text("".join(kept))
    os.replace(fresh, path)


class TrainingBar:
    """A progress bar with time left, loss, pace, and the share waited for data.

    Args:
      console: where it is drawn; nothing is drawn where this is not a terminal, only a
        line at each validation.
      total: number of updates of the run.
      start: number of updates already done.
      title: what is being trained.
    """

    def __init__(
        self, console: Console, *, total: int, start: int = 0, title: str = "train"
    ) -> None:
        self._console = console
        self._title = title
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=start, text="")
        self._val = self._pace = ""

    def __enter__(self) -> "TrainingBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, record: Mapping[str, Any]) -> None:
        """Show one record of the log."""
        if record["kind"] == "val":
            kind = "volume_dice" if "volume_dice" in record else "pseudo_dice"
            dice = " ".join(f"{k} {v:.3f}" for k, v in record[kind].items())
            epoch = f"epoch {record['epoch']:g}, " if "epoch" in record else ""
            self._val = f"| {epoch}val {dice}"
            if not self._console.is_terminal:
                self._console.print(
                    f"{self._title}: {epoch}step {record['step']}, val loss "
                    f"{record['loss']:.3f}, {kind.replace('_d', '-D')} {dice}"
                    f"{self._pace}"
                )
            return
        share = record["wait_ms"] / record["step_ms"]
        self._pace = (
            f" | {record['step_ms']:.0f} ms/step, {record['images_per_s']:.2g} "
            f"images/s, {share:.1%} waiting for data"
        )
        text = f"loss {record['loss']:.3f}{self._pace} {self._val}"
        self._bar.update(self._task, completed=record["step"], text=text)
