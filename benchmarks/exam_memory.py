"""Peak memory of one large exam, from its files to its label file, beside nnU-Net's.

python -m benchmarks.exam_memory                         400 x 512 x 512, four channels
python -m benchmarks.exam_memory --size 64 96 96 --peers ''

A test of memory, not of time: the network has two stages and few features. The exam is
drawn; a ball of it is not zero, so that both sides crop alike. Each side predicts it
once, in a process of its own, with the model loaded, and skips no window.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import suite, timing
from benchmarks.bench_preprocess import Files
from benchmarks.bench_sliding import Exam
from benchmarks.driver import ROOT
from benchmarks.nets import PLAIN
from bmjax.__main__ import LARGE_PAGES

SIZE = (400, 512, 512)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line of a table for each side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=SIZE, help="z y x [vox]")
    parser.add_argument("--window", type=int, default=64, help="its side [vox]")
    parser.add_argument("--features", type=int, nargs=2, default=(8, 16))
    parser.add_argument("--peers", default="nnunet", help="'' for none")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    exam = Exam(
        files=Files(spacing_mm=(1.0, 1.0, 1.0), size=tuple(chosen.size)),
        net=replace(
            PLAIN,
            batch_size=1,
            patch_size=(chosen.window,) * 3,
            features=tuple(chosen.features),
        ),
    )
    if chosen.child:
        print(json.dumps(measure(exam, chosen.child, chosen.scratch)))
        return 0
    impls = [suite.OURS]
    if chosen.peers:
        default = next(iter(suite.PEERS[chosen.peers].settings))
        impls.append(f"{chosen.peers}:{default}")
    with tempfile.TemporaryDirectory() as scratch:
        exam.files.paths(Path(scratch))  # drawn here, not in the memory of a side
        print("| side | peak [MiB] | with the model loaded [MiB] | whole exam [s] |")
        print("| --- | --- | --- | --- |")
        for impl in impls:
            command = [sys.executable, "-m", "benchmarks.exam_memory"]
            command += ["--child", impl, "--scratch", scratch]
            command += ["--size", *map(str, chosen.size)]
            command += ["--window", str(chosen.window)]
            command += ["--features", *map(str, chosen.features)]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, cwd=ROOT, env=_env(impl)
            )
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {impl} | {found['peak_mib']:.0f} | {found['bare_mib']:.0f} | "
                f"{found['seconds']:.0f} |",
                flush=True,
            )
    return 0


def measure(exam: Exam, impl: str, scratch: Path) -> dict[str, Any]:
    """Predict the exam in this process, and say what it took at most."""
    work = suite.builder("sliding", impl)(exam, scratch=scratch)
    before_mib, bare_mib = timing.peak_mib(), timing.resident_mib()
    timing.forget_peak()
    start = perf_counter()
    work.call()
    return {
        "seconds": perf_counter() - start,
        "peak_mib": max(before_mib, timing.peak_mib()),
        "bare_mib": bare_mib,
    }


def _env(impl: str) -> dict[str, str]:
    extra = LARGE_PAGES if impl == suite.OURS else {}
    kept = {k: v for k, v in os.environ.items() if k not in LARGE_PAGES}
    return {**kept, **extra}


if __name__ == "__main__":
    sys.exit(main())
