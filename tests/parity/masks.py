"""Masks as a network might get them wrong, for comparisons with other packages."""

import numpy as np
from scipy import ndimage

SPACINGS = ((1.0, 1.0, 1.0), (3.0, 1.0, 0.5), (0.6, 1.0, 1.0))
REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}


def perturbed(labels, how):
    """A mask as a network might get it wrong."""
    if how == "shifted":
        return np.roll(labels, (1, -2), (0, 2))
    if how == "eroded":
        return labels * ndimage.binary_erosion(labels > 0)
    numbered, num = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    sizes = np.bincount(numbered.ravel())[1:]
    if how == "dropped":
        return labels * (numbered != 1 + sizes.argmin()) if num > 1 else labels
    invented = labels.copy()
    invented[5:9, 20:24, 30:36] = 3
    return invented
