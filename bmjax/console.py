"""What a person sees while something runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

Tick = Callable[..., None]


@contextmanager
def ticking(console: Console, title: str) -> Iterator[Tick]:
    """A progress bar with time left, as a callback `tick(done, total, text="")`.

    Args:
      console: where it is drawn; where it is no terminal, the title is printed once.
      title: what runs.
    """
    if not console.is_terminal:
        console.print(title)
    bar = Progress(
        "[bold]{task.description}",
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        "{task.fields[text]}",
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(title, total=None, text="")
        yield lambda done, total, text="": bar.update(
            task, completed=done, total=total, text=text
        )
