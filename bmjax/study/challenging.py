"""Which test cases are hard: those that most models do worst on.

Marks as in Luu et al. (2024, section 3.2), but joined on the id of the case instead of
the row of the file.
"""

import numpy as np

from bmjax.study.scores import Scores


def mark_cases(scores: Scores) -> dict[str, int]:
    """How often each case has the worst score of a model and column; most first.

    All cases that share the worst score are marked. Undefined scores mark nobody.
    """
    cases = scores.cases
    marks = dict.fromkeys(cases, 0)
    for method in scores.methods:
        for column in scores.columns:
            values = method.at(column.name, cases)
            if np.isnan(values).all():
                continue
            worst = np.nanmin if column.is_higher_better else np.nanmax
            for case, is_worst in zip(cases, values == worst(values), strict=True):
                marks[case] += bool(is_worst)
    return dict(sorted(marks.items(), key=lambda item: (-item[1], item[0])))
