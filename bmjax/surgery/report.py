"""What became of each tensor in a graft, for people to read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bmjax.typing import Size

Outcome = Literal["transferred", "adapted", "initialised", "unused"]
MOST_ROWS = 40
OUTCOMES: tuple[Outcome, ...] = ("transferred", "adapted", "initialised", "unused")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one tensor.

    Attributes:
      path: name such as `encoder/stage_0/block_1/conv/kernel`.
      outcome: `transferred` as it was, `adapted` on the way, left `initialised` in the
        target, or `unused` in the source.
      shape: shape in the target; in the source if unused.
      note: why, or how it was changed.
    """

    path: str
    outcome: Outcome
    shape: Size
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class GraftReport:
    """Account of a graft; `print` it.

    Attributes:
      rows: one per tensor of the target, then one per unused tensor of the source.
      remarks: what else is to be known of the two networks.
    """

    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    def paths(self, outcome: Outcome) -> tuple[str, ...]:
        """Names of the tensors with this outcome."""
        return tuple(row.path for row in self.rows if row.outcome == outcome)

    def summary(self) -> str:
        """One line of counts."""
        parts = []
        for outcome in OUTCOMES:
            shapes = [row.shape for row in self.rows if row.outcome == outcome]
            num_values = sum(int(np.prod(shape)) for shape in shapes)
            parts.append(f"{outcome} {len(shapes)} ({num_values:,} values)")
        return "tensors: " + ", ".join(parts)

    def __str__(self) -> str:
        """Table of all tensors; untouched transfers are counted by module."""
        plain = Counter(
            "/".join(row.path.split("/")[:2]) + "/..."
            for row in self.rows
            if row.outcome == "transferred" and not row.note
        )
        lines = [
            ("transferred", module, "", f"{count} tensors")
            for module, count in plain.items()
        ]
        lines += [
            (row.outcome, row.path, shape_text(row.shape), row.note)
            for outcome in OUTCOMES
            for row in self.rows
            if row.outcome == outcome and (outcome != "transferred" or row.note)
        ]
        return "\n".join([*self.remarks, *columns(lines), self.summary()])


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of text with the cells of each column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def mismatch_table(
    problems: Sequence[tuple[str, str, str]], *, head: tuple[str, str, str]
) -> str:
    """An indented table of what does not fit, its end counted where it is long."""
    shown = problems[:MOST_ROWS]
    rest = len(problems) - len(shown)
    lines = columns([head, *shown]) + ([f"... and {rest} more"] if rest else [])
    return "\n".join(f"  {line}" for line in lines)


def shape_text(shape: Size) -> str:
    """A shape as people write it, such as `3x3x3x4x32`."""
    return "x".join(str(size) for size in shape) or "scalar"
