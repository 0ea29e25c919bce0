"""Intensities as a network expects them: nnU-Net's schemes, channel by channel."""

import numpy as np
from jaxtyping import Bool, Float

SCHEMES = ("zscore", "ct", "rescale_to_0_1", "rgb_to_0_1", "none")
_LEAST = np.float32(1e-8)  # nnU-Net's: a constant channel does not divide by zero


def normalise(
    channel: Float[np.ndarray, "z y x"],
    *,
    scheme: str,
    brain: Bool[np.ndarray, "z y x"] | None = None,
    foreground: tuple[float, float, float, float] | None = None,
) -> Float[np.ndarray, "z y x"]:
    """A channel by one of nnU-Net's schemes.

    Args:
      channel: as read.
      scheme: `zscore` gives zero mean and unit spread; `ct` clips to the foreground's
        percentiles and takes its mean and spread, the same for each case;
        `rescale_to_0_1` maps the range to 0 to 1; `rgb_to_0_1` divides by 255; `none`
        leaves it.
      brain: for `zscore`: measure and change only these voxels, which leaves the
        others as they are, 0; None: all.
      foreground: for `ct`: mean, spread, 0.5 and 99.5 percentile of the data set's
        foreground.

    Raises:
      ValueError: the scheme is unknown, or the values do not suit it.
    """
    match scheme:
        case "none":
            return channel
        case "zscore":
            return _zscore(channel, brain)
        case "ct" if foreground is not None:
            mean, std, low, high = np.array(foreground, np.float32)
            return (np.clip(channel, low, high) - mean) / max(std, _LEAST)
        case "ct":
            raise ValueError(
                "normalization 'ct' needs the intensities of the data set's "
                "foreground; plan it from a fingerprint that has them"
            )
        case "rescale_to_0_1":
            result = channel - channel.min()
            result /= max(result.max(), _LEAST)
            return result
        case "rgb_to_0_1":
            low, high = channel.min(), channel.max()
            if low < 0 or high > 255:
                raise ValueError(
                    f"values {low:g} to {high:g} where colours of 0 to 255 are "
                    "expected; choose another normalization"
                )
            return channel / np.float32(255)
    raise ValueError(f"normalization {scheme!r} is unknown; use one of {SCHEMES}")


def _zscore(
    channel: Float[np.ndarray, "z y x"], brain: Bool[np.ndarray, "z y x"] | None
) -> Float[np.ndarray, "z y x"]:
    values = channel.reshape(-1) if brain is None else channel[brain]
    mean = values.mean(dtype=np.float64)
    # in pieces, because its squares take double precision, also of an outlier
    pieces = np.array_split(values, values.size // 2**18 + 1)
    squares = sum(np.square(piece - mean, dtype=np.float64).sum() for piece in pieces)
    result = channel - np.float32(mean)
    if brain is not None:
        result[~brain] = 0
    result /= max(np.float32(np.sqrt(squares / values.size)), _LEAST)
    return result
