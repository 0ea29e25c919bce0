"""Where windows lie in a volume, and the weights of their voxels.

nnU-Net spreads windows evenly from end to end; MONAI steps by a fixed distance and
shifts the last window back. Both weight by a Gaussian of an eighth of a window.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from bmjax.typing import Size

Convention = Literal["nnunet", "monai"]
Flips = Literal["none", "all"]
Box = tuple[slice, ...]
SIGMA = 1 / 8  # of the Gaussian, in windows
_MONAI_LEAST = 1e-3  # MONAI: compute_importance_map


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """How a volume is covered by windows.

    Attributes:
      overlap: share of a window that its neighbour covers again, 0 to below 1.
      flips: average over all mirrored copies of a window ("all"), or none.
      batch_size: windows that a device computes together.
      convention: whose grid and whose weights.
      empty: windows in which no channel varies, such as those outside the brain, pass
        the network once for all that are alike, or each for itself; the logits are the
        same to rounding.
    """

    overlap: float = 0.5
    flips: Flips = "none"
    batch_size: int = 1
    convention: Convention = "nnunet"
    empty: Literal["once", "each"] = "once"

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def num_mirrors(self, window: Size) -> int:
        """Passes of each window through a network."""
        return 2 ** len(window) if self.flips == "all" else 1


def window_starts(
    size: Size,
    window: Size,
    *,
    overlap: float = 0.5,
    convention: Convention = "nnunet",
) -> tuple[tuple[int, ...], ...]:
    """First voxel of the windows along each axis, from end to end.

    Args:
      size: of the volume, at least the window's [vox].
      window: size of a window [vox].
      overlap: least share of a window that its neighbour covers again.
      convention: `nnunet` spreads the windows evenly, `monai` shifts the last one.
    """
    starts = []
    for length, width in zip(size, window, strict=True):
        if length < width:
            raise ValueError(f"volume {size} is smaller than the window {window}")
        if convention == "monai":
            step = max(int(width * (1 - overlap)), 1)
            count = ceil((length - width) / step) + 1
            starts.append(tuple(min(step * i, length - width) for i in range(count)))
            continue
        # the distance as nnU-Net writes it: window * (1 - overlap)
        count = ceil((length - width) / (width * (1 - overlap))) + 1
        step = (length - width) / max(count - 1, 1)
        starts.append(tuple(int(np.round(step * i)) for i in range(count)))
    return tuple(starts)


@lru_cache(maxsize=4)
def gaussian(
    window: Size, convention: Convention = "nnunet"
) -> Float[np.ndarray, "*s"]:
    """Weight of each voxel of a window: about 1 at the centre, positive everywhere."""
    if convention == "monai":
        weights = np.ones((), np.float32)
        for width in window:
            x = np.arange(width) - (width - 1) / 2
            axis = np.exp(x**2 / (-2 * (SIGMA * width) ** 2)).astype(np.float32)
            weights = weights[..., None] * axis
        weights = np.maximum(weights, max(weights.min(), np.float32(_MONAI_LEAST)))
    else:
        delta = np.zeros(window)
        delta[tuple(n // 2 for n in window)] = 1
        sigma = tuple(n * SIGMA for n in window)
        weights = gaussian_filter(delta, sigma, order=0, mode="constant", cval=0)
        weights = (weights / weights.max()).astype(np.float32)
        weights[weights == 0] = weights[weights > 0].min()
    weights.setflags(write=False)
    return weights


def num_windows(
    size: Size,
    window: Size,
    *,
    overlap: float = 0.5,
    convention: Convention = "nnunet",
) -> int:
    """Windows that cover a volume; a 2-D window covers each of its slices."""
    padded = padded_size(size, window)
    starts = window_starts(
        padded[-len(window) :], window, overlap=overlap, convention=convention
    )
    slices = padded[0] if len(window) == 2 else 1
    return slices * int(np.prod([len(along) for along in starts]))


def boxes(size: Size, window: Size, settings: SlidingWindow) -> Iterator[Box]:
    """The windows of a volume that is at least as large as one."""
    starts = window_starts(
        size[-len(window) :],
        window,
        overlap=settings.overlap,
        convention=settings.convention,
    )
    if len(window) == 2:
        starts = (tuple(range(size[0])), *starts)
        window = (1, *window)
    for corner in product(*starts):
        yield tuple(slice(a, a + w) for a, w in zip(corner, window, strict=True))


def alike(
    volume: Float[np.ndarray, "z y x c"], places: Iterable[Box]
) -> list[list[Box]]:
    """Windows gathered by content, where every channel of it is constant."""
    found: list[list[Box]] = []
    constants: dict[bytes, list[Box]] = {}
    for box in places:
        content = volume[box]
        corner = content[0, 0, 0]
        centre = content[tuple(n // 2 for n in content.shape[:3])]
        # the centre tells most windows apart without looking at all of them
        if (centre != corner).any() or (content != corner).any():
            found.append([box])
        elif corner.tobytes() in constants:
            constants[corner.tobytes()].append(box)
        else:
            constants[corner.tobytes()] = [box]
            found.append(constants[corner.tobytes()])
    return found


def padded_size(size: Size, window: Size) -> Size:
    """Size of a volume once it is at least as large as a window [vox]."""
    window = (1,) * (3 - len(window)) + tuple(window)
    return tuple(max(n, w) for n, w in zip(size, window, strict=True))


def pad(
    image: Float[np.ndarray, "z y x c"], window: Size
) -> tuple[Float[np.ndarray, "u v w c"], Box]:
    """The image at least as large as the window, and where it lies in the result."""
    size = image.shape[:3]
    missing = [p - n for p, n in zip(padded_size(size, window), size, strict=True)]
    inside = tuple(
        slice(m // 2, m // 2 + n) for m, n in zip(missing, size, strict=True)
    )
    if not any(missing):
        return image, inside
    return np.pad(image, [*((m // 2, m - m // 2) for m in missing), (0, 0)]), inside
