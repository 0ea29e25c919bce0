"""Segmentation networks; the only home of flax."""

from flax.linen import Module as Network

from bmjax.models.baselines import FCN, ConvNet, UNet2D
from bmjax.models.outputs import first_output
from bmjax.models.regions import RegionsOfClasses
from bmjax.models.segresnet import SegResNet
from bmjax.models.unet import PlainUNet, ResEncUNet

__all__ = [
    "FCN",
    "ConvNet",
    "Network",
    "PlainUNet",
    "RegionsOfClasses",
    "ResEncUNet",
    "SegResNet",
    "UNet2D",
    "first_output",
]
