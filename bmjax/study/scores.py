"""Reads a folder of score tables: one CSV per trained model, one row per test case.

The form is that of BrainMetaSeg (Luu et al. 2024): `scores_MODEL_START.csv` with a
column `sample` and columns `METRIC_REGION`, where START says how training began
(`finetune`, `scratch`). `cases.csv` files of `bmjax evaluate`, named in the same way,
are read too.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

KEYS = ("sample", "case")
STARTS = ("finetune", "scratch")
START_NAMES = {"finetune": "fine-tuned", "scratch": "from scratch"}
MODEL_NAMES = {
    "default": "Default",
    "tverskybce": "TverskyBCE",
    "segresnet": "SegResNet",
}
REGIONS = ("ET", "TC", "WT")
# what the paper tests; the same quantities by our own names
METRICS = ("dice", "hausdorff", "hd95_surfel", "sensitivity", "specificity")
TITLES = {
    "dice": "Dice",
    "hausdorff": "HD95",  # reference: the published column holds the 95th percentile
    "hd95_surfel": "HD95",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}
_LOWER = ("hausdorff", "hd", "assd", "lesionwise_hd")
_HIGHER = (
    *("dice", "iou", "sensitivity", "specificity", "precision", "nsd"),
    *("lesionwise_dice", "rq", "sq", "pq"),
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """A number that is known of each case.

    Attributes:
      name: heading in the files.
      metric: the quantity, in lower case.
      region: what it is of.
      is_higher_better: which direction is the better one.
    """

    name: str
    metric: str
    region: str
    is_higher_better: bool

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{TITLES.get(self.metric, self.metric)} {self.region}"

    @property
    def unit(self) -> str:
        """Millimetres for distances, else nothing."""
        return "" if self.is_higher_better else " mm"


@dataclass(frozen=True, kw_only=True)
class Method:
    """The scores of one trained model on the test cases.

    Attributes:
      model: the recipe.
      start: how training began; empty where the file's name does not say.
      cases: ids in the order of the file.
      values: by column, in that order; NaN where undefined.
      facts: columns of text, such as the primary tumour, in that order.
    """

    model: str
    start: str
    cases: tuple[str, ...]
    values: Mapping[str, Float[np.ndarray, " n"]]
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As in the file's name."""
        return f"{self.model}_{self.start}" if self.start else self.model

    @property
    def title(self) -> str:
        """As people read it."""
        model = MODEL_NAMES.get(self.model, self.model)
        start = START_NAMES.get(self.start, self.start)
        return f"{model} {start}".strip()

    def at(self, column: str, cases: Sequence[str]) -> Float[np.ndarray, " n"]:
        """A column in the order of these cases."""
        row = {case: i for i, case in enumerate(self.cases)}
        return self.values[column][[row[case] for case in cases]]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The score tables of a study.

    Attributes:
      methods: in the order of their names.
      columns: those that are compared.
      starts: the two ways to begin: the one that should be better goes first.
    """

    methods: tuple[Method, ...]
    columns: tuple[Column, ...]
    starts: tuple[str, str] = STARTS

    @property
    def models(self) -> tuple[str, ...]:
        """Recipes, in the order of the methods."""
        return tuple(dict.fromkeys(method.model for method in self.methods))

    @property
    def cases(self) -> tuple[str, ...]:
        """Cases that all methods have, sorted."""
        every = [set(method.cases) for method in self.methods]
        return tuple(sorted(set.intersection(*every)))

    def find(self, model: str, start: str) -> Method | None:
        """A method, if it is there."""
        for method in self.methods:
            if (method.model, method.start) == (model, start):
                return method
        return None


def read_scores(
    folder: Path,
    *,
    metrics: Sequence[str] = METRICS,
    starts: tuple[str, str] = STARTS,
    allow_missing: bool = False,
) -> Scores:
    """Read every score table of a folder.

    Files named `scores_*.csv` are taken; if there are none, every CSV whose first line
    has `sample` or `case`.

    Args:
      folder: where the tables are.
      metrics: quantities to compare, in lower case.
      starts: endings of the files' names that are compared with each other.
      allow_missing: compare on the cases that all tables have, where they differ.

    Raises:
      FileNotFoundError: there is no such folder.
      ValueError: a table does not fit; says which, where, and what to do.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of score tables")
    files = sorted(folder.glob("scores_*.csv")) or [
        path for path in sorted(folder.glob("*.csv")) if _key(path) is not None
    ]
    if not files:
        raise ValueError(
            f"{folder}: no score table; expected scores_MODEL_START.csv, or any CSV "
            f"with a column {' or '.join(KEYS)}"
        )
    methods = tuple(read_method(path, starts=starts) for path in files)
    columns = tuple(
        column
        for column in map(column_of, methods[0].values)
        if column is not None
        and column.metric in metrics
        and all(column.name in method.values for method in methods)
    )
    if not columns:
        raise ValueError(
            f"{folder}: no column is in every table and is one of {', '.join(metrics)} "
            f"by region; {files[0].name} has {', '.join(methods[0].values)}"
        )
    scores = Scores(methods=methods, columns=_in_order(columns, metrics), starts=starts)
    _require_same_cases(scores, allow_missing=allow_missing)
    return scores


def read_method(path: Path, *, starts: tuple[str, str] = STARTS) -> Method:
    """Read one score table; a column of text is a fact, others are numbers.

    Raises:
      ValueError: it names no cases, or one twice, or has a cell that is no number.
    """
    key = _key(path)
    if key is None:
        raise ValueError(f"{path}: no column {' or '.join(KEYS)} names the cases")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file, restval=""))
    cases = tuple(row[key].removesuffix(".gz").removesuffix(".nii") for row in rows)
    repeated = sorted({case for case in cases if cases.count(case) > 1})
    if repeated:
        raise ValueError(f"{path}: {', '.join(repeated)} occurs more than once")
    if not rows:
        raise ValueError(f"{path}: has no case")
    values, facts = {}, {}
    for name in rows[0]:
        if name == key or name is None:
            continue
        cells = [row[name].strip() for row in rows]
        if column_of(name) is None and not all(map(_is_number, cells)):
            facts[name] = tuple(cells)
        else:
            values[name] = np.array(
                [_number(row[name].strip(), path, name, row[key]) for row in rows]
            )
    model, start = _named(path.stem.removeprefix("scores_"), starts)
    return Method(model=model, start=start, cases=cases, values=values, facts=facts)


def column_of(name: str) -> Column | None:
    """What a heading means; None if no direction is known for it."""
    metric, _, region = name.rpartition("_")
    metric = metric.lower()
    if metric.startswith(_LOWER):
        is_higher_better = False
    elif metric.startswith(_HIGHER):
        is_higher_better = True
    else:
        return None
    return Column(
        name=name,
        metric=metric,
        region=region.upper(),
        is_higher_better=is_higher_better,
    )


def _in_order(columns: Sequence[Column], metrics: Sequence[str]) -> tuple[Column, ...]:
    """By metric as asked for, then ET, TC, WT, then other regions."""

    def place(column: Column) -> tuple[int, int]:
        known = column.region in REGIONS
        region = REGIONS.index(column.region) if known else len(REGIONS)
        return list(metrics).index(column.metric), region

    return tuple(sorted(columns, key=place))


def _named(stem: str, starts: tuple[str, str]) -> tuple[str, str]:
    for start in starts:
        model = stem.removesuffix(f"_{start}")
        if model != stem:
            return model, start
    return stem, ""


def _key(path: Path) -> str | None:
    with path.open(newline="", encoding="utf-8-sig") as file:
        names = next(csv.reader(file), [])
    return next((key for key in KEYS if key in names), None)


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _number(cell: str, path: Path, column: str, case: str) -> float:
    if not _is_number(cell):
        raise ValueError(
            f"{path}: {column} of {case} is {cell!r}; expected a number, or nothing "
            "where it is undefined"
        )
    return float(cell) if cell else math.nan


def _require_same_cases(scores: Scores, *, allow_missing: bool) -> None:
    every = {case for method in scores.methods for case in method.cases}
    lacking = {
        method.name: sorted(every - set(method.cases))
        for method in scores.methods
        if every - set(method.cases)
    }
    if lacking and not allow_missing:
        text = "; ".join(f"{name} lacks {', '.join(c)}" for name, c in lacking.items())
        raise ValueError(
            f"the tables do not have the same cases: {text}. Predict and evaluate "
            "these, or compare on what all have with --allow-missing"
        )
    if len(scores.cases) < 3:
        raise ValueError(
            f"{len(scores.cases)} cases are in all tables; at least 3 are needed to "
            "compare anything"
        )
