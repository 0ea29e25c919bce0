"""The record of a run: one JSON object per line, TensorBoard, and a bar for people."""

import json
import os
from collections.abc import Callable, Mapping
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
from rich.table import Column
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


class TrainingBars:
    """A progress bar a run with time left, loss, pace, and the share waited for data.

    Args:
      console: where they are drawn; nothing is drawn where this is not a terminal, only
        a line at each validation.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            # the only one that a narrow terminal cuts short
            TextColumn(
                "{task.fields[text]}",
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "TrainingBars":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def add(
        self, title: str, *, total: int, start: int = 0
    ) -> Callable[[Mapping[str, Any]], None]:
        """Begin a bar, and return what shows a record of the log in it.

        Args:
          title: what is being trained.
          total: number of updates of the run.
          start: number of updates already done.
        """
        task = self._bars.add_task(title, total=total, completed=start, text="")
        val = pace = ""

        def show(record: Mapping[str, Any]) -> None:
            nonlocal val, pace
            if record["kind"] == "val":
                epoch = f"epoch {record['epoch']:g}, " if "epoch" in record else ""
                kind = "volume" if "volume_dice" in record else "pseudo"
                dice = record[f"{kind}_dice"].items()
                values = " ".join(f"{region} {value:.3f}" for region, value in dice)
                val = f" | val {values}"
                if not self._console.is_terminal:
                    self._console.print(
                        f"{title}: {epoch}step {record['step']}, val loss "
                        f"{record['loss']:.3f}, {kind}-Dice {values}{pace}"
                    )
                return
            share = record["wait_ms"] / record["step_ms"]
            pace = (
                f" | {record['step_ms']:.0f} ms/step, {record['images_per_s']:.2g} "
                f"images/s, {share:.1%} waiting for data"
            )
            text = f"loss {record['loss']:.3f}{val}{pace}"
            self._bars.update(task, completed=record["step"], text=text)

        return show
