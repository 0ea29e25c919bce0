"""The statistics of Luu et al. (2024) as their notebooks compute them, faults and all.

Kept so that the printed numbers can be found again. Three faults: fine-tuned and
from-scratch scores of the same cases are tested as if they were independent, and the
models pooled; `alternative="greater"` is also asked of the Hausdorff distance, where
less is better; and rows of different files are taken to be the same case, although
their order differs. `paired` and `challenging` do it right.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from bmjax.study.scores import Column, Method, Scores

Row = dict[str, Any]


def describe(scores: Scores) -> list[Row]:
    """Mean, SD with n in the denominator, 95 % CI by Student's t, and Shapiro-Wilk."""
    rows = []
    for method in scores.methods:
        for column in scores.columns:
            values = _finite(method.values[column.name])
            n, mean = len(values), values.mean() if len(values) else np.nan
            low = high = p = np.nan
            if n > 2 and np.ptp(values) > 0:
                low, high = stats.t.interval(0.95, n - 1, mean, stats.sem(values))
                p = stats.shapiro(values).pvalue
            rows.append(
                {
                    "method": method.name,
                    "column": column.name,
                    "n": n,
                    "mean": float(mean),
                    "sd": float(values.std()) if n else np.nan,
                    "ci95_low": float(low),
                    "ci95_high": float(high),
                    "shapiro_p": float(p),
                    "is_normal": bool(p > 0.05),
                }
            )
    return rows


def compare_starts(scores: Scores) -> list[Row]:
    """Mann-Whitney U, `greater`: the first start pooled over models, and the second."""
    first, second = (
        [method for method in scores.methods if method.start == start]
        for start in scores.starts
    )
    if not first or not second:
        return []
    return [_greater(first, second, scores.starts, c) for c in scores.columns]


def compare_models(scores: Scores) -> list[Row]:
    """Mann-Whitney U, `greater`: each model over each other, starts pooled."""
    by_model = {
        model: [method for method in scores.methods if method.model == model]
        for model in scores.models
    }
    return [
        _greater(by_model[first], by_model[second], (first, second), column)
        for first, second in permutations(by_model, 2)
        for column in scores.columns
    ]


def mann_whitney(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]
) -> tuple[float, float]:
    """U and the p of `first` being stochastically greater, whatever the metric."""
    found = stats.mannwhitneyu(first, second, alternative="greater")
    return float(found.statistic), float(found.pvalue)


def challenging_cases(scores: Scores) -> dict[str, int]:
    """How often each row is the worst, its id read off the first table's row.

    The first table is fine-tuned Default, where there is one. The ids are wrong as soon
    as another table has its rows in another order.
    """
    named = scores.find("default", scores.starts[0]) or scores.methods[0]
    marks = dict.fromkeys(named.cases, 0)
    for method in scores.methods:
        for column in scores.columns:
            values = method.values[column.name]
            if np.isnan(values).all():
                continue
            worst = np.nanargmin if column.is_higher_better else np.nanargmax
            row = int(worst(values))
            if row < len(named.cases):
                marks[named.cases[row]] += 1
    return dict(sorted(marks.items(), key=lambda item: (-item[1], item[0])))


def _greater(
    first: Sequence[Method],
    second: Sequence[Method],
    names: tuple[str, str],
    column: Column,
) -> Row:
    pooled = [
        _finite(np.concatenate([method.values[column.name] for method in group]))
        for group in (first, second)
    ]
    u, p = mann_whitney(pooled[0], pooled[1])
    better = "greater" if column.is_higher_better else "less"
    direction = stats.mannwhitneyu(pooled[0], pooled[1], alternative=better)
    return {
        "first": names[0],
        "second": names[1],
        "column": column.name,
        "n_first": len(pooled[0]),
        "n_second": len(pooled[1]),
        "u": u,
        "p_greater": p,
        "p_direction": float(direction.pvalue),
    }


def _finite(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    return values[np.isfinite(values)]
