"""A graph of resumable stages: each is done once for the same inputs.

A stage depends on its settings, on files, and on what the stages before it made. A hash
of all that, by content, is kept in STAGES/NAME.json once it is done; a stage whose hash
and whose results are still the same is not done again. One that was begun and killed
goes on with what it left, if its inputs are the same; else that is set aside.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from bmjax.data import streams
from bmjax.locks import held

State = Literal["done", "begun", "todo", "changed"]


class Stopped(Exception):
    """A stage was asked to stop, and saved what it had."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a study.

    Attributes:
      name: parts by slashes, such as `pretrain/default/fold_0`.
      run: does it, or goes on with it; prints to the console.
      outputs: files and folders that it makes, and nobody else.
      results: patterns of the files among them that others depend on; each must match
        one at least.
      needs: names of the stages whose results it uses.
      settings: what else it depends on, as JSON can hold it.
      inputs: files and folders from outside that it reads.
      num_steps: training steps, for the forecast.
    """

    name: str
    run: Callable[[Console], None]
    outputs: tuple[Path, ...]
    results: tuple[str, ...]
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Path, ...] = ()
    num_steps: int = 0


class Ledger:
    """Which stages are done, kept in a folder.

    Args:
      folder: of the records.
      stages: of the study; each after those that it needs.

    Raises:
      ValueError: two stages have one name, or one needs a stage that is not before it.
    """

    def __init__(self, folder: Path, stages: Sequence[Stage]) -> None:
        self._folder = folder
        self.stages = {stage.name: stage for stage in stages}
        self._finished: dict[str, str] = {}  # what is done stays so in one process
        self._contents: dict[Path, str] = {}
        if len(self.stages) < len(stages):
            raise ValueError("two stages of the study have the same name")
        before: set[str] = set()
        for stage in stages:
            unknown = set(stage.needs) - before
            if unknown:
                raise ValueError(f"{stage.name}: needs {', '.join(unknown)} before it")
            before.add(stage.name)

    def state(self, stage: Stage) -> State:
        """What became of a stage; `changed` where it was done with other inputs."""
        record = self._read(stage)
        if record is None:
            return "todo"
        if record["digest"] != self.digest(stage):
            return "changed"
        if record["state"] == "done":
            return "done" if self._is_whole(record) else "changed"
        return "begun"

    def is_ready(self, stage: Stage) -> bool:
        """Whether all that it needs is done."""
        return None not in map(self._results_digest, stage.needs)

    def digest(self, stage: Stage) -> str | None:
        """A hash of all that a stage depends on; None while that is not there."""
        needs = {name: self._results_digest(name) for name in stage.needs}
        if None in needs.values():
            return None
        inputs = [self._content(path) for path in stage.inputs]
        return _digest({"settings": stage.settings, "needs": needs, "inputs": inputs})

    def seconds(self, stage: Stage) -> float | None:
        """How long it took, over all attempts [s]; None if it is not done."""
        record = self._read(stage)
        return record["seconds"] if record and record["state"] == "done" else None

    def perform(self, stage: Stage, console: Console) -> None:
        """Do a stage, or go on with it, and note that it is done.

        Raises:
          ValueError: what it needs is not done, another process is at it, or it did
            not make what it should.
          Stopped: it was asked to stop.
        """
        if not self.is_ready(stage):
            missing = [
                name for name in stage.needs if self.state(self.stages[name]) != "done"
            ]
            raise ValueError(f"{stage.name}: do {', '.join(missing)} first")
        with self._held(stage):
            state = self.state(stage)
            if state == "done":
                return
            if state == "changed":
                self._set_aside(stage, console)
            before = self._read(stage) if state == "begun" else None
            spent = before["seconds"] if before else 0.0
            digest = self.digest(stage)
            self._write(stage, {"digest": digest, "state": "begun", "seconds": spent})
            start = time.monotonic()
            try:
                stage.run(console)
            finally:
                spent += time.monotonic() - start
                record = {"digest": digest, "state": "begun", "seconds": spent}
                self._write(stage, record)
            files = self._files(stage)
            record = {"digest": digest, "state": "done", "seconds": spent}
            self._write(stage, record | {"results": files})

    def _results_digest(self, name: str) -> str | None:
        """A hash of what a stage made; None where it is not done."""
        if name not in self._finished:
            stage = self.stages[name]
            if self.state(stage) != "done":
                return None
            results = (self._read(stage) or {})["results"]
            facts = {path: fact[2] for path, fact in results.items()}
            self._finished[name] = _digest(facts)
        return self._finished[name]

    def _files(self, stage: Stage) -> dict[str, list[Any]]:
        """Size, time and hash of each result, by its path from the records."""
        found = {}
        for pattern in stage.results:
            paths = [
                path for output in stage.outputs for path in _matching(output, pattern)
            ]
            if not paths:
                raise ValueError(
                    f"{stage.name}: made no {pattern} in "
                    f"{', '.join(map(str, stage.outputs))}"
                )
            for path in sorted(paths):
                found[os.path.relpath(path, self._folder)] = _facts(path)
        return found

    def _is_whole(self, record: Mapping[str, Any]) -> bool:
        """Whether all results are there and as they were."""
        for name, (size, time_ns, digest) in record["results"].items():
            path = self._folder / name
            if not path.is_file():
                return False
            now = path.stat()
            is_touched = (now.st_size, now.st_mtime_ns) != (size, time_ns)
            if is_touched and _hash(path) != digest:
                return False
        return True

    def _content(self, path: Path) -> str:
        """A hash of the files below a path, by content; known ones are not read."""
        if path in self._contents:
            return self._contents[path]
        memory = self._folder / "inputs.json"
        known = json.loads(memory.read_text()) if memory.is_file() else {}
        facts, is_new = {}, False
        for file in _matching(path, "**/*") if path.is_dir() else [path]:
            now, name = file.stat(), str(file.resolve())
            fact = known.get(name)
            if fact is None or fact[:2] != [now.st_size, now.st_mtime_ns]:
                fact, is_new = _facts(file), True
            facts[name] = fact
        if is_new:
            _write_json(memory, known | facts)
        self._contents[path] = _digest([fact[2] for fact in facts.values()])
        return self._contents[path]

    def _set_aside(self, stage: Stage, console: Console) -> None:
        """Move what was made of other inputs out of the way."""
        for output in stage.outputs:
            if output.exists():
                count = sum(1 for _ in output.parent.glob(f"{output.name}.before-*"))
                away = output.with_name(f"{output.name}.before-{count + 1}")
                os.replace(output, away)
                console.print(
                    f"{stage.name}: its inputs changed; what was there is now {away}",
                    markup=False,
                    soft_wrap=True,
                )

    @contextmanager
    def _held(self, stage: Stage) -> Iterator[None]:
        """Refuse a stage that another process is at."""
        with held(
            self._folder,
            doing=f"at stage {stage.name}",
            otherwise="choose another --workdir",
            name=self._path(stage).with_suffix(".lock").name,
        ):
            yield

    def _path(self, stage: Stage) -> Path:
        return self._folder / f"{stage.name.replace('/', '.')}.json"

    def _read(self, stage: Stage) -> dict[str, Any] | None:
        path = self._path(stage)
        return json.loads(path.read_text()) if path.is_file() else None

    def _write(self, stage: Stage, record: Mapping[str, Any]) -> None:
        _write_json(self._path(stage), record)


def _matching(folder: Path, pattern: str) -> list[Path]:
    if folder.is_file():
        return [folder] if folder.match(pattern) else []
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.is_file() and not path.name.startswith(".")
    )


def _write_json(path: Path, value: Any) -> None:
    streams.write_pieces(path, [json.dumps(value, indent=1).encode()])


def _facts(path: Path) -> list[Any]:
    now = path.stat()
    return [now.st_size, now.st_mtime_ns, _hash(path)]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
