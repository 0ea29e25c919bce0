"""Label values are whole numbers, however a file stores them."""

from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Integer, Shaped

from bmjax.data.streams import fault


def whole_numbers(
    values: Shaped[np.ndarray, "*s"], path: str | Path
) -> Integer[np.ndarray, "*s"]:
    """Label values as int16, or int32 where they do not fit."""
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low < -(2**31) or high >= 2**31:
        raise fault(path, f"label values {low} to {high}", "use labels below 2**31")
    # NaN fails each comparison, and is found below
    is_wide = low < -(2**15) or high >= 2**15 - 0.5
    labels = np.empty(values.shape, np.int32 if is_wide else np.int16)
    odd: Counter[float] = Counter()
    for part, out in zip(values, labels, strict=True):  # a slice needs little memory
        if values.dtype.kind == "f":
            with np.errstate(invalid="ignore"):
                rounded = np.rint(part)
                is_odd = ~(np.abs(part - rounded) <= 1e-3)
                odd.update(part[is_odd].tolist())
                out[...] = rounded
        else:
            out[...] = part
    if odd:
        some = ", ".join(f"{value:g}" for value in sorted(odd)[:5])
        raise fault(
            path,
            f"{odd.total()} label values are no integers ({some})",
            "store the label map with nearest-neighbour values",
        )
    return labels
