"""The verbs that run everything: demo, study and bench."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import bmjax
from bmjax.cli.output import OK, OTHER_WORKDIR, USAGE, complain, print_result
from bmjax.locks import held


def demo(*, workdir: Path = Path("demo"), seed: int = 0, quick: bool = False) -> int:
    """Run the whole job on synthetic patients: from raw NIfTI to a report.

    Args:
      workdir: folder for everything; an interrupted demo goes on.
      seed: of the cohorts and the networks.
      quick: a few steps on a few cases, to see that all works.
    """
    from bmjax.study.demo import run_demo

    with held(workdir, doing="running the demo", otherwise=OTHER_WORKDIR):
        page = run_demo(
            workdir,
            size="quick" if quick else "full",
            seed=seed,
            console=Console(stderr=True),
        )
    print_result(str(page))
    return OK


def study(argv: Sequence[str] = ()) -> int:
    """Run a whole study, or say what its scores show; see `bmjax study --help`.

    Args:
      argv: a verb of the study, and its flags.
    """
    from bmjax.cli.studies import run  # knows much that no other verb needs

    return run(list(argv))


def bench(argv: Sequence[str] = ()) -> int:
    """Time our code beside its peers, in a checkout; see `bmjax bench --help`.

    Args:
      argv: what `python -m benchmarks` takes.
    """
    root = Path(bmjax.__file__).parents[1]
    if not (root / "benchmarks" / "__main__.py").is_file():
        complain(
            "bench: the benchmarks are not part of an installed bmjax; use one that "
            "was installed from a checkout with `pip install --editable .`"
        )
        return USAGE
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "benchmarks", *argv]
    return subprocess.run(command, env=environment, check=False).returncode
