"""The confidence interval of a share, such as that of lesions found."""

import math

Z95 = 1.959963984540054  # standard normal quantile at 0.975


def wilson(num_found: int, num: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson 1927, without correction).

    It takes the lesions as independent, which those of one patient are not quite; it is
    then somewhat narrow. Undefined (NaN) where there is nothing to be found.

    Args:
      num_found: how many were found.
      num: of how many.

    Raises:
      ValueError: more were found than there are, or a count is negative.
    """
    if not 0 <= num_found <= num:
        raise ValueError(f"{num_found} found of {num}: expected 0 to {num}")
    if not num:
        return math.nan, math.nan
    share, weight = num_found / num, Z95**2 / num
    middle = (share + weight / 2) / (1 + weight)
    half = Z95 / (1 + weight)
    half *= math.sqrt(share * (1 - share) / num + weight / (4 * num))
    return max(0.0, middle - half), min(1.0, middle + half)
