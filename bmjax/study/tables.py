"""Writes the rows of a study as a LaTeX table, rounded."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax.data import streams

Row = Mapping[str, Any]
_ESCAPES = {
    **{"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$"},
    **{"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"\\": r"\textbackslash{}", "<": r"$<$", ">": r"$>$"},
}


def write_latex(
    path: Path, rows: Sequence[Row], *, columns: Mapping[str, str], caption: str
) -> Path:
    r"""Write rows as a table for `booktabs`, to be read with `\input`.

    Args:
      path: file to write.
      rows: what to show.
      columns: key in the rows, and heading.
      caption: below the table.
    """
    shape = "l" * sum(_is_text(rows, key) for key in columns)
    shape += "r" * (len(columns) - len(shape))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(caption)}}}",
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        _line(columns.values()),
        r"\midrule",
        *(_line(show(row.get(key)) for key in columns) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    streams.write_pieces(path, ["\n".join(lines).encode() + b"\n"])
    return path


def show(value: Any) -> str:
    """A value for readers: three decimals, more where those would hide it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "--"
    if math.isinf(value):
        return "inf"
    if 0 < abs(value) < 0.001:
        return f"{value:.2g}"
    return f"{value:.5f}" if 0.999 < value < 1 else f"{value:.3f}"


def escape(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"


def _is_text(rows: Sequence[Row], key: str) -> bool:
    return bool(rows) and isinstance(rows[0].get(key), str)
