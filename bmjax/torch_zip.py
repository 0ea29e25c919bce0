"""Torch's zip files (.pth, .pt), read and written without torch.

`data.pkl` describes containers and tensors, `data/0`, `data/1`, ... are their storages
in plain bytes. The description is read by `opcodes`, over a closed list of builders.
"""

import math
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jax.numpy import bfloat16

from bmjax.opcodes import Builder, read_pickle

_BFLOAT16 = np.dtype(bfloat16)
_DTYPES = {
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": _BFLOAT16,
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "ShortStorage": np.dtype("<i2"),
    "IntStorage": np.dtype("<i4"),
    "LongStorage": np.dtype("<i8"),
    "BoolStorage": np.dtype("?"),
}
_STORAGES = {dtype: name for name, dtype in _DTYPES.items()}
_DAMAGED = (
    *(zipfile.BadZipFile, NotImplementedError, EOFError),
    *(ValueError, struct.error),  # of zipfile, for headers that make no sense
)
_MAX_AXES = 16
_MAX_DESCRIPTION_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class _Storage:
    file: "_Archive"
    member: str
    dtype: np.dtype
    num_values: int

    @cached_property
    def values(self) -> np.ndarray:
        return np.frombuffer(self.file.read(self.member), self.dtype)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file, read when it is asked for.

    Attributes:
      shape: number of values along each axis.
      dtype: type of the values.
    """

    shape: tuple[int, ...]
    _storage: _Storage
    _offset: int
    _strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self._storage.dtype

    def array(self) -> np.ndarray:
        """The values."""
        view = np.lib.stride_tricks.as_strided(
            self._storage.values[self._offset :],
            self.shape,
            tuple(s * self.dtype.itemsize for s in self._strides),
            writeable=False,
        )
        return np.ascontiguousarray(view).reshape(self.shape)


class _Archive:
    """Members of one zip file, every size checked against the file's own."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except _DAMAGED as error:
            raise ValueError(
                f"{path}: is no zip file, so torch before 1.6 wrote it or it is "
                "damaged; load it with torch and save it again"
            ) from error
        self.sizes = {info.filename: info.file_size for info in members}
        packed = any(
            info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1
            for info in members
        )
        if packed or len(self.sizes) != len(members):
            raise self.fault("has compressed or repeated members")
        if sum(self.sizes.values()) > path.stat().st_size:
            raise self.fault("has members that are larger than the file")
        roots = [n[: -len("data.pkl")] for n in self.sizes if n.endswith("/data.pkl")]
        if len(roots) != 1 or f"{roots[0]}constants.pkl" in self.sizes:
            raise self.fault("holds no state dict, or a compiled TorchScript module")
        self.root = roots[0]

    def fault(self, what: str) -> ValueError:
        return ValueError(
            f"{self.path}: {what}; torch.save does not write such a file. Save the "
            "weights again, best as .safetensors"
        )

    def read(self, member: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(member)
        except _DAMAGED as error:
            raise self.fault(f"{member} is damaged, {error}") from error

    def storage(self, key: Any) -> _Storage:
        """What a persistent id `('storage', type, key, device, values)` names."""
        kind, storage_type, name, _, num_values = key
        dtype = _DTYPES.get(storage_type.name.removeprefix("torch."))
        if kind != "storage" or dtype is None:
            raise ValueError(f"a storage of {storage_type.name} cannot be read")
        if type(name) is not str or type(num_values) is not int:
            raise TypeError("a storage without name or size")
        member = f"{self.root}data/{name}"
        if self.sizes.get(member, -1) != num_values * dtype.itemsize:
            raise ValueError(f"storage {name} has not the {num_values} values it says")
        return _Storage(self, member, dtype, num_values)


def _tensor(
    storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any
) -> Tensor:
    numbers = (offset, *shape, *strides)
    if len(numbers) > 2 * _MAX_AXES or any(
        type(n) is not int or n < 0 for n in numbers
    ):
        raise ValueError("a tensor of odd shape or strides")
    # the stride of an axis of one value means nothing
    steps = tuple(s if n > 1 else 0 for n, s in zip(shape, strides, strict=True))
    last = offset + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
    count = math.prod(shape)
    # a view never holds more values than its storage: no expanded axes
    if count and not last < storage.num_values >= count:
        raise ValueError(f"a tensor of shape {shape} reaches out of its storage")
    if not count:
        offset, steps = 0, (0,) * len(shape)
    return Tensor(tuple(shape), storage, offset, steps)


def _dtype(code: str, *_: Any) -> np.dtype:
    if not re.fullmatch(r"[<>|=]?[?biufcSU]\d*", code):
        raise ValueError("a numpy type that is neither number nor string")
    return np.dtype(code)


def _with_order(dtype: np.dtype, state: tuple) -> np.dtype:
    return dtype.newbyteorder(state[1]) if state[1] in ("<", ">") else dtype


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype, count=1)[0].item()


def _array(_: Any, state: tuple) -> np.ndarray:
    _, shape, dtype, is_fortran, data = state
    flat = np.frombuffer(data, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return {key: value for key, value in pairs if isinstance(key, str | int)}


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


_NUMPY = ("numpy.core.multiarray.", "numpy._core.multiarray.")
_BUILDERS = {
    "collections.OrderedDict": Builder(_ordered),
    "torch._utils._rebuild_tensor_v2": Builder(_tensor),
    "torch._utils._rebuild_parameter": Builder(lambda tensor, *_: tensor),
    "_codecs.encode": Builder(_encode),
    "numpy.dtype": Builder(_dtype, _with_order),
    **{f"{home}scalar": Builder(_scalar) for home in _NUMPY},
    **{f"{home}_reconstruct": Builder(lambda *_: [], _array) for home in _NUMPY},
}


def read_torch_zip(path: Path) -> Any:
    """What `torch.save` put into a file.

    Tensors come as `Tensor`, numpy's scalars as Python's; objects that only other
    libraries could build come as `Inert`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no torch zip file, or damaged.
    """
    archive = _Archive(path)
    order = f"{archive.root}byteorder"
    if order in archive.sizes and archive.read(order) != b"little":
        raise archive.fault("was written on a big-endian machine")
    description = f"{archive.root}data.pkl"
    if archive.sizes[description] > _MAX_DESCRIPTION_BYTES:
        raise archive.fault("has a description of more than 256 MiB")
    try:
        return read_pickle(
            archive.read(description), builders=_BUILDERS, resolve=archive.storage
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


@dataclass
class _Writer:
    """Pickle of plain values and arrays, protocol 2, in torch's words."""

    parts: list[bytes] = field(default_factory=lambda: [b"\x80\x02"])
    storages: list[np.ndarray] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)

    def put(self, value: Any) -> None:
        match value:
            case None:
                self.parts.append(b"N")
            case bool():
                self.parts.append(b"\x88" if value else b"\x89")
            case int():
                size = value.bit_length() // 8 + 1
                number = value.to_bytes(size, "little", signed=True)
                self.parts.append(b"\x8a" + bytes([size]) + number)
            case float():
                self.parts.append(b"G" + struct.pack(">d", value))
            case str():
                text = value.encode()
                self.parts.append(b"X" + struct.pack("<I", len(text)) + text)
            case tuple() | list():
                is_tuple = isinstance(value, tuple)
                self.parts.append(b"(" if is_tuple else b"](")
                for item in value:
                    self.put(item)
                self.parts.append(b"t" if is_tuple else b"e")
            case Mapping():
                self.parts.append(b"}(")
                for pair in value.items():
                    for item in pair:
                        self.put(item)
                self.parts.append(b"u")
            case np.ndarray():
                self._tensor(value)
            case _:
                raise ValueError(
                    f"a torch file cannot be given a {type(value).__name__}; give "
                    "numpy arrays, numbers, strings, and tuples, lists, dicts of them"
                )

    def _tensor(self, array: np.ndarray) -> None:
        if array.dtype not in _STORAGES:
            raise ValueError(f"torch has no tensors of type {array.dtype}")
        # names of one array share its storage, as they do in torch
        place = self.places.setdefault(id(array), len(self.storages))
        if place == len(self.storages):
            self.storages.append(array)
        strides = np.cumprod((1, *array.shape[:0:-1]))[: array.ndim][::-1].tolist()
        self.parts.append(b"ctorch._utils\n_rebuild_tensor_v2\n((")
        self.put("storage")
        self.parts.append(f"ctorch\n{_STORAGES[array.dtype]}\n".encode())
        for item in (str(place), "cpu", array.size):
            self.put(item)
        self.parts.append(b"tQ")
        for item in (0, array.shape, tuple(strides), False):
            self.put(item)
        self.parts.append(b"ccollections\nOrderedDict\n)RtR")


def write_torch_zip(path: Path, value: Any) -> None:
    """A file that `torch.load` reads, also with `weights_only=True`.

    Args:
      path: written whole or not at all.
      value: arrays, numbers, strings, and tuples, lists and dicts of them.

    Raises:
      ValueError: something in it is none of these.
    """
    writer = _Writer()
    writer.put(value)
    description = b"".join([*writer.parts, b"."])
    root = path.stem
    fresh = path.with_name(f".{path.name}.tmp")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{root}/data.pkl", description)
        archive.writestr(f"{root}/byteorder", "little")
        for place, array in enumerate(writer.storages):
            archive.writestr(f"{root}/data/{place}", array.tobytes())
        archive.writestr(f"{root}/version", "3\n")
    os.replace(fresh, path)
