"""Reads gzip or plain files to their end, and writes files that appear only complete.

A gzip stream is followed to its last byte, so that truncation and checksum errors are
noticed, and never keeps more bytes in memory than its reader asked for.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import UInt8
from zlib_ng import zlib_ng

# zlib-ng's stub calls the class an instance
GzipError: type[Exception] = zlib_ng.error  # pyright: ignore[reportAssignmentType]
_GZIP = b"\x1f\x8b"
_GZIP_MAX_RATIO = 1032  # deflate cannot expand more than this
_CHUNK_BYTES = 1 << 16
_COMPRESSION = 6  # labels: as fast as level 1 and a seventh of its size
_PART = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}\.part")


def fault(path: str | Path, found: str, remedy: str) -> ValueError:
    """The error for a file that cannot be used."""
    return ValueError(f"{path}: {found}; {remedy}")


def first_bytes(path: Path, num_bytes: int = 540) -> bytes:
    """The beginning of a file's content, unpacked; as long as a NIfTI header."""
    with path.open("rb") as file:
        packed = file.read(_CHUNK_BYTES)
    if not packed:
        raise fault(path, "the file is empty (0 bytes)", "copy or export it again")
    if not packed.startswith(_GZIP):
        return packed[:num_bytes]
    try:
        return zlib_ng.decompressobj(31).decompress(packed, num_bytes)
    except GzipError as error:
        raise _damaged(path, error) from error


def read_all(path: Path, num_bytes: int) -> UInt8[np.ndarray, " n"]:
    """The first num_bytes of a file's content, fewer if it has not so many.

    Raises:
      ValueError: a gzip stream is truncated, damaged or followed by other bytes.
    """
    packed = path.read_bytes()
    if not packed.startswith(_GZIP):
        return np.frombuffer(packed, np.uint8, min(num_bytes, len(packed)))
    # a file too short for its promise cannot make us reserve memory for it
    out = np.empty(min(num_bytes, len(packed) * _GZIP_MAX_RATIO), np.uint8)
    filled = position = 0
    while position < len(packed):
        member = zlib_ng.decompressobj(31)
        while not member.eof:
            if position >= len(packed):
                found = f"truncated: its gzip stream ends after {filled} bytes"
                raise fault(path, found, "copy or export it again")
            try:
                piece = member.decompress(packed[position : position + _CHUNK_BYTES])
            except GzipError as error:
                raise _damaged(path, error) from error
            position = min(position + _CHUNK_BYTES, len(packed))
            count = min(len(piece), len(out) - filled)
            out[filled : filled + count] = np.frombuffer(piece, np.uint8, count)
            filled += count
        position -= len(member.unused_data)
        rest = packed[position : position + _CHUNK_BYTES]
        if not rest.startswith(_GZIP):
            if rest.strip(b"\0"):  # zeros are legal padding
                raise fault(path, "bytes follow its gzip stream", "export it again")
            break
    return out[:filled]


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file under a hidden name and rename it once it is safely on disk.

    A name that ends in .gz is compressed, without a time stamp: the same content
    gives the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, file = _new_part(path)
    try:
        with file:
            if path.name.endswith(".gz"):
                packer = zlib_ng.compressobj(_COMPRESSION, zlib_ng.DEFLATED, 31)
                for piece in pieces:
                    file.write(packer.compress(piece))
                file.write(packer.flush())
            else:
                file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _new_part(path: Path) -> tuple[Path, BinaryIO]:
    """A hidden file beside a path, locked for as long as its writer lives."""
    while True:
        name = f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
        part = path.with_name(name)
        file = part.open("xb")
        with suppress(OSError):  # a disk without locks, where nobody removes parts
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()  # removed before it was locked


def remove_unfinished(
    folder: Path, *, within: Literal["folder", "tree"] = "folder"
) -> None:
    """Remove what `write_pieces` left where it was killed; who still writes is let be.

    Args:
      folder: where to look; it need not exist.
      within: `tree` looks into the folders in it, too.
    """
    for root, folders, names in os.walk(folder):  # passes over what just vanished
        if within == "folder":
            folders.clear()
        for name in filter(_PART.fullmatch, names):
            part = Path(root, name)
            try:
                with part.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
            except OSError:
                continue  # it just got its name, is being written, or not ours


def _damaged(path: Path, error: Exception) -> ValueError:
    return fault(path, f"damaged gzip stream ({error})", "copy or export it again")
