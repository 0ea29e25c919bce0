"""What can be asked of a transplant, as one value."""

from dataclasses import dataclass

from bmjax.surgery.graft import HeadRule
from bmjax.surgery.kernels import KernelRule


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """How the parameters of another network are made to fit.

    Attributes:
      heads: leave the output layers as the target has them (`init`), carry them over
        (`keep`), carry over the classes that both networks have by name (`map`), or
        do as nnU-Net's `-pretrained_weights` (`nnunet`), which keeps SegResNet's.
      skip: patterns of parameter paths to leave as the target has them.
      kernels: kernels of another size are refused (`exact`), padded or cropped about
        their centre (`centre`), or spread and summed so that the response to a
        constant image stays (`mean`); also from 2-D to 3-D.
      new_channels: pairs of an input channel that the source has not, and how it
        begins: `zero`, `mean`, or the channel of the source to copy.
      source_channels: the source's input channels in the target's words, in order, if
        the source does not say or calls them otherwise.
      source_classes: likewise, the outputs of the source's heads.
      input_kernels: paths of the kernels that see the image, if the network is none
        of bmjax's.
    """

    heads: HeadRule = "init"
    skip: tuple[str, ...] = ()
    kernels: KernelRule = "exact"
    new_channels: tuple[tuple[str, str], ...] = ()
    source_channels: tuple[str, ...] = ()
    source_classes: tuple[str, ...] = ()
    input_kernels: tuple[str, ...] = ()
