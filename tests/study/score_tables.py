"""Score tables for tests."""

from pathlib import Path

import numpy as np

from bmjax.study.scores import Method, Scores, column_of

NAMES = ("DICE_wt", "Hausdorff_wt")


def method(model, start, values, *, cases=None):
    """A method whose Dice is `values` and whose distance is 10 minus them."""
    values = np.asarray(values, np.float64)
    cases = cases or tuple(f"case-{i:02d}" for i in range(len(values)))
    columns = {"DICE_wt": values, "Hausdorff_wt": 10 - values}
    return Method(model=model, start=start, cases=tuple(cases), values=columns)


def scores(*methods):
    return Scores(methods=methods, columns=tuple(map(column_of, NAMES)))


def write(folder: Path, name: str, rows: dict[str, float]) -> None:
    lines = [f"{case},{dice},{10 - dice}" for case, dice in rows.items()]
    text = "\n".join(["sample,DICE_wt,Hausdorff_wt", *lines])
    (folder / f"scores_{name}.csv").write_text(text + "\n")
