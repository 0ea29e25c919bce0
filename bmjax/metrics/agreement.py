"""Agreement of two or more measurements of the same quantity, such as volumes."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special


@dataclass(frozen=True, kw_only=True)
class BlandAltman:
    """Differences of two measurements (Bland and Altman 1986).

    Attributes:
      n: cases.
      bias: mean of second - first.
      sd: standard deviation of the differences, n - 1 in the denominator.
      lower: lower limit of agreement, bias - 1.96 sd.
      upper: upper limit of agreement, bias + 1.96 sd.
      bias_ci95_low: lower end of the 95 % confidence interval of the bias (Student).
      bias_ci95_high: its upper end.
    """

    n: int
    bias: float
    sd: float
    lower: float
    upper: float
    bias_ci95_low: float
    bias_ci95_high: float


@dataclass(frozen=True, kw_only=True)
class Icc:
    """Intraclass correlation of single measurements and its 95 % interval.

    Attributes:
      value: the coefficient; NaN for fewer than two cases or no variance at all.
      ci95_low: lower end; NaN where cases do not differ.
      ci95_high: upper end.
    """

    value: float
    ci95_low: float
    ci95_high: float


def bland_altman(
    first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
) -> BlandAltman:
    """Bias and limits of agreement of two measurements.

    Args:
      first: one value per case, the reference or first reader.
      second: the other value of each case.
    """
    apart = second - first
    n = len(apart)
    bias = float(apart.mean()) if n else math.nan
    sd = float(apart.std(ddof=1)) if n > 1 else math.nan
    half = float(special.stdtrit(n - 1, 0.975)) * sd / math.sqrt(n) if n > 1 else sd
    return BlandAltman(
        n=n,
        bias=bias,
        sd=sd,
        lower=bias - 1.96 * sd,
        upper=bias + 1.96 * sd,
        bias_ci95_low=bias - half,
        bias_ci95_high=bias + half,
    )


def icc(ratings: Float[np.ndarray, "n k"]) -> Icc:
    """ICC(A,1) of McGraw and Wong (1996), ICC(2,1) of Shrout and Fleiss (1979).

    Two-way, absolute agreement, single measurement: a reader who always measures too
    much lowers it.

    Args:
      ratings: one row per case, one column per reader.
    """
    n, k = ratings.shape
    if n < 2 or k < 2:
        return Icc(value=math.nan, ci95_low=math.nan, ci95_high=math.nan)
    grand = ratings.mean()
    of_case, of_reader = ratings.mean(axis=1), ratings.mean(axis=0)
    rest = ratings - of_case[:, None] - of_reader[None, :] + grand
    cases = k * ((of_case - grand) ** 2).sum() / (n - 1)  # mean squares
    readers = n * ((of_reader - grand) ** 2).sum() / (k - 1)
    error = (rest**2).sum() / ((n - 1) * (k - 1))
    below = cases + (k - 1) * error + k * (readers - error) / n
    if below == 0:
        return Icc(value=math.nan, ci95_low=math.nan, ci95_high=math.nan)
    value = (cases - error) / below
    if value > 1 - 1e-12:  # the readers agree, but for rounding
        return Icc(value=1.0, ci95_low=1.0, ci95_high=1.0)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    below = (a * readers) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    if below == 0:  # equal cases, and readers who differ by a constant
        return Icc(value=float(value), ci95_low=math.nan, ci95_high=math.nan)
    freedom = (a * readers + b * error) ** 2 / below
    spread = k * readers + (k * n - k - n) * error
    upper_f, lower_f = _f_quantile(n - 1, freedom), _f_quantile(freedom, n - 1)
    low = n * (cases - upper_f * error) / (upper_f * spread + n * cases)
    high = n * (lower_f * cases - error) / (spread + n * lower_f * cases)
    return Icc(value=float(value), ci95_low=float(low), ci95_high=float(high))


def _f_quantile(numerator: float, denominator: float) -> float:
    """The 97.5 % quantile of Fisher's F, between 1 and what floats can multiply.

    Of a fraction of a degree of freedom, which Satterthwaite's approximation can give,
    it may lie outside: the interval is then as wide as it can be, or ends at the value.
    """
    return float(np.clip(special.fdtri(numerator, denominator, 0.975), 1, 1e100))
