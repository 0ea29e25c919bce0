"""The networks and sizes that are measured, as plain data for us and the peers."""

from dataclasses import dataclass, replace
from typing import Literal

CHANNELS = 4  # t1c t1n t2f t2w
REGIONS = (("WT", (1, 2, 3)), ("TC", (1, 3)), ("ET", (3,)))
NUM_CLASSES = len(REGIONS)


@dataclass(frozen=True, kw_only=True)
class Net:
    """One network at one size of input.

    Attributes:
      kind: class in `bmjax.models`.
      patch_size: [vox].
      batch_size: samples of a batch.
      features: channels of each stage.
      num_blocks: blocks of each encoder stage, where the kind has them.
      use_remat: recompute each block in the backward pass.
      dtype: type of the computation; None is float32.
    """

    kind: Literal["PlainUNet", "ResEncUNet", "SegResNet", "UNet2D"]
    patch_size: tuple[int, ...]
    batch_size: int
    features: tuple[int, ...]
    num_blocks: tuple[int, ...] = ()
    use_remat: bool = False
    dtype: str | None = None

    @property
    def name(self) -> str:
        """Such as `PlainUNet 64x64x64 b2`."""
        size = "x".join(map(str, self.patch_size))
        marks = (" bfloat16" if self.dtype else "") + (" remat" * self.use_remat)
        return f"{self.kind} {size} b{self.batch_size}{marks}"

    @property
    def has_deep_supervision(self) -> bool:
        """Whether there is a head at every resolution."""
        return self.kind in ("PlainUNet", "ResEncUNet")


def named(*nets: Net) -> dict[str, Net]:
    """The nets by their names."""
    return {net.name: net for net in nets}


_STAGES = (32, 64, 128, 256, 320)
_CUBE = (64, 64, 64)
PLAIN = Net(kind="PlainUNet", patch_size=_CUBE, batch_size=2, features=_STAGES)
RESENC = Net(
    kind="ResEncUNet",
    patch_size=_CUBE,
    batch_size=2,
    features=_STAGES,
    num_blocks=(1, 3, 4, 6, 6),
)
SEGRESNET = Net(
    kind="SegResNet",
    patch_size=_CUBE,
    batch_size=2,
    features=(32, 64, 128, 256),
    num_blocks=(1, 2, 2, 4),
)
UNET2D = Net(
    kind="UNet2D",
    patch_size=(256, 256),
    batch_size=8,
    features=(32, 64, 128, 256, 512),
)
ALL = named(PLAIN, RESENC, SEGRESNET, UNET2D)

TINY = replace(PLAIN, patch_size=(8, 8, 8), features=(4, 8))
TINY_2D = replace(UNET2D, patch_size=(16, 16), batch_size=2, features=(4, 8))
QUICK = named(TINY)

# What an accelerator trains: nnU-Net's patch for BraTS at 1 mm, in both precisions.
_SIX, _PATCH = (*_STAGES, 320), (128, 128, 128)
_FULL = (
    replace(PLAIN, patch_size=_PATCH, features=_SIX),
    replace(RESENC, patch_size=_PATCH, features=_SIX, num_blocks=(1, 3, 4, 6, 6, 6)),
    replace(SEGRESNET, patch_size=_PATCH),
    replace(UNET2D, batch_size=32),
)
LARGE = named(*_FULL, *(replace(net, dtype="bfloat16") for net in _FULL))
