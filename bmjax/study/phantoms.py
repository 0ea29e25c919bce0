"""Draws the two phantom cohorts on which the transfer study can be tried out.

python -m bmjax.study.phantoms DIR [NUM_SOURCE [NUM_TARGET]]

DIR/source and DIR/target differ in spacing, contrast, noise and lesions, as BraTS-METS
and a small private set do; see `data.phantom`.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bmjax.console import ticking
from bmjax.data import phantom

NUM_SOURCE = 40
NUM_TARGET = 16


def draw_cohorts(
    folder: Path,
    *,
    num_source: int = NUM_SOURCE,
    num_target: int = NUM_TARGET,
    spacing_mm: tuple[float, float, float] | None = None,
    console: Console,
) -> None:
    """Draw both cohorts, where they are not there yet.

    Args:
      folder: for `source` and `target`.
      num_source: cases of the source.
      num_target: cases of the target.
      spacing_mm: of the source, and half as much again of the target's slices; None:
        as the cohorts have it.
      console: where progress is shown.
    """
    source = replace(phantom.SOURCE, num_cases=num_source)
    target = replace(phantom.TARGET, num_cases=num_target)
    if spacing_mm is not None:
        z, y, x = spacing_mm
        source = replace(source, spacing_mm=spacing_mm)
        target = replace(target, spacing_mm=(1.5 * z, y, x))
    for name, cohort in (("source", source), ("target", target)):
        if (folder / name / "manifest.csv").is_file():
            continue
        with ticking(console, f"drawing the {name}") as tick:
            phantom.write_cohort(cohort, folder / name, progress=tick, num_workers=2)


def main(argv: Sequence[str]) -> None:
    """Draw them into the folder that is given."""
    folder, *numbers = argv
    counts = dict(zip(("num_source", "num_target"), map(int, numbers), strict=False))
    draw_cohorts(Path(folder), **counts, console=Console(stderr=True))


if __name__ == "__main__":
    main(sys.argv[1:])
