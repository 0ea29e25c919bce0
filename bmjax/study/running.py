"""Performs the stages of a study: one after the other, or side by side on devices."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from bmjax.study.stages import Ledger, Stage, Stopped

STOPPED = 75
_LOOK_S = 0.5


class StageError(RuntimeError):
    """A stage failed; the others that do not need it were done."""


def perform_all(ledger: Ledger, console: Console, *, only: Sequence[str] = ()) -> None:
    """Do what is not done yet, in order.

    Args:
      ledger: of the stages.
      console: where progress is shown.
      only: names of the stages wanted; all if none.

    Raises:
      ValueError: there is no such stage, or what one needs is not done.
      Stopped: a stage was asked to stop.
    """
    unknown = [name for name in only if name not in ledger.stages]
    if unknown:
        raise ValueError(
            f"no stage {', '.join(unknown)}; there are {', '.join(ledger.stages)}"
        )
    stages = [ledger.stages[name] for name in only] or list(ledger.stages.values())
    for number, stage in enumerate(stages, start=1):
        if ledger.state(stage) != "done":
            console.print(f"[bold]\\[{number}/{len(stages)}] {stage.name}")
            ledger.perform(stage, console)


def perform_on_devices(
    ledger: Ledger,
    console: Console,
    *,
    devices: Sequence[str],
    command: Sequence[str],
    logs: Path,
) -> None:
    """Do each stage in a process of its own, one on each device at a time.

    Args:
      ledger: of the stages.
      console: where beginnings and ends are shown.
      devices: what CUDA_VISIBLE_DEVICES is in these processes.
      command: does one stage, once `--only NAME` is appended.
      logs: folder for what each process prints.

    Raises:
      StageError: a stage failed, or ended without being done.
      Stopped: this process or a stage was asked to stop.
    """
    logs.mkdir(parents=True, exist_ok=True)
    free, failed, is_stopped = list(devices), {}, False
    running: dict[str, tuple[subprocess.Popen[bytes], str]] = {}
    with _asked_to_stop() as asked:
        while True:
            for name, (process, device) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                free.append(device)
                is_stopped |= code == STOPPED
                is_done = code == 0 and ledger.state(ledger.stages[name]) == "done"
                if not is_done and code != STOPPED:
                    failed[name] = _log(logs, name)
                console.print(f"{name}: {'done' if is_done else f'ended ({code})'}")
            if asked:
                is_stopped = True
                for process, _ in running.values():
                    process.send_signal(asked[0])
                asked.clear()
            if not is_stopped:
                for stage in _ready(ledger, running, failed)[: len(free)]:
                    device = free.pop(0)
                    process = _start(stage, device, command, logs)
                    running[stage.name] = (process, device)
                    console.print(f"{stage.name}: begun on device {device}")
            if not running:
                break
            time.sleep(_LOOK_S)
    if failed:
        text = "\n".join(f"{name}: see {log}" for name, log in failed.items())
        raise StageError(f"{len(failed)} stages failed:\n{text}")
    if is_stopped:
        raise Stopped("stopped on request; the same command goes on")


def _ready(
    ledger: Ledger, running: Mapping[str, object], failed: Mapping[str, Path]
) -> list[Stage]:
    return [
        stage
        for stage in ledger.stages.values()
        if stage.name not in running
        and stage.name not in failed
        and ledger.is_ready(stage)
        and ledger.state(stage) != "done"
    ]


def _start(
    stage: Stage, device: str, command: Sequence[str], logs: Path
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device}
    with _log(logs, stage.name).open("ab") as log:
        return subprocess.Popen(
            [*command, "--only", stage.name],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.replace('/', '.')}.log"


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Signals that asked this process to stop, as they come."""
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        asked.append(number)

    names = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = {number: signal.signal(number, note) for number in names}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
