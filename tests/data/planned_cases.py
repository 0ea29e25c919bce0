"""Small cases on disk, and a plan to prepare them by."""

import numpy as np

from bmjax.data import nifti
from bmjax.data.cases import Case
from bmjax.planning import BRATS_METS, Plan

PLAN = Plan(
    channels=("t1c", "t1n"),
    labels=BRATS_METS.labels,
    regions=BRATS_METS.regions,
    paint=BRATS_METS.paint,
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("zscore", "zscore"),
    use_mask_for_norm=True,
    patch_size=(8, 8, 8),
    batch_size=2,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 2)),
    kernel_sizes=((3, 3, 3), (3, 3, 3)),
    batch_dice=False,
    median_size=(16, 16, 16),
)


def plan(**changes):
    return Plan.from_dict(PLAN.to_dict() | changes)


def make_case(
    folder, *, size=(12, 14, 16), affine=None, seed=0, channels=("t1c", "t1n")
):
    """A box of noise in a field of zeros, with a lesion in it."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4) if affine is None else affine
    start = rng.integers(0, 3, 3)
    stop = np.array(size) - rng.integers(0, 3, 3)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    labels = np.zeros(size, np.uint8)
    labels[box] = rng.choice(4, labels[box].shape, p=[0.7, 0.1, 0.1, 0.1])
    images = {}
    for channel in channels:
        image = np.zeros(size, np.int16)
        image[box] = rng.integers(1, 1000, image[box].shape)
        images[channel] = folder / f"c-{channel}.nii.gz"
        nifti.write(images[channel], image, affine=affine)
    nifti.write(folder / "c-seg.nii.gz", labels, affine=affine)
    return Case(id="c", patient="c", images=images, labels=folder / "c-seg.nii.gz")
