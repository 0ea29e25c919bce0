"""The row: what one measurement leaves behind, one line of JSON in results/."""

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One case of one benchmark, ours beside one peer or alone.

    Attributes:
      bench: name of the benchmark.
      case: name of the case.
      impl: always `bmjax`.
      peer: who did the same work; None if nobody.
      ratio: our time over the peer's, with its best setting.
      ratio_default: the same with the peer's first setting, what a user gets.
      device: GPU, or CPU with its features.
      median_ms: ours, over all calls of all rounds.
      p10_ms: tenth percentile.
      p90_ms: ninetieth percentile.
      n: calls timed.
      compile_cold_s: trace to executable, with an empty cache.
      compile_warm_s: the same with the cache filled.
      peak_mib: largest resident memory of the process.
      commit: of the checkout; `+` if it was changed since.
      peer_setting: the peer's best setting.
      peer_median_ms: the peer's time with it.
      peer_settings_ms: the peer's time with each of its settings.
      peer_compile_cold_s: the peer's first compilation.
      peer_peak_mib: the peer's memory.
      gflop: arithmetic of one call.
      gflop_per_s: its rate.
      matmul_gflop_per_s: rate of a large float32 matrix product in the same process.
      fraction_of_matmul: the first over the second.
      threads: cores the process could use.
      rounds: how often ours and peers took turns, a fresh process each time.
      is_quick: tiny sizes that only show that the script works.
      environment: versions and settings of ours and of the peer.
      facts: what only this benchmark knows.
      above_bare_mib: memory that the work took above that of the process when all was
        loaded and made ready.
      peer_above_bare_mib: the same of the peer, with its thriftiest setting.
    """

    bench: str
    case: str
    impl: str = "bmjax"
    peer: str | None
    ratio: float | None
    ratio_default: float | None
    device: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    n: int
    compile_cold_s: float | None
    compile_warm_s: float | None
    peak_mib: float
    commit: str
    peer_setting: str | None
    peer_median_ms: float | None
    peer_settings_ms: dict[str, float] | None
    peer_compile_cold_s: float | None
    peer_peak_mib: float | None
    gflop: float | None
    gflop_per_s: float | None
    matmul_gflop_per_s: float | None
    fraction_of_matmul: float | None
    threads: int
    rounds: int
    is_quick: bool
    environment: dict[str, Any]
    facts: dict[str, Any]
    above_bare_mib: float | None = None
    peer_above_bare_mib: float | None = None

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not isinstance(value, _allowed(kind)):
                raise ValueError(
                    f"row {self.bench}/{self.case}: {name} is {value!r}, "
                    f"expected {kind}"
                )

    def to_json(self) -> str:
        """One line, numbers to four digits."""
        return json.dumps(_rounded(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, line: str) -> "Row":
        """The row that `to_json` wrote."""
        return cls(**json.loads(line))


def append(rows: Iterable[Row], folder: Path = RESULTS) -> None:
    """Add rows to the file of their device."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        with (folder / f"{slug(row.device)}.jsonl").open("a") as file:
            file.write(row.to_json() + "\n")


def read(folder: Path = RESULTS) -> Iterator[Row]:
    """All rows of all devices, oldest first for each."""
    for path in sorted(folder.glob("*.jsonl")):
        yield from map(Row.from_json, path.read_text().splitlines())


def slug(text: str) -> str:
    """A name for a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _allowed(kind: Any) -> tuple[type, ...]:
    """Classes of a type hint; a whole number is a fine float."""
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    classes = tuple(typing.get_origin(part) or part for part in parts)
    return (*classes, int) if float in classes else classes


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value
