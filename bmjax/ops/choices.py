"""Which algorithm computes a stride-1 convolution on a CPU, where it was timed.

Without a choice the static rule of `convolution` holds. A choice is made by whoever
traces the program, and is part of what is traced; so the same choices give the same
bytes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, get_args

from bmjax.typing import Size

ALGORITHMS = ("slabs", "slabs winograd", "taps", "taps winograd")
Part = Literal["forward", "input gradient", "kernel gradient"]
PARTS: tuple[Part, ...] = get_args(Part)

Choices = tuple[tuple[str, str], ...]


@dataclass(frozen=True, order=True)
class Call:
    """Shapes of one convolution.

    Attributes:
      image: batch, space, channels.
      kernel: space, input channels, output channels.
    """

    image: Size
    kernel: Size

    @property
    def size(self) -> Size:
        """Of the kernel [vox]."""
        return self.kernel[:-2]

    def name(self, part: Part) -> str:
        """Such as `64x64x64 b2 32>64 3x3x3 forward`."""
        image, kernel = ("x".join(map(str, n)) for n in (self.image[1:-1], self.size))
        batch, (channels, features) = self.image[0], self.kernel[-2:]
        return f"{image} b{batch} {channels}>{features} {kernel} {part}"


@dataclass(frozen=True)
class Chosen:
    """The algorithm of each part of one convolution; None is the static rule."""

    forward: str | None = None
    input_gradient: str | None = None
    kernel_gradient: str | None = None


_NONE: Mapping[str, str] = {}
_chosen: ContextVar[Mapping[str, str]] = ContextVar("chosen", default=_NONE)
_noted: ContextVar[set[Call] | None] = ContextVar("noted", default=None)


@contextmanager
def using(choices: Choices) -> Iterator[None]:
    """Compute by these algorithms what is traced meanwhile.

    Args:
      choices: names of convolutions (`Call.name`) and their algorithms.

    Raises:
      ValueError: there is no such algorithm.
    """
    unknown = sorted({algorithm for _, algorithm in choices} - set(ALGORITHMS))
    if unknown:
        raise ValueError(
            f"no algorithm of convolution is called {', '.join(unknown)}; there are "
            f"{', '.join(ALGORITHMS)}"
        )
    token = _chosen.set(dict(choices))
    try:
        yield
    finally:
        _chosen.reset(token)


@contextmanager
def noting() -> Iterator[set[Call]]:
    """Collect the convolutions traced meanwhile for which there is a choice."""
    calls: set[Call] = set()
    token = _noted.set(calls)
    try:
        yield calls
    finally:
        _noted.reset(token)


def note(call: Call) -> None:
    """Add a convolution to those that are collected, if they are."""
    calls = _noted.get()
    if calls is not None:
        calls.add(call)


def of(call: Call) -> Chosen:
    """What was chosen for a convolution."""
    chosen = _chosen.get()
    return (
        Chosen(*(chosen.get(call.name(part)) for part in PARTS)) if chosen else Chosen()
    )
