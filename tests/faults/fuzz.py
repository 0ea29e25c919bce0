"""Reads damaged and odd files of every kind: a value or a clear refusal, nothing else.

    python -m tests.faults.fuzz --inputs 10000 --seed 0 --out FILE.md

For each input: a value that is sound, or a ValueError or FileNotFoundError that names
the file; at most 64 MiB of memory and 20 s. The process as a whole may take 1 GiB more
than it has at the start, so that an allocation that is not NumPy's or Python's is
noticed, too.
"""

import argparse
import os
import platform
import resource
import signal
import sys
import tempfile
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

PEAK_BYTES = 64 * 2**20
LIMIT_S = 20.0
_MORE_BYTES = 2**30
_SHOWN = 1500
REFUSALS = (ValueError, FileNotFoundError)


@contextmanager
def limits() -> Iterator[None]:
    """Fail where more memory or time is taken than a small file may ask for."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"still at it after {LIMIT_S:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert peak <= PEAK_BYTES, f"{peak / 2**20:.0f} MiB for a small file"


def outcome(read: Callable[[Path], Any], path: Path) -> Any:
    """What a file is read as; None where it is refused by an error that names it."""
    with limits(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)  # remarks on odd headers
        try:
            return read(path)
        except REFUSALS as error:
            assert path.name in str(error), f"does not name the file: {error!r}"
            return None


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with up to three of its parts replaced, dropped or repeated."""
    value = _copied(value)
    for _ in range(draw(st.integers(0, 3))):
        value = _changed_once(draw, value)
    return value


ODD = st.one_of(
    st.sampled_from(
        [
            *(None, True, -1, 0, 1.5, 10**30, -(2**63), float("nan"), float("inf")),
            *("", "x", "../../x", "os:system", "1", [], {}, [[]], [None], {"a": 1}),
        ]
    ),
    st.integers(-5, 300),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-2, 9), max_size=4),
)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _changed_once(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return _copied(draw(ODD))
    keys = list(value) if isinstance(value, dict) else [*range(len(value))]
    key, way = draw(st.sampled_from(keys)), draw(st.integers(0, 7))
    if way == 0:
        del value[key]
    elif way == 1 and isinstance(value, list):
        value.append(value[key])
    elif way == 1:
        value[draw(st.text(max_size=5))] = value[key]
    else:
        value[key] = _changed_once(draw, value[key])
    return value


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes as they are, cut short, with some flipped, or with some put in."""
    way = draw(st.integers(0, 3))
    if way == 0 or not content:
        return content
    place = draw(st.integers(0, len(content) - 1))
    if way == 1:
        return content[:place]
    other = draw(st.binary(min_size=1, max_size=8))
    skipped = len(other) if way == 2 else 0
    return content[:place] + other + content[place + skipped :]


def kinds() -> dict[str, tuple[Callable[[Any, Path], bool], st.SearchStrategy[Any]]]:
    """For each kind of file: the check of one input, and the inputs."""
    from tests.faults import fuzz_models, fuzz_scans, fuzz_tables

    return {
        "NIfTI headers and gzip streams": (fuzz_scans.check, fuzz_scans.files()),
        "manifests": (fuzz_tables.check_manifest, fuzz_tables.manifests()),
        "plans": (fuzz_tables.check_plan, fuzz_tables.plans()),
        "weight files": (fuzz_models.check_weights, fuzz_models.weight_files()),
        "bundles": (fuzz_models.check_bundle, fuzz_models.bundles()),
    }


def run(kind: str, *, inputs: int, seed: int) -> tuple[Counter[str], str | None]:
    """Try so many inputs of a kind; how they ended, and the smallest failure."""
    check, strategy = kinds()[kind]
    counts: Counter[str] = Counter()
    failure = None

    @hypothesis.seed(seed)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[*HealthCheck],
    )
    @given(content=strategy)
    def attempt(content: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            is_value = check(content, Path(folder))
        counts["read" if is_value else "refused"] += 1

    try:
        attempt()
    except ExceptionGroup as errors:
        failure = "\n".join(map(_shown, errors.exceptions))
    except Exception as error:  # whatever it is, it is the finding
        failure = _shown(error)
    return counts, failure


def _shown(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    notes = "\n".join(getattr(error, "__notes__", ()))
    return f"{text[:_SHOWN]}\n{notes[:_SHOWN]}"


def summary(found: dict[str, tuple[Counter[str], str | None]], command: str) -> str:
    """What was tried and found, as Markdown."""
    from tests.faults.torture_jobs import versions

    total = sum(counts.total() for counts, _ in found.values())
    bad = sum(failure is not None for _, failure in found.values())
    lines = [
        "# Fuzz",
        "",
        f"{total} inputs; {bad} kinds of file with a failure.",
        "",
        f"- command: `{command}`",
        f"- device: {os.cpu_count()} cores, {platform.machine()}",
        f"- versions: {versions()}, hypothesis {hypothesis.__version__}",
        f"- limits for each file: {PEAK_BYTES / 2**20:.0f} MiB, {LIMIT_S:g} s",
        "",
        "| kind | inputs | read | refused | failure |",
        "|---|---|---|---|---|",
    ]
    for kind, (counts, failure) in found.items():
        text = "none" if failure is None else failure.splitlines()[0]
        numbers = f"{counts.total()} | {counts['read']} | {counts['refused']}"
        lines.append(f"| {kind} | {numbers} | {text} |")
    return "\n".join([*lines, ""])


def main() -> int:
    """Fuzz from the command line; 1 if an input did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], help="words of kinds")
    parser.add_argument("--out", type=Path, help="Markdown file for the summary")
    args = parser.parse_args()
    wanted = [k for k in kinds() if not args.only or any(w in k for w in args.only)]
    taken = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    )
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MORE_BYTES, hard))
    found = {}
    for kind in wanted:
        share = -(-args.inputs // len(wanted))
        found[kind] = run(kind, inputs=share, seed=args.seed)
        print(f"{kind}: {dict(found[kind][0])} {found[kind][1] or ''}", flush=True)
    if args.out:
        command = f"python -m tests.faults.fuzz {' '.join(sys.argv[1:])}"
        args.out.write_text(summary(found, command))
    return int(any(failure for _, failure in found.values()))


if __name__ == "__main__":
    raise SystemExit(main())
