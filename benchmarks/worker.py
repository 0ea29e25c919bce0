"""One case by one implementation, in this process: `python -m benchmarks.worker ...`.

Prints what it measured as the last line of stdout, in JSON.
"""

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks import suite, timing


def measure(
    name: str, case: str, impl: str, *, size: suite.Size, scratch: Path
) -> dict[str, Any]:
    """Build the work, time it, and say where that was.

    Args:
      name: of the benchmark.
      case: its name.
      impl: `bmjax`, or `peer:setting`.
      size: which of the benchmark's cases.
      scratch: folder that this case may fill; the same one in each round.
    """
    is_quick = size == "quick"
    work = suite.builder(name, impl)(suite.cases(name, size)[case], scratch=scratch)
    before_mib, bare_mib = timing.peak_mib(), timing.resident_mib()
    timing.forget_peak()
    times_ms = timing.times_ms(work, timing.ONCE if is_quick else timing.Limits())
    peak_mib = timing.peak_mib()
    matmul = None
    if impl == suite.OURS and work.gflop is not None:
        from benchmarks.programs import matmul_gflop_per_s

        matmul = matmul_gflop_per_s(is_quick=is_quick)
    return {
        "times_ms": times_ms,
        "compile_s": work.compile_s,
        "peak_mib": max(before_mib, peak_mib),
        "above_bare_mib": peak_mib - bare_mib,
        "gflop": work.gflop,
        "matmul_gflop_per_s": matmul,
        "facts": dict(work.facts),
        "environment": timing.environment(),
    }


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("name")
    parser.add_argument("case")
    parser.add_argument("impl")
    parser.add_argument("--size", default="full")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads and hasattr(os, "sched_setaffinity"):
        # before any library counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    with redirect_stdout(sys.stderr):
        found = measure(
            args.name, args.case, args.impl, size=args.size, scratch=args.scratch
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
