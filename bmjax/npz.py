"""Reads NumPy's .npz files of plain arrays, each size checked before memory is taken.

No array of objects is read, since that would run what the file says.
"""

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

_MAX_RATIO = 1032  # deflate cannot expand more than this
_VERSIONS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_FAULTS = (
    *(ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error),
    *(NotImplementedError, RuntimeError),  # of zipfile: a packing or password
)


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by name.

    Args:
      path: the file.
      names: which to read; None: all.

    Raises:
      ValueError: it is no such file, is damaged, promises more than it holds, or has
        arrays of objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if names is None:
                names = [name.removesuffix(".npy") for name in members]
            return {name: _array(archive, members[f"{name}.npy"]) for name in names}
    except _FAULTS as error:
        raise ValueError(
            f"{path}: is no npz file of plain arrays, {error}; arrays of objects are "
            "never read, since they could run code"
        ) from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > _MAX_RATIO * info.compress_size:
        raise ValueError(f"{info.filename} says that it is larger than it can be")
    with archive.open(info) as file:
        version = npy.read_magic(file)
        if version not in _VERSIONS:
            raise ValueError(f"{info.filename} is of version {version}")
        shape, _, dtype = _VERSIONS[version](file)
        num_bytes = math.prod(shape) * dtype.itemsize  # numpy's product wraps round
        if dtype.hasobject or num_bytes > info.file_size:
            raise ValueError(f"{info.filename} holds no {shape} values of {dtype}")
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)
