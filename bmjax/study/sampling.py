"""Does choosing lesions alike find more small ones than nnU-Net's rule? On phantoms.

python -m bmjax.study.sampling WORKDIR

Trains the demo's network on one cohort by each rule and seed, and prints sensitivity
for small lesions beside false positives, on the same held-out cases.
"""

import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bmjax.data import phantom
from bmjax.data.patches import Centring
from bmjax.preparation import prepare
from bmjax.study import demo
from bmjax.workflow import train

RULES: tuple[Centring, ...] = ("lesion", "class")
SMALL_MM3 = 100.0
REGION = "TC"  # what a metastasis is without its oedema


@dataclass(frozen=True)
class Found:
    """Detection on the held-out cases of one run.

    Attributes:
      small: small reference lesions.
      found: how many of them share a voxel with the prediction.
      false_positives: predicted components that hold no reference voxel.
      num_cases: held-out cases.
    """

    small: int
    found: int
    false_positives: int
    num_cases: int

    @property
    def sensitivity(self) -> float:
        """Fraction of the small lesions that was found."""
        return self.found / self.small if self.small else float("nan")


def read_found(validation: Path, *, region: str = REGION) -> Found:
    """What the tables of a run's validation say about small lesions."""
    with (validation / "lesions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == region]
    with (validation / "cases.csv").open(newline="") as file:
        num_cases = len(list(csv.DictReader(file)))
    lesions = [row for row in rows if row["kind"] == "reference"]
    small = [row for row in lesions if float(row["volume_mm3"]) < SMALL_MM3]
    return Found(
        small=len(small),
        found=sum(row["is_found"] == "True" for row in small),
        false_positives=len(rows) - len(lesions),
        num_cases=num_cases,
    )


def run_study(
    workdir: Path,
    *,
    scale: demo.Scale = demo.SCALES["full"],
    seeds: Sequence[int] = (0, 1, 2),
    console: Console,
) -> dict[Centring, list[Found]]:
    """Train by each rule with each seed; runs that are there are kept.

    Args:
      workdir: folder for cohort, store and runs.
      scale: of the demo; its source cohort is used.
      seeds: of the networks and their patches; the cohort is the same.
      console: where progress is shown.
    """
    cohort = replace(phantom.SOURCE, num_cases=scale.num_source)
    raw, store = workdir / "raw", workdir / "store"
    if not (raw / "manifest.csv").is_file():
        phantom.write_cohort(cohort, raw, num_workers=2)
    prepare(
        raw,
        store,
        spacing_mm=scale.spacing_mm,
        patch_size=scale.patch_size,
        batch_size=2,
    )
    held_out = tuple(cohort.case_id(i) for i in range(scale.num_source))
    held_out = held_out[-scale.num_held_out :]
    found: dict[Centring, list[Found]] = {rule: [] for rule in RULES}
    for seed in seeds:
        for rule in RULES:
            recipe = demo.experiment(scale).replace(
                {
                    "seed": seed,
                    "data.store": str(store),
                    "data.held_out": held_out,
                    "data.centring": rule,
                }
            )
            run = workdir / "runs" / f"{rule}-{seed}"
            train(recipe, workdir=run, console=console)
            found[rule].append(read_found(run / "validation"))
    return found


def summary(found: Mapping[Centring, Sequence[Found]]) -> Table:
    """Mean and standard deviation over the seeds, by rule."""
    table = Table(title=f"lesions of {REGION} below {SMALL_MM3:g} mm3")
    for name in ("rule", "lesions", "sensitivity", "false positives per case"):
        table.add_column(name)
    for rule, runs in found.items():
        table.add_row(
            rule,
            str(runs[0].small),
            _spread([run.sensitivity for run in runs]),
            _spread([run.false_positives / run.num_cases for run in runs]),
        )
    return table


def _spread(values: Sequence[float]) -> str:
    own = " ".join(f"{value:.3f}" for value in values)
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):.3f} (sd {sd:.3f}; {own})"


if __name__ == "__main__":
    console = Console(stderr=True)
    Console(width=120).print(summary(run_study(Path(sys.argv[1]), console=console)))
