"""Losses as pure functions and as callable specs."""

from bmjax.losses.compound import (
    BinaryCrossEntropy,
    CrossEntropy,
    DeepSupervision,
    DiceBCE,
    DiceCE,
    TverskyBCE,
)
from bmjax.losses.entropy import binary_cross_entropy, cross_entropy
from bmjax.losses.lesion import BlobDiceBCE, blob_loss
from bmjax.losses.overlap import soft_dice, tversky
from bmjax.losses.targets import one_hot, region_targets, shrink_labels

__all__ = [
    "BinaryCrossEntropy",
    "BlobDiceBCE",
    "CrossEntropy",
    "DeepSupervision",
    "DiceBCE",
    "DiceCE",
    "TverskyBCE",
    "binary_cross_entropy",
    "blob_loss",
    "cross_entropy",
    "one_hot",
    "region_targets",
    "shrink_labels",
    "soft_dice",
    "tversky",
]
