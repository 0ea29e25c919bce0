"""Transforms of one tensor: input channels and classes by name, kernels to a new size.

Kernels are `*k c f`: space, input channels, output channels. Two rules change their
size, axis by axis; a kernel of fewer axes gets a first axis of one tap (2-D to 3-D).

`centre` pads with zeros around the kernel, or crops its centre. A kernel of one tap
then does exactly what it did, on every image, so that the grafted network begins as the
function that the source was: the rule to start from. (In video transformers it also
ended better than averaging: Arnab et al., ViViT, ICCV 2021.)

`mean` repeats a single tap n times and divides by n, and sums n taps into one: the
response to an image that is constant along the axis is kept (Carreira and Zisserman,
I3D, CVPR 2017). It looks through the slices from the first step on, and blurs what
differs between them. Axes of several taps on both sides are centred.

A transposed convolution whose kernel is its stride writes every tap to another voxel;
by both rules one tap is repeated undivided and n taps are averaged into one, so that
constant images are kept.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from bmjax.typing import Size

KernelRule = Literal["exact", "centre", "mean"]
Kernel = Shaped[np.ndarray, "*k c f"]
_FILLS = ("zero", "mean")


@dataclass(frozen=True, kw_only=True)
class ChannelMap:
    """Input channels of two networks, by name.

    Attributes:
      source: names of the source's channels, in order.
      target: names of the target's channels, in order.
      new: how each channel begins that the source has not: pairs of its name and
        `zero` (the network begins without looking at it), `mean` of all channels of
        the source, or the channel of the source to copy.
      kernels: paths of the kernels that see the image, whose last input channels
        these are; empty for the first convolution of bmjax's networks.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    new: tuple[tuple[str, str], ...] = ()
    kernels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse channels of which it is not said how they begin."""
        _require_unique(self.source, "source's channels")
        _require_unique(self.target, "target's channels")
        fills = dict(self.new)
        missing = [c for c in self.target if c not in {*self.source, *fills}]
        if missing:
            raise ValueError(
                f"the source has no channel {', '.join(missing)} (it has "
                f"{', '.join(self.source)}); say how it begins, for each a pair in "
                f"new_channels such as {missing[0]} zero (or mean, or a channel of the "
                "source to copy)"
            )
        for name, fill in self.new:
            if name in self.source or name not in self.target:
                raise ValueError(
                    f"new_channels names {name}, which is no new channel: the source "
                    f"has {', '.join(self.source)}, the target "
                    f"{', '.join(self.target)}"
                )
            if fill not in (*_FILLS, *self.source):
                raise ValueError(
                    f"channel {name} is to begin as {fill!r}; expected zero, mean or "
                    f"one of the source's channels {', '.join(self.source)}"
                )

    @property
    def is_identity(self) -> bool:
        """Whether both sides are the same."""
        return self.source == self.target

    @property
    def note(self) -> str:
        """What is done, in words."""
        left_out = [name for name in self.source if name not in self.target]
        parts = ["input channels by name"]
        parts += [f"{name} begins as {fill}" for name, fill in self.new]
        parts += [f"without {', '.join(left_out)}"] if left_out else []
        return ", ".join(parts)

    def carry(self, kernel: Kernel) -> Shaped[np.ndarray, "*k d f"]:
        """The source's kernel with the target's channels."""
        num_before = kernel.shape[-2] - len(self.source)
        before, seen = np.split(kernel, [num_before], axis=-2)
        taps = {
            "zero": np.zeros_like(seen[..., 0, :]),
            "mean": seen.mean(axis=-2, dtype=_wide(kernel)).astype(kernel.dtype),
        }
        taps |= {name: seen[..., i, :] for i, name in enumerate(self.source)}
        fills = dict(self.new)
        chosen = [taps[fills.get(name, name)] for name in self.target]
        return np.concatenate([before, np.stack(chosen, axis=-2)], axis=-2)


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """Output classes, or regions, of two networks, by name.

    Attributes:
      source: names of the source's classes, in order of its heads' outputs.
      target: names of the target's classes, in order.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse names that cannot be told apart."""
        _require_unique(self.source, "source's classes")
        _require_unique(self.target, "target's classes")

    @property
    def shared(self) -> tuple[str, ...]:
        """Names that both sides have, in the target's order."""
        return tuple(name for name in self.target if name in self.source)

    @property
    def note(self) -> str:
        """What is done, in words."""
        new = [name for name in self.target if name not in self.source]
        left_out = [name for name in self.source if name not in self.target]
        parts = [f"{', '.join(self.shared)} by name"]
        parts += [f"{', '.join(new)} left as it was"] if new else []
        parts += [f"without {', '.join(left_out)}"] if left_out else []
        return "; ".join(parts)

    def carry(
        self,
        old: Shaped[np.ndarray, "... k"],
        new: Shaped[np.ndarray, "... j"],
        *,
        num_axes: int = 1,
    ) -> Shaped[np.ndarray, "... k"]:
        """The target's tensor with the classes that the source knows.

        Args:
          old: the target's.
          new: the source's.
          num_axes: how many of the last axes are classes.
        """
        to = [self.target.index(name) for name in self.shared]
        taken = [self.source.index(name) for name in self.shared]
        merged = old.copy()
        merged[(..., *np.ix_(*[to] * num_axes))] = new[
            (..., *np.ix_(*[taken] * num_axes))
        ]
        return merged


def fit_kernel(
    kernel: Kernel, size: Size, *, rule: KernelRule, is_transposed: bool = False
) -> Shaped[np.ndarray, "*m c f"] | None:
    """The kernel in another size, or None where the rule cannot give it.

    Args:
      kernel: of the source.
      size: taps along each space axis of the target [vox].
      rule: see above; `exact` changes nothing.
      is_transposed: the kernel of a transposed convolution with its size as stride.
    """
    if kernel.shape[:-2] == size:
        return kernel
    rank = kernel.ndim - 2
    if rule == "exact" or abs(len(size) - rank) > 1:
        return None
    if len(size) > rank:
        kernel = kernel[None]
    flat = len(size) < rank
    for axis, num_taps in enumerate((1, *size) if flat else size):
        fitted = _fit_axis(kernel, axis, num_taps, rule, is_transposed)
        if fitted is None:
            return None
        kernel = fitted
    return kernel[0] if flat else kernel


def _fit_axis(
    kernel: np.ndarray, axis: int, num_taps: int, rule: KernelRule, is_transposed: bool
) -> np.ndarray | None:
    have = kernel.shape[axis]
    if have == num_taps:
        return kernel
    if 1 in (have, num_taps) and (is_transposed or rule == "mean"):
        total = kernel.sum(axis, keepdims=True, dtype=_wide(kernel))
        # taps of a transposed convolution never meet in one voxel
        divisor = have if is_transposed else num_taps
        return (total / divisor).astype(kernel.dtype).repeat(num_taps, axis)
    if is_transposed or (num_taps - have) % 2:
        return None  # there is no centre
    margin = (num_taps - have) // 2
    if margin > 0:
        pads = [(margin, margin) if a == axis else (0, 0) for a in range(kernel.ndim)]
        return np.pad(kernel, pads)
    return kernel.take(range(-margin, have + margin), axis)


def _wide(kernel: np.ndarray) -> np.dtype:
    return np.promote_types(kernel.dtype, np.float32)


def _require_unique(names: tuple[str, ...], what: str) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"the {what} {', '.join(names)} are not all different")
