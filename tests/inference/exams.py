"""Small exams on disk, and a network whose prediction is known."""

import json
from dataclasses import replace

import jax.numpy as jnp
import nibabel as nib
import numpy as np
from jax.tree_util import Partial

from bmjax.data.cases import Case
from bmjax.planning import BRATS_METS, Plan

CHANNELS = ("t1c", "t1n", "t2f", "t2w")


PLAN = Plan(
    channels=CHANNELS,
    labels=BRATS_METS.labels,
    regions=BRATS_METS.regions,
    paint=BRATS_METS.paint,
    spacing_mm=(1.0, 1.0, 1.0),
    normalization=("none",) * 4,
    use_mask_for_norm=False,
    patch_size=(8, 8, 8),
    batch_size=2,
    features=(4, 8),
    strides=((1, 1, 1), (2, 2, 2)),
    kernel_sizes=((3, 3, 3),) * 2,
    batch_dice=False,
    median_size=(16, 16, 16),
)
FLAT = replace(  # for a 2-D network, slice by slice
    PLAN,
    spacing_mm=(1.0, 1.0),
    patch_size=(8, 8),
    strides=((1, 1), (2, 2)),
    kernel_sizes=((3, 3),) * 2,
    median_size=(16, 16),
)


def apply(params, image):
    """Bright FLAIR is WT, bright T1c is TC and ET."""
    flair, t1c = image[..., 2], image[..., 0]
    return jnp.stack([flair, t1c, t1c], axis=-1) - params["level"]


def network(level=50.0):
    return Partial(apply, {"level": jnp.float32(level)})


def write_case(folder, name, *, size=(20, 18, 16), affine=None, channels=CHANNELS):
    """Constant tissue of 10, a FLAIR-bright cube, a T1c-bright cube inside it."""
    folder = folder / name
    folder.mkdir(parents=True)
    images = {}
    for channel in channels:
        values = np.full(size, 10, np.int16)
        values[0] = 0
        if channel == "t2f":
            values[2:-2, 2:-2, 1:-1] = 100
        if channel == "t1c":
            values[4:-4, 4:-4, 1:-1] = 100
        image = nib.Nifti1Image(values, np.eye(4) if affine is None else affine)
        images[channel] = folder / f"{name}-{channel}.nii.gz"
        nib.save(image, images[channel])
    return Case(id=name, patient=name, images=images)


def labels_of(path):
    return np.asarray(nib.load(path).dataobj)


def expected(size):
    want = np.zeros(size, np.uint8)
    want[2:-2, 2:-2, 1:-1] = 2
    want[4:-4, 4:-4, 1:-1] = 3
    return want


def record(out):
    return json.loads((out / "predict.json").read_text())


def outcomes(out):
    return {entry["case"]: entry["status"] for entry in record(out)["cases"]}


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def remove(path):
    path.unlink()
