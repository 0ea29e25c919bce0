"""Ours and the peers in turn, each time in a fresh process, until there is a row."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import rows, suite, timing
from bmjax.__main__ import LARGE_PAGES

ROOT = Path(__file__).parents[1]
Found = dict[str, Any]  # what a worker prints


class WorkerError(RuntimeError):
    """A worker ended without a result."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a suite is run.

    Attributes:
      size: which cases.
      rounds: how often ours and the peers take turns.
      threads: cores that each process may use.
      peer_python: interpreter of the foreign peers.
      commit: what is measured.
      say: where progress goes.
    """

    size: suite.Size = "full"
    rounds: int = 3
    threads: int
    peer_python: str = sys.executable
    commit: str
    say: Callable[[str], None] = print


def python_of(peer: str, settings: Settings) -> str:
    """The interpreter that a peer runs in."""
    return settings.peer_python if suite.PEERS[peer].is_foreign else sys.executable


def absent_packages(peer: str, settings: Settings) -> list[str]:
    """Packages of a peer that its Python does not have."""
    code = (
        "import importlib.util as u, sys;"
        "print(*(p for p in sys.argv[1:] if u.find_spec(p) is None))"
    )
    command = [python_of(peer, settings), "-c", code, *suite.PEERS[peer].packages]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


def run_case(
    name: str, case: str, *, peers: Sequence[str], settings: Settings
) -> list[rows.Row]:
    """Rows of one case: one for each peer, or one without.

    Raises:
      WorkerError: ours did not end well; a peer that fails is said and left out.
    """
    impls = [suite.OURS] + [f"{p}:{s}" for p in peers for s in suite.PEERS[p].settings]
    found: dict[str, list[Found]] = {impl: [] for impl in impls}
    turns = list(found)
    with tempfile.TemporaryDirectory(prefix="bmjax-bench-") as scratch:
        for turn in range(settings.rounds):
            for impl in list(turns):
                try:
                    result = _spawn(name, case, impl, Path(scratch), settings)
                except WorkerError as error:
                    if impl == suite.OURS:
                        raise
                    settings.say(f"{name} / {case}: {error}")
                    turns.remove(impl)
                    del found[impl]
                    continue
                found[impl].append(result)
                middle = statistics.median(result["times_ms"])
                settings.say(
                    f"{name} / {case} / {impl}: {middle:.4g} ms, round {turn + 1}"
                )
            turns = _contenders(found) if turn == 0 else turns
    return make_rows(name, case, found, settings=settings)


def _contenders(found: Mapping[str, list[Found]]) -> list[str]:
    """Ours, and of each peer its default and the setting that won the first turn."""
    by_peer: dict[str, list[str]] = {}
    for impl in found:
        by_peer.setdefault(impl.partition(":")[0], []).append(impl)
    kept = []
    for impls in by_peer.values():
        fastest = min(impls, key=lambda impl: statistics.median(_times(found[impl])))
        kept += dict.fromkeys([impls[0], fastest])
    return kept


def make_rows(
    name: str, case: str, found: Mapping[str, list[Found]], *, settings: Settings
) -> list[rows.Row]:
    """Rows from what the workers printed, by implementation and round.

    Raises:
      ValueError: a peer's network has another number of parameters than ours.
    """
    ours = found[suite.OURS]
    p10, middle, p90 = timing.spread(_times(ours))
    work_gflop = ours[0]["gflop"]
    rate = work_gflop and work_gflop / middle * 1000
    roof = work_gflop and max(result["matmul_gflop_per_s"] for result in ours)
    by_peer: dict[str | None, dict[str, list[Found]]] = {}
    for impl, results in found.items():
        peer, _, setting = impl.partition(":")
        if impl != suite.OURS:
            _require_same_net(f"{name} / {case} / {impl}", ours[0], results[0])
            by_peer.setdefault(peer, {})[setting] = results
    made = []
    for peer, by_setting in (by_peer or {None: {}}).items():
        times = {s: statistics.median(_times(r)) for s, r in by_setting.items()}
        stayed = [s for s, r in by_setting.items() if len(r) == len(ours)]
        best = min(stayed, key=times.__getitem__, default=None)
        first = peer and next(iter(suite.PEERS[peer].settings))
        theirs = by_setting[best] if best else None
        made.append(
            rows.Row(
                bench=name,
                case=case,
                peer=peer,
                ratio=theirs and _ratio(ours, theirs),
                ratio_default=(
                    _ratio(ours, by_setting[first]) if first in by_setting else None
                ),
                device=ours[0]["environment"]["device"],
                median_ms=middle,
                p10_ms=p10,
                p90_ms=p90,
                n=len(_times(ours)),
                compile_cold_s=ours[0]["compile_s"],
                compile_warm_s=_warm(ours),
                peak_mib=max(result["peak_mib"] for result in ours),
                commit=settings.commit,
                peer_setting=best,
                peer_median_ms=times[best] if best else None,
                peer_settings_ms=times or None,
                peer_compile_cold_s=theirs and theirs[0]["compile_s"],
                peer_peak_mib=theirs and max(r["peak_mib"] for r in theirs),
                gflop=work_gflop,
                gflop_per_s=rate,
                matmul_gflop_per_s=roof,
                fraction_of_matmul=rate and rate / roof,
                threads=ours[0]["environment"]["threads"],
                rounds=len(ours),
                is_quick=settings.size == "quick",
                environment={
                    "ours": ours[0]["environment"],
                    **({"peer": theirs[0]["environment"]} if theirs else {}),
                },
                facts=ours[0]["facts"],
                above_bare_mib=_above_bare(ours),
                peer_above_bare_mib=(
                    min(map(_above_bare, by_setting.values())) if by_setting else None
                ),
            )
        )
    return made


def _spawn(name: str, case: str, impl: str, scratch: Path, settings: Settings) -> Found:
    """What a fresh process measures."""
    spec = suite.cases(name, settings.size)[case]
    threads = getattr(spec, "threads", None) or settings.threads
    python, extra = sys.executable, LARGE_PAGES  # as the command `bmjax` starts
    if impl != suite.OURS:
        peer, _, setting = impl.partition(":")
        python = python_of(peer, settings)
        extra = suite.PEERS[peer].settings[setting]
    cache = scratch / impl.replace(":", "-")
    inherited = {k: v for k, v in os.environ.items() if k not in LARGE_PAGES}
    environment = {
        **inherited,
        "PYTHONPATH": str(ROOT),
        **{f"{k}_NUM_THREADS": str(threads) for k in ("OMP", "MKL", "OPENBLAS")},
        # both start empty, so the first round compiles cold and the others warm
        "JAX_COMPILATION_CACHE_DIR": str(cache / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        **extra,
        **dict(getattr(spec, "environment", ())),
    }
    command = [
        *(python, "-m", "benchmarks.worker", name, case, impl),
        *("--size", settings.size, "--scratch", str(scratch)),
        *("--threads", str(threads)),
    ]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise WorkerError(f"{impl} ended with exit code {done.returncode}:\n{tail}")
    return json.loads(done.stdout.splitlines()[-1])


def _times(results: Iterable[Found]) -> list[float]:
    return [time for result in results for time in result["times_ms"]]


def _above_bare(results: Iterable[Found]) -> float:
    return max(result["above_bare_mib"] for result in results)


def _ratio(ours: list[Found], theirs: list[Found]) -> float:
    """Median over the rounds of the ratio within one, which a slow drift spares."""
    return statistics.median(
        statistics.median(a["times_ms"]) / statistics.median(b["times_ms"])
        for a, b in zip(ours, theirs, strict=True)
    )


def _warm(results: list[Found]) -> float | None:
    later = [r["compile_s"] for r in results[1:] if r["compile_s"] is not None]
    return statistics.median(later) if later else None


def _require_same_net(where: str, ours: Found, theirs: Found) -> None:
    counts = [x["facts"].get("num_params") for x in (ours, theirs)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{where}: the network has {counts[1]} parameters and ours {counts[0]}; "
            "a comparison needs the same network on both sides"
        )
