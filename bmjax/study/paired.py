"""Compares two methods on the same cases: paired, direction-aware, corrected, in words.

A gain is positive where the first method is better, whatever the direction of the
metric. Test: Wilcoxon's signed ranks (1945), two-sided, exact for few cases.
Correction: Holm (1979). Effects: mean gain with a bootstrap interval (BCa, Efron 1987)
and the matched-pairs rank-biserial correlation (Kerby 2014), -1 to 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

NUM_RESAMPLES = 4999
ALPHA = 0.05
_DIGITS = 12  # differences that differ by rounding alone are ties


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What two methods differ by, over the cases that both have.

    Attributes:
      n: cases in which both scores are defined.
      num_better: cases in which the first is better.
      num_worse: cases in which it is worse.
      num_infinite: cases with an infinite distance; they are in the ranks alone.
      mean_first: mean of the first.
      mean_second: mean of the second.
      gain: mean gain.
      ci95_low: of the mean gain.
      ci95_high: of the mean gain.
      rank_biserial: share of the ranks in favour minus share against.
      rank_biserial_low: its 95 % interval.
      rank_biserial_high: its 95 % interval.
      p: two-sided.
      p_better: one-sided, that the first is better.
      smallest_p: what p would be if every case favoured one method.
      detectable: true mean gain that so many cases with this spread would find four
        times in five, by the paired t-test.
      p_holm: corrected for all tests of the family; NaN before.
      num_tests: in the family.
    """

    n: int
    num_better: int
    num_worse: int
    num_infinite: int
    mean_first: float
    mean_second: float
    gain: float
    ci95_low: float
    ci95_high: float
    rank_biserial: float
    rank_biserial_low: float
    rank_biserial_high: float
    p: float
    p_better: float
    smallest_p: float
    detectable: float
    p_holm: float = math.nan
    num_tests: int = 1


def compare(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    *,
    is_higher_better: bool,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Paired:
    """Compare the scores of two methods, case by case.

    Args:
      first: scores of the first method; NaN where undefined.
      second: of the second, in the same order of cases.
      is_higher_better: direction of the metric.
      seed: of the bootstrap.
      num_resamples: of the bootstrap.
    """
    is_there = ~(np.isnan(first) | np.isnan(second))
    first, second = first[is_there], second[is_there]
    gains = _gains(first, second, is_higher_better=is_higher_better)
    finite = gains[np.isfinite(gains)]
    ranked = _finite_ranks(gains)
    p, p_better = signed_rank_p(ranked)
    low, high = _mean_interval(finite, seed, num_resamples)
    effect = rank_biserial(ranked)
    r_low, r_high = _rank_biserial_interval(ranked, seed, num_resamples)
    return Paired(
        n=len(gains),
        num_better=int((gains > 0).sum()),
        num_worse=int((gains < 0).sum()),
        num_infinite=int((~np.isfinite(first) | ~np.isfinite(second)).sum()),
        mean_first=_mean(first),
        mean_second=_mean(second),
        gain=_mean(gains),
        ci95_low=low,
        ci95_high=high,
        rank_biserial=effect,
        rank_biserial_low=r_low,
        rank_biserial_high=r_high,
        p=p,
        p_better=p_better,
        smallest_p=min(1.0, 2.0 ** (1 - len(gains))),
        detectable=detectable_gain(finite),
    )


def signed_rank_p(gains: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Two-sided p of Wilcoxon's signed ranks, and the p of gains above zero.

    Gains of zero are left out, as Wilcoxon did.
    """
    kept = gains[gains != 0]
    if not len(kept):
        return 1.0, 1.0
    both: Any = stats.wilcoxon(kept, alternative="two-sided")
    better: Any = stats.wilcoxon(kept, alternative="greater")
    return float(both.pvalue), float(better.pvalue)


def rank_biserial(gains: Float[np.ndarray, " n"]) -> float:
    """Share of the signed ranks in favour minus share against; 0 if all are zero."""
    return float(_rank_biserial_rows(gains[None, :])[0])


def holm(values: Sequence[float]) -> list[float]:
    """Holm's corrected p of each test of a family; NaN is no test."""
    p = np.asarray(values, np.float64)
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p[i]))
        corrected[i] = largest
    return corrected.tolist()


def corrected(family: Sequence[Paired]) -> list[Paired]:
    """The comparisons of one family, each with its corrected p."""
    p_values = holm([found.p for found in family])
    return [
        replace(found, p_holm=p, num_tests=len(family))
        for found, p in zip(family, p_values, strict=True)
    ]


def detectable_gain(
    gains: Float[np.ndarray, " n"], *, power: float = 0.8, alpha: float = ALPHA
) -> float:
    """True mean gain that the paired t-test would find with this power."""
    n = len(gains)
    if n < 2:
        return math.nan
    quantiles = stats.t.ppf(1 - alpha / 2, n - 1) + stats.t.ppf(power, n - 1)
    return float(quantiles * gains.std(ddof=1) / math.sqrt(n))


def conclude(found: Paired, *, digits: int = 3, unit: str = "") -> str:
    """What this comparison shows and what it does not, in plain words."""
    if found.n < 3 or math.isnan(found.ci95_low):
        return f"Nothing can be said: the scores are defined in {found.n} cases."

    def text(value: float) -> str:
        return f"{value:+.{digits}f}{unit}".replace("-", "\N{MINUS SIGN}")

    facts = (
        f"mean gain {text(found.gain)} (95 % CI {text(found.ci95_low)} to "
        f"{text(found.ci95_high)}) over {found.n} cases, better in "
        f"{found.num_better}, worse in {found.num_worse}; p {p_text(found.p)}, "
        f"{p_text(found.p_holm)} after correction for {found.num_tests} tests."
    )
    if found.num_infinite:
        facts += (
            f" {found.num_infinite} cases have an infinite distance: they are in the "
            "ranks, not in the means."
        )
    word = "better" if found.rank_biserial > 0 else "worse"
    if found.p_holm < ALPHA:
        return f"The first is {word}, also after correction: {facts}"
    lack = ""
    if found.smallest_p * found.num_tests >= ALPHA:
        lack = (
            f" With {found.n} cases p cannot be below {p_text(found.smallest_p)}, so "
            f"that at first rank among {found.num_tests} tests nothing can pass the "
            "correction: ask fewer questions or test more cases."
        )
    if found.p < ALPHA:
        return (
            f"Hardly shown: the first would be {word} if nothing else had been asked, "
            f"not after correction: {facts}{lack}"
        )
    return (
        f"No difference is shown, and equality is not shown either: {facts} So many "
        f"cases find a true mean gain of {found.detectable:.{digits}f}{unit} four "
        f"times in five, and seldom a smaller one.{lack}"
    )


def p_text(p: float) -> str:
    """A p value as papers print it."""
    if math.isnan(p):
        return "undefined"
    if p < 0.0001:
        return "< .0001"
    digits = 4 if p < 0.01 else 3
    return f"{p:.{digits}f}".lstrip("0") if p < 1 else "1"


def _gains(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    *,
    is_higher_better: bool,
) -> Float[np.ndarray, " n"]:
    better, worse = (first, second) if is_higher_better else (second, first)
    gains = np.zeros(len(first))
    differ = better != worse  # two infinite distances are equal
    gains[differ] = better[differ] - worse[differ]
    return np.round(gains, _DIGITS)


def _finite_ranks(gains: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Gains with infinite ones just beyond the largest finite one: the same ranks."""
    is_finite = np.isfinite(gains)
    beyond = 1 + np.abs(gains[is_finite]).max(initial=0.0)
    return np.where(is_finite, gains, np.sign(gains) * beyond)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _mean_interval(
    gains: Float[np.ndarray, " n"], seed: int, num_resamples: int
) -> tuple[float, float]:
    if len(gains) < 3:
        return math.nan, math.nan
    if np.ptp(gains) == 0:
        return float(gains[0]), float(gains[0])
    interval = stats.bootstrap(
        (gains,),
        np.mean,
        n_resamples=num_resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _rank_biserial_interval(
    gains: Float[np.ndarray, " n"], seed: int, num_resamples: int
) -> tuple[float, float]:
    """By percentiles: BCa is undefined where all ranks have one sign."""
    n = len(gains)
    if n < 3:
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(n, size=(num_resamples, n))
    low, high = np.quantile(_rank_biserial_rows(gains[drawn]), (0.025, 0.975))
    return float(low), float(high)


def _rank_biserial_rows(
    gains: Float[np.ndarray, "b n"],
) -> Float[np.ndarray, " b"]:
    ranks = stats.rankdata(np.abs(gains), axis=1) * (gains != 0)
    # ranks start at 1 above the zeros
    ranks = ranks - (gains == 0).sum(1, keepdims=True) * (gains != 0)
    total = ranks.sum(1)
    signed = (ranks * np.sign(gains)).sum(1)
    return np.divide(signed, total, out=np.zeros(len(gains)), where=total > 0)
