"""Writes rows of facts as CSV files that appear only complete."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bmjax.data import streams


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows with the columns of all of them, in the order in which they appear.

    What is undefined (None, NaN, a missing column) is blank, infinity is inf, yes is 1
    and no is 0; other numbers have nine digits.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, names, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({name: _cell(v) for name, v in row.items()} for row in rows)
    streams.write_pieces(path, [text.getvalue().encode()])
    return path


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value
