"""Ranks methods as the BraTS challenges do: by case and score, then on average."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from bmjax.study.scores import Scores

RULE = (
    "For each case and each score the methods are ranked, the best first, ties sharing "
    "the mean of their ranks and an undefined score being the last; a method's rank is "
    "the mean over cases and scores."
)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A method and its place.

    Attributes:
      index: in `scores.methods`.
      name: of the method.
      mean_rank: 1 is the best that is possible.
    """

    index: int
    name: str
    mean_rank: float


def rank_methods(scores: Scores) -> list[Ranked]:
    """The methods, best mean rank first; see `RULE`."""
    cases, ranks = scores.cases, []
    for column in scores.columns:
        table = np.array([m.at(column.name, cases) for m in scores.methods])  # m n
        worse = table if not column.is_higher_better else -table
        ranks.append(stats.rankdata(np.nan_to_num(worse, nan=np.inf), axis=0))
    mean = np.concatenate(ranks, axis=1).mean(1)
    order = sorted(range(len(mean)), key=lambda i: (mean[i], scores.methods[i].name))
    return [
        Ranked(index=i, name=scores.methods[i].name, mean_rank=float(mean[i]))
        for i in order
    ]
