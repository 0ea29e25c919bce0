"""How a piece of work is timed, and what is said about the machine that did it."""

import os
import platform
import re
import resource
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")
PACKAGES = (
    *("jax", "jaxlib", "flax", "numpy", "scipy", "torch", "monai"),
    *("dynamic-network-architectures", "nnunetv2"),
    *("surface-distance", "panoptica", "brats-evaluation"),
)
SETTINGS = (
    *("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"),
    *("XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION", "NVIDIA_TF32_OVERRIDE"),
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something to time, ready to go.

    Attributes:
      call: does it once and returns when it is done, not when it is enqueued.
      before: puts things in order before each call; not timed.
      compile_s: what compiling it took, from tracing on [s].
      gflop: arithmetic of one call.
      facts: what else is to be known of it, for JSON.
    """

    call: Callable[[], object]
    before: Callable[[], object] | None = None
    compile_s: float | None = None
    gflop: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How often a work is called in one process, after one call to warm up.

    Attributes:
      at_least: calls, unless they take longer than `at_most_s`.
      at_most: calls.
      budget_s: no further call once so much was spent, if there were enough.
      at_most_s: no further call once so much was spent.
    """

    at_least: int = 3
    at_most: int = 50
    budget_s: float = 5.0
    at_most_s: float = 60.0


ONCE = Limits(at_least=1, at_most=1)


def times_ms(work: Work, limits: Limits) -> list[float]:
    """Wall time of each call after the first one [ms]."""
    _timed_ms(work)
    times = [_timed_ms(work)]
    while len(times) < limits.at_most:
        is_enough = len(times) >= limits.at_least
        spent_s = sum(times) / 1000
        if spent_s >= (limits.budget_s if is_enough else limits.at_most_s):
            break
        times.append(_timed_ms(work))
    return times


def _timed_ms(work: Work) -> float:
    if work.before is not None:
        work.before()
    start = perf_counter()
    work.call()
    return 1000 * (perf_counter() - start)


def quantile(values: list[float], p: float) -> float:
    """The value below which a share `p` of them lies, interpolated."""
    ordered = sorted(values)
    place = p * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(values: list[float]) -> tuple[float, float, float]:
    """Tenth percentile, median, ninetieth percentile."""
    return quantile(values, 0.1), statistics.median(values), quantile(values, 0.9)


def peak_mib() -> float:
    """Largest resident memory of this process so far [MiB]."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the parent before exec too
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        if found:
            return int(found[1]) / 1024
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def resident_mib() -> float:
    """Resident memory of this process now [MiB]; its peak where that is not known."""
    status = Path("/proc/self/status")
    found = re.search(
        r"VmRSS:\s+(\d+) kB", status.read_text() if status.is_file() else ""
    )
    return int(found[1]) / 1024 if found else peak_mib()


def forget_peak() -> None:
    """Let `peak_mib` begin anew from what is resident now, where the system can."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def num_threads() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Device, versions and settings of this process; nothing that names a machine."""
    return {
        "device": _accelerator() or cpu(),
        "cpu": cpu(),
        "threads": num_threads(),
        "settings": {k: os.environ[k] for k in SETTINGS if os.environ.get(k)},
        "versions": {"python": platform.python_version(), **_versions()},
    }


def cpu() -> str:
    """Model of the processor and those of its features that matter here."""
    facts = Path("/proc/cpuinfo")
    text = facts.read_text() if facts.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    has = set(flags[1].split()) if flags else set()
    name = " ".join(model[1].split()) if model else platform.machine()
    features = " ".join(f for f in CPU_FEATURES if f in has)
    return f"{name} ({features})" if features else name


def _accelerator() -> str | None:
    """The GPU that the libraries loaded here compute on, if any."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        return sys.modules["torch"].cuda.get_device_name()
    if "jax" in sys.modules:
        first = sys.modules["jax"].devices()[0]
        return None if first.platform == "cpu" else first.device_kind
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
