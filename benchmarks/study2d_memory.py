"""Peak memory of the 2-D study against the number of its exams.

python -m benchmarks.study2d_memory                      20, 80 and 560 exams
python -m benchmarks.study2d_memory --exams 20 40 --size 256

Each number of exams has a process of its own, which does what `bmjax study kaur2024`
does with exams: cuts all into slices, trains an epoch on all, and measures all. The
exams are four phantoms under as many names as are wanted; the network is a small one,
since its memory does not depend on them.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bmjax import models
from bmjax.data import phantom
from bmjax.data.cases import Case, find_cases
from bmjax.study.fit2d import Program, Schedule
from bmjax.study.slices2d import CHANNELS, Slicing, write_slices

NUM_PHANTOMS = 4
COUNTS = (20, 80, 560)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line of a table for each number of exams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exams", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--size", type=int, default=64, help="of a slice [pixel]")
    parser.add_argument("--spacing-mm", type=float, default=4.0, help="of the phantoms")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.child is not None:
        print(json.dumps(measure(chosen.child, chosen.exams[0], chosen.size)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        cohort = replace(
            phantom.SOURCE,
            num_cases=NUM_PHANTOMS,
            spacing_mm=(chosen.spacing_mm,) * 3,
        )
        phantom.write_cohort(cohort, Path(folder) / "raw")
        print("| exams | slices | on disk [MB] | after cutting [MiB] | peak [MiB] |")
        print("| --- | --- | --- | --- | --- |")
        for count in chosen.exams:
            command = [sys.executable, "-m", "benchmarks.study2d_memory"]
            command += ["--child", folder, "--exams", str(count)]
            command += ["--size", str(chosen.size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found = json.loads(done.stdout)
            print(
                f"| {count} | {found['num_slices']} | {found['disk_mb']:.0f} | "
                f"{found['cut_mib']:.0f} | {found['peak_mib']:.0f} |",
                flush=True,
            )
    return 0


def measure(folder: Path, num_exams: int, size: int) -> dict[str, float]:
    """Cut, train and measure in this process, and say what it took at most."""
    known = find_cases(folder / "raw", channels=CHANNELS)
    cases: list[Case] = [
        replace(known[i % len(known)], id=f"exam-{i:04d}", patient=f"patient-{i:04d}")
        for i in range(num_exams)
    ]
    slices = folder / f"slices-{num_exams}"
    # one slice in four, as the reduced study takes them
    store = write_slices(cases, slices, Slicing(size=size, every=4))
    cut_mib = _peak_mib()
    net = models.UNet2D(num_classes=len(store.classes) + 1, features=(4, 8, 8))
    program = Program(net, store.classes, Schedule())
    ids = list(store.exams)
    size_of_batch = program.schedule.batch_size
    first = next(store.in_order(ids, batch_size=1))
    state = program.begin(first["image"], seed=0)
    batches = store.shuffled(ids, batch_size=size_of_batch, seed=0, epoch=1)
    state, _ = program.train(state, batches, seed=0)
    program.evaluate(
        state.variables, store.in_order(ids, batch_size=size_of_batch)
    ).scores()
    return {
        "num_slices": len(store.pairs(ids)),
        "disk_mb": sum(path.stat().st_size for path in slices.iterdir()) / 1e6,
        "cut_mib": cut_mib,
        "peak_mib": _peak_mib(),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
