"""What a verb says, and how it ends.

Results go to stdout, complaints to stderr. Exit codes: 0 done, 1 a case or the run
failed, 2 the command was not understood, 75 stopped on request with everything saved:
the same command goes on.
"""

import json
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape

OK, FAILED, USAGE, STOPPED = 0, 1, 2, 75
OTHER_WORKDIR = "choose another --workdir"

Positional = tyro.conf.Positional
AsFlags = tyro.conf.arg(name="")


def print_evaluation(evaluation: Any) -> None:
    """The scores as a table, then the cases that could not be compared."""
    from bmjax.report.terminal import evaluation_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has room for whole numbers
    console.print(evaluation_table(evaluation.to_dict()))
    for failure in evaluation.failures:
        complain(f"{failure['case']}: {failure['message']}")


def print_result(result: Any) -> None:
    """What was asked for, as text or as JSON."""
    print(result if isinstance(result, str) else json.dumps(result, indent=1))


def complain(text: str) -> None:
    """What went wrong."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[red]error:[/red] {escape(text)}"
    )
