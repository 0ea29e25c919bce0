"""Small volumes in any orientation, as files."""

import itertools

import nibabel as nib
import numpy as np

AXES = [
    turn
    for order in itertools.permutations("RAS")
    for turn in itertools.product(
        *[(a, {"R": "L", "A": "P", "S": "I"}[a]) for a in order]
    )
]


def affine_for(axes, spacing=(1.0, 1.5, 2.0), origin=(-10.0, 5.0, 30.0)):
    """An affine whose x, y, z index axes point to the named directions."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (name, step) in enumerate(zip(axes, spacing, strict=True)):
        row = "RAS".find(name)
        sign = 1 if row >= 0 else -1
        row = row if row >= 0 else "LPI".find(name)
        affine[row, column] = sign * step
    affine[:3, 3] = origin
    return affine


def volume(shape=(3, 4, 5), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def save(path, array=None, **fields):
    """A file written by nibabel alone, header fields set by name."""
    array = volume() if array is None else array
    image = nib.Nifti1Image(array.T, np.eye(4))
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def put(path, content):
    """Write bytes, and give the path back."""
    path.write_bytes(content)
    return path
