"""Several models on the same cases: what is the case's share, and what the start's.

Scores of several models on one case are not independent, so pooling them as if they
were makes n look larger than it is. The model here is linear with a fixed mean for each
method, and for each case a random level and a random effect of the start (the largest
structure that the design allows: Barr et al. 2013). For complete tables its estimates
have a closed form: the start's effect is the mean over cases of the gain averaged over
models, with Student's t over cases; the variances are those of a two-way table.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from bmjax.study.scores import Column, Scores


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """All models together.

    Attributes:
      n: cases; the number of independent observations.
      num_models: models that have both starts.
      gain: mean over cases and models, positive where the first start is better.
      ci95_low: by Student's t over cases.
      ci95_high: by Student's t over cases.
      p: two-sided, by Student's t over cases.
      sd_case: spread of the cases' levels.
      sd_rest: spread of what neither case nor method explains.
      case_share: part of the variance that is the case's (intraclass correlation).
    """

    n: int
    num_models: int
    gain: float
    ci95_low: float
    ci95_high: float
    p: float
    sd_case: float
    sd_rest: float
    case_share: float


def mix(scores: Scores, column: Column) -> Mixed | None:
    """The effect of the start on one column, all models together.

    None where fewer than two models have both starts, or fewer than three cases have
    finite scores in all of them.
    """
    pairs = [
        (first, second)
        for model in scores.models
        if (first := scores.find(model, scores.starts[0])) is not None
        and (second := scores.find(model, scores.starts[1])) is not None
    ]
    if len(pairs) < 2:
        return None
    table = np.array(
        [[m.at(column.name, scores.cases) for m in pair] for pair in pairs]
    )  # model start n
    table = table[:, :, np.isfinite(table).all((0, 1))]
    if table.shape[-1] < 3:
        return None
    return mix_table(table, is_higher_better=column.is_higher_better)


def mix_table(
    table: Float[np.ndarray, "model start n"], *, is_higher_better: bool
) -> Mixed:
    """The same, from a complete table of finite scores."""
    num_models, num_starts, n = table.shape
    sign = 1.0 if is_higher_better else -1.0
    gains = sign * (table[:, 0] - table[:, 1]).mean(0)  # n
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / math.sqrt(n))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    if error > 0:
        p = float(2 * stats.t.sf(abs(gain) / error, n - 1))
    else:
        p = 1.0 if gain == 0 else 0.0
    cells = table.reshape(num_models * num_starts, n)
    centred = cells - cells.mean(1, keepdims=True)
    levels = centred.mean(0)
    k = len(cells)
    mean_square_case = k * (levels**2).sum() / (n - 1)
    mean_square_rest = ((centred - levels) ** 2).sum() / ((n - 1) * (k - 1))
    variance = max(0.0, float(mean_square_case - mean_square_rest) / k)
    total = variance + float(mean_square_rest)
    return Mixed(
        n=n,
        num_models=num_models,
        gain=gain,
        ci95_low=gain - half,
        ci95_high=gain + half,
        p=p,
        sd_case=math.sqrt(variance),
        sd_rest=math.sqrt(mean_square_rest),
        case_share=variance / total if total > 0 else math.nan,
    )
