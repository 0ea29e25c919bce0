"""Reads and writes NIfTI volumes as z, y, x arrays whose geometry is never guessed.

World coordinates are RAS+ millimetres. An array is turned to the closest
canonical orientation (`RAS`) or left as it lies in the file (`stored`).
"""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt2axcodes,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError

from bmjax.data.forms import affine_of
from bmjax.data.grids import Grid
from bmjax.data.label_values import whole_numbers
from bmjax.data.streams import fault, first_bytes, read_all, write_pieces

Orientation = Literal["RAS", "stored"]
MAX_VOXELS = 2**30
_KINDS = "iuf"


@dataclass(frozen=True)
class Scan:
    """A volume and where it lies in the world.

    Attributes:
      array: values, x varies fastest along the last axis.
      affine: from the array's (x, y, z) index to RAS+ millimetres.
      spacing_mm: distance of neighbouring voxels along z, y, x.
      path: the file it came from.
    """

    array: Shaped[np.ndarray, "z y x"]
    affine: Float[np.ndarray, "4 4"]
    spacing_mm: tuple[float, float, float]
    path: Path


@dataclass(frozen=True)
class Header:
    """What a file says about its volume, voxels unread.

    Attributes:
      path: the file.
      size: voxels along z, y, x.
      affine: from the (x, y, z) index to RAS+ millimetres.
      spacing_mm: distance of neighbouring voxels along z, y, x.
      sform_code: 0 if the file has no sform.
      qform_code: 0 if the file has no qform.
      dtype: how the voxels are stored.
      axes: where x, y, z of the stored array point, e.g. `LPS`.
      remarks: oddities that a person should know, none of them fatal.
    """

    path: Path
    size: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    spacing_mm: tuple[float, float, float]
    sform_code: int
    qform_code: int
    dtype: np.dtype
    axes: str
    remarks: tuple[str, ...]


def read(
    path: str | Path,
    *,
    orientation: Orientation = "RAS",
    dtype: type | np.dtype | None = np.float32,
) -> Scan:
    """Read a volume, to the last byte of its file.

    Args:
      path: a .nii or .nii.gz file; the content decides which, not the name.
      orientation: `RAS` turns the array to the closest canonical axes.
      dtype: of the result; None keeps the stored one (float32 where scaled).
    """
    scan = load(path, orientation=orientation, dtype=dtype)
    for remark in read_header(path).remarks:
        warnings.warn(f"{path}: {remark}", stacklevel=2)
    return scan


def load(
    path: str | Path,
    *,
    orientation: Orientation = "RAS",
    dtype: type | np.dtype | None = np.float32,
) -> Scan:
    """As `read`, for callers that take the remarks from `read_header` themselves."""
    path = Path(path)
    fields = _parse(path, first_bytes(path))
    values = _voxels(path, fields)
    header = _describe(path, fields)
    turn, affine = _turn(header, orientation)
    turned = apply_orientation(values.T, turn).T
    if dtype is None:
        dtype = values.dtype.newbyteorder("=")
    elif np.dtype(dtype).kind != "f" and values.dtype.kind == "f":
        raise fault(path, f"holds {values.dtype} values", "read it with read_labels")
    with np.errstate(over="ignore"):  # becomes infinite, which every reader refuses
        array = np.ascontiguousarray(turned, dtype=dtype)
    return Scan(array, affine, spacing_of(affine), path)


def read_labels(path: str | Path, *, orientation: Orientation = "RAS") -> Scan:
    """Read a label map as integers.

    Values stored as floats are rounded where they are within 1e-3 of an integer.

    Raises:
      ValueError: a value is no integer.
    """
    scan = read(path, orientation=orientation, dtype=None)
    labels = whole_numbers(scan.array, path)
    return Scan(labels, scan.affine, scan.spacing_mm, scan.path)


def read_header(path: str | Path) -> Header:
    """Read what a file says about its volume; of the voxels nothing is read."""
    path = Path(path)
    return _describe(path, _parse(path, first_bytes(path)))


def grid_of(path: str | Path, *, orientation: Orientation = "RAS") -> Grid:
    """Where the voxels of a file will lie once it is read."""
    header = read_header(path)
    turn, affine = _turn(header, orientation)
    size = np.empty(3, np.int64)
    size[turn[:, 0].astype(int)] = header.size[::-1]  # x y z
    return tuple(size[::-1].tolist()), affine


def write(
    path: str | Path,
    array: Shaped[np.ndarray, "z y x"],
    *,
    affine: Float[np.ndarray, "4 4"],
    sform_code: int = 1,
    qform_code: int = 1,
) -> None:
    """Write a volume under its own affine; the name appears once it is complete.

    Args:
      path: ends in .nii or .nii.gz; the same array gives the same bytes.
      array: voxels in the order in which they will lie in the file.
      affine: from the array's (x, y, z) index to RAS+ millimetres.
      sform_code: 0 leaves the sform unset.
      qform_code: 0 leaves the qform unset.
    """
    fits = max(array.shape) < 2**15
    fields = nib.Nifti1Header() if fits else nib.Nifti2Header()
    fields.set_data_shape(array.shape[::-1])
    fields.set_sform(affine, code=sform_code)
    fields.set_qform(affine, code=qform_code)
    if qform_code == 0:
        fields["pixdim"][1:4] = spacing_of(affine)[::-1]
    fields.set_xyzt_units("mm", "sec")
    _write(Path(path), array, fields)


def write_like(
    path: str | Path,
    array: Shaped[np.ndarray, "z y x"],
    *,
    source: str | Path,
    orientation: Orientation = "RAS",
) -> None:
    """Write a volume on the grid of another file: same shape, affine, form codes.

    Args:
      path: ends in .nii or .nii.gz.
      array: voxels as `read(source, orientation=orientation)` would lay them out.
      source: the file whose geometry is copied, field by field.
      orientation: how the array is turned against the source.
    """
    source = Path(source)
    header = read_header(source)
    fields = _parse(source, first_bytes(source))
    turn, _ = _turn(header, orientation)
    back = ornt_transform(_identity_turn(), turn)
    stored = apply_orientation(array.T, back).T
    if stored.shape != header.size:
        raise ValueError(
            f"{path}: an array of {array.shape} voxels (z, y, x) does not fit the grid "
            f"of {source}, stored as {header.size}; pass it as read from that file"
        )
    fields = fields.as_byteswapped("<")
    for name in ("intent_p1", "intent_p2", "intent_p3", "cal_max", "cal_min"):
        fields[name] = 0
    fields["intent_code"], fields["intent_name"] = 0, b""
    fields["descrip"], fields["aux_file"] = b"", b""
    _write(Path(path), stored, fields)


def _parse(path: Path, start: bytes) -> nib.Nifti1Header:
    """The header of a single-file NIfTI-1 or NIfTI-2 volume of real numbers."""
    for kind, length, magic in (
        (nib.Nifti1Header, 348, start[344:347]),
        (nib.Nifti2Header, 540, start[4:7]),
    ):
        for endianness in "<>":
            is_long = len(start) >= length
            if is_long and struct.unpack(f"{endianness}i", start[:4])[0] == length:
                if not magic.startswith(b"n+"):
                    raise fault(
                        path,
                        "an Analyze or .hdr/.img header, not a single-file NIfTI",
                        "convert it to .nii.gz",
                    )
                fields = kind(start[:length], endianness=endianness, check=False)
                _require_readable(path, fields)
                return fields
    raise fault(path, "not a NIfTI file", "convert it to .nii.gz")


def _require_readable(path: Path, fields: nib.Nifti1Header) -> None:
    dims = [int(value) for value in fields["dim"]]
    rank = dims[0]
    if not 2 <= rank <= 7 or min(dims[1 : rank + 1]) < 1:
        raise fault(path, f"impossible dimensions {dims} in the header", "export again")
    if max(dims[4 : rank + 1], default=1) > 1:
        raise fault(
            path,
            f"{rank} dimensions of {dims[1 : rank + 1]} voxels where one volume is "
            "expected",
            "split the series and give one volume",
        )
    if np.prod(dims[1:4], dtype=object) > MAX_VOXELS:
        raise fault(
            path,
            f"the header promises {dims[1:4]} voxels, more than {MAX_VOXELS}",
            "crop or resample it, if that size is true",
        )
    code = int(fields["datatype"])
    try:
        dtype = fields.get_data_dtype()
    except (KeyError, HeaderDataError):
        raise fault(path, f"unknown data type {code}", "export again") from None
    if dtype.kind not in _KINDS or dtype.names or dtype.itemsize > 8:
        name = "".join(dtype.names or (dtype.name,))
        raise fault(
            path,
            f"voxels of type {name} where real numbers are expected",
            "convert it to int16 or float32",
        )


def _start(fields: nib.Nifti1Header) -> int:
    """Where the voxels of a file without extensions begin [bytes]."""
    return 352 if int(fields["sizeof_hdr"]) == 348 else 544


def _voxels(path: Path, fields: nib.Nifti1Header) -> Shaped[np.ndarray, "z y x"]:
    """Scaled values in stored order."""
    dtype = fields.get_data_dtype()
    size = _size(fields)
    offset = _start(fields)
    if np.isfinite(fields["vox_offset"]):
        offset = max(offset, int(fields["vox_offset"]))
    num_bytes = offset + int(np.prod(size)) * dtype.itemsize
    content = read_all(path, num_bytes)
    if len(content) < num_bytes:
        raise fault(
            path,
            f"the header promises {size} voxels of {dtype.name} ({num_bytes} bytes), "
            f"the file holds {len(content)} bytes",
            "copy or export it again",
        )
    values = np.frombuffer(content, dtype, int(np.prod(size)), offset).reshape(size)
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return values
    inter = inter if np.isfinite(inter) else 0.0
    if (slope, inter) == (1.0, 0.0):
        return values
    scaled = np.empty(size, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for part, out in zip(values, scaled, strict=True):  # doubles of a slice only
            out[...] = part.astype(np.float64) * slope + inter
    return scaled


def _write(
    path: Path, array: Shaped[np.ndarray, "z y x"], fields: nib.Nifti1Header
) -> None:
    """Write voxels under a header; atomic."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: the name of a volume ends in .nii or .nii.gz")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    kind, num_bytes = array.dtype.kind, array.dtype.itemsize
    if kind not in _KINDS or num_bytes > 8 or (kind, num_bytes) == ("f", 2):
        raise ValueError(f"{path}: NIfTI has no {array.dtype}; cast it to float32")
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    fields.set_data_dtype(array.dtype)
    fields["vox_offset"] = _start(fields)
    fields["magic"] = b"n+1" if _start(fields) == 352 else b"n+2"
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    write_pieces(path, (bytes(fields.binaryblock), bytes(4), array.data.cast("B")))


def _size(fields: nib.Nifti1Header) -> tuple[int, int, int]:
    rank = int(fields["dim"][0])
    x, y, z = (int(fields["dim"][i]) if i <= rank else 1 for i in (1, 2, 3))
    return z, y, x


def _describe(path: Path, fields: nib.Nifti1Header) -> Header:
    affine, remarks = affine_of(path, fields, _size(fields))
    if int(fields["dim"][0]) > 3:
        remarks += ("a 4-D file with one volume; read as 3-D",)
    turn = io_orientation(affine)
    return Header(
        path=path,
        size=_size(fields),
        affine=affine,
        spacing_mm=spacing_of(affine),
        sform_code=int(fields["sform_code"]),
        qform_code=int(fields["qform_code"]),
        dtype=fields.get_data_dtype(),
        axes="".join(str(code) for code in ornt2axcodes(turn)),
        remarks=remarks,
    )


def spacing_of(affine: Float[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    """Voxel size along z, y, x, freed of the header's float32 noise."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return round(float(z), 6), round(float(y), 6), round(float(x), 6)


def _identity_turn() -> Float[np.ndarray, "3 2"]:
    return np.array([[0, 1], [1, 1], [2, 1]], np.float64)


def _turn(
    header: Header, orientation: Orientation
) -> tuple[Float[np.ndarray, "3 2"], Float[np.ndarray, "4 4"]]:
    """How to turn the stored x, y, z array, and the affine of the turned one."""
    if orientation == "stored":
        return _identity_turn(), header.affine
    turn = np.asarray(io_orientation(header.affine), np.float64)
    return turn, header.affine @ inv_ornt_aff(turn, header.size[::-1])
