"""Foreign weight files as numpy arrays by name: safetensors, npz, torch zip.

No format can make the reader run anything: npz is read without pickle, torch's zip by
`torch_zip`. Names and axes are turned into ours by `surgery.from_torch`.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from bmjax.npz import read_npz
from bmjax.torch_zip import Tensor, read_torch_zip, write_torch_zip

SUFFIXES = (".safetensors", ".npz", ".pth", ".pt")
_MAX_SHARING = 16  # nnU-Net's checkpoints have the encoder twice
# nnU-Net's trainer; Lightning and others; MONAI's handlers
_HOLDERS = ("network_weights", "state_dict", "model")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a weight file holds.

    Attributes:
      tensors: arrays by name.
      metadata: what is beside them, such as nnU-Net's `init_args`; plain values, but
        for objects that were not built (`opcodes.Inert`) and other tensors.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, Any]


def read_weights(path: Path) -> Weights:
    """Read a file of any known format; of a checkpoint take the network's tensors.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the format is unknown, the file damaged, or without tensors.
    """
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    match path.suffix:
        case ".safetensors":
            weights = _read_safetensors(path)
        case ".npz":
            weights = _read_npz(path)
        case _:
            weights = _read_torch(path)
    if not weights.tensors:
        raise ValueError(
            f"{path}: holds no tensors; expected a state dict, or a checkpoint with "
            f"one under {', '.join(map(repr, _HOLDERS))}; found "
            f"{list(weights.metadata)[:8]}"
        )
    return weights


def write_weights(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors in the format of the suffix, whole or not at all.

    Args:
      path: `.safetensors`, `.npz`, `.pth` or `.pt`.
      tensors: arrays by name.
      metadata: makes a `.pth` a checkpoint as nnU-Net's, the tensors under
        `network_weights` and these values beside them; in safetensors, text by name.

    Raises:
      ValueError: the format is unknown, or cannot hold metadata.
    """
    _check_suffix(path)
    is_torch = path.suffix in (".pth", ".pt")
    if metadata is not None and path.suffix == ".npz":
        raise ValueError(f"{path}: an npz file cannot hold metadata beside tensors")
    if is_torch:
        state = dict(tensors)
        checkpoint = None if metadata is None else {_HOLDERS[0]: state, **metadata}
        write_torch_zip(path, state if checkpoint is None else checkpoint)
        return
    fresh = path.with_name(f".{path.name}.tmp{path.suffix}")
    if path.suffix == ".npz":
        np.savez(fresh, allow_pickle=False, **tensors)
    else:
        # the format wants every name to have its own memory
        apart = {name: tensor.copy() for name, tensor in tensors.items()}
        safetensors.numpy.save_file(
            apart, fresh, None if metadata is None else dict(metadata)
        )
    os.replace(fresh, path)


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: weight files end in {', '.join(SUFFIXES)}; rename the file if "
            "it is one of them"
        )


def _read_safetensors(path: Path) -> Weights:
    try:
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return Weights(tensors=tensors, metadata=dict(file.metadata() or {}))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: is no safetensors file, {error}") from error


def _read_npz(path: Path) -> Weights:
    return Weights(tensors=read_npz(path), metadata={})


def _read_torch(path: Path) -> Weights:
    content = read_torch_zip(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, no state dict")
    holder = next((h for h in _HOLDERS if isinstance(content.get(h), dict)), None)
    state = content if holder is None else content[holder]
    found = {
        name: tensor
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and isinstance(name, str)
    }
    promised = sum(math.prod(t.shape) * t.dtype.itemsize for t in found.values())
    if promised > _MAX_SHARING * path.stat().st_size:
        raise ValueError(
            f"{path}: its tensors would take {promised} bytes, since many share one "
            f"storage, more than {_MAX_SHARING} times the file; save the weights "
            "again, best as .safetensors"
        )
    tensors = {name: tensor.array() for name, tensor in found.items()}
    taken = tensors if holder is None else (holder,)
    rest = {str(k): v for k, v in content.items() if k not in taken}
    return Weights(tensors=tensors, metadata=rest)
