"""NIfTI files with any field of their header set to anything, and where voxels lie."""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from hypothesis import strategies as st

from bmjax.data import nifti
from tests.faults.fuzz import damaged, outcome

_NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-3, 1e3, math.nan, math.inf, 1e38, 1e-40]),
    st.floats(-4, 4, width=32),
    st.floats(width=32),
)
_CODES = st.one_of(st.integers(-1, 4), st.integers(-(2**15), 2**15 - 1))
_DTYPES = [2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2304]
_DIMS = st.one_of(
    st.lists(st.integers(0, 7), min_size=8, max_size=8),
    st.lists(st.sampled_from([-1, 0, 1, 3, 32767]), min_size=8, max_size=8),
)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """A name and the bytes of a scan of a few voxels, most of it in order."""
    kind = draw(st.sampled_from([nib.Nifti1Header, nib.Nifti2Header]))
    fields = kind(endianness=draw(st.sampled_from("<>")))
    size = draw(st.tuples(*[st.integers(1, 5)] * 3))
    fields.set_data_shape(size)
    code = draw(st.sampled_from(_DTYPES[:3] if draw(st.booleans()) else _DTYPES))
    fields["datatype"] = code
    fields["vox_offset"] = 352 if kind is nib.Nifti1Header else 544
    fields["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2"
    fields["sform_code"], fields["qform_code"] = draw(
        st.tuples(*[st.integers(0, 2)] * 2)
    )
    rows = np.diag([*draw(st.tuples(*[st.sampled_from([-2.0, 1.0, 0.5])] * 3)), 1.0])
    rows = rows[[*draw(st.permutations([0, 1, 2])), 3]]
    for name, row in zip(("srow_x", "srow_y", "srow_z"), rows, strict=False):
        fields[name] = row
    fields["pixdim"][1:4] = draw(st.tuples(*[st.sampled_from([1.0, 0.5, 5.0])] * 3))
    _disturb(draw, fields)
    voxels = np.resize(np.arange(251, dtype=np.uint8), math.prod(size) * 16)
    gap = bytes(352 - 348) if kind is nib.Nifti1Header else bytes(544 - 540)
    content = bytes(fields.binaryblock) + gap + voxels.tobytes()
    content = draw(damaged(content))
    if draw(st.booleans()):
        content = zlib.compress(content, wbits=31)
        content = draw(damaged(content)) if draw(st.booleans()) else content
    return {"name": draw(st.sampled_from(["a.nii", "a.nii.gz"])), "bytes": content}


def _disturb(draw: st.DrawFn, fields: nib.Nifti1Header) -> None:
    """Set up to three fields to anything that they can hold."""
    names = st.sampled_from(
        [
            *("dim", "pixdim", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c"),
            *("quatern_d", "qoffset_x", "scl_slope", "scl_inter", "vox_offset"),
            *("sform_code", "qform_code", "datatype", "bitpix", "sizeof_hdr", "magic"),
        ]
    )
    for name in draw(st.lists(names, max_size=3)):
        if name == "dim":
            fields[name] = draw(_DIMS)
        elif name in ("pixdim", "srow_x", "srow_y", "srow_z"):
            count = 8 if name == "pixdim" else 4
            fields[name] = draw(st.lists(_NUMBERS, min_size=count, max_size=count))
        elif name == "magic":
            fields[name] = draw(st.binary(max_size=4))
        elif fields[name].dtype.kind == "f":
            fields[name] = draw(_NUMBERS)
        elif name == "vox_offset":
            fields[name] = draw(st.integers(-(2**62), 2**62))
        else:
            fields[name] = draw(_CODES)


def check(content: dict[str, Any], folder: Path) -> bool:
    """One file by all readers; true where it was read, and then rightly."""
    path = folder / content["name"]
    path.write_bytes(content["bytes"])
    header = outcome(nifti.read_header, path)
    stored = outcome(lambda p: nifti.read(p, orientation="stored", dtype=None), path)
    turned = outcome(lambda p: nifti.read(p, dtype=None), path)
    labels = outcome(nifti.read_labels, path)
    if stored is None:
        assert turned is None and labels is None
        return False
    assert header is not None and turned is not None
    assert stored.array.shape == header.size
    assert stored.array.size <= nifti.MAX_VOXELS
    _require_values(content["bytes"], stored.array)
    _require_place(content["bytes"], stored, turned)
    if labels is not None:
        assert labels.array.dtype.kind in "iu"
        np.testing.assert_allclose(labels.array, turned.array, atol=1e-3)
    return True


def _unpacked(content: bytes) -> tuple[bytes, str]:
    """What the file holds, and its byte order."""
    if content.startswith(b"\x1f\x8b"):
        content = zlib.decompressobj(31).decompress(content)
    (size,) = struct.unpack("<i", content[:4])
    return content, "<" if size in (348, 540) else ">"


_NIFTI1 = {
    **{"datatype": (70, "h"), "offset": (108, "f"), "slope": (112, "2f")},
    **{"pixdim": (76, "4f"), "codes": (252, "2h"), "quatern": (256, "6f")},
    "rows": (280, "12f"),
}
_NIFTI2 = {
    **{"datatype": (12, "h"), "offset": (168, "q"), "slope": (176, "2d")},
    **{"pixdim": (104, "4d"), "codes": (344, "2i"), "quatern": (352, "6d")},
    "rows": (400, "12d"),
}
_NUMPY = {
    **{2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1"},
    **{512: "u2", 768: "u4", 1024: "i8", 1280: "u8"},
}


def _field(content: bytes, order: str, name: str) -> tuple[Any, ...]:
    """A field by its place in the standard, not by any library."""
    is_first = struct.unpack(f"{order}i", content[:4])[0] == 348
    place, form = (_NIFTI1 if is_first else _NIFTI2)[name]
    return struct.unpack_from(order + form, content, place)


def _require_values(packed: bytes, array: np.ndarray) -> None:
    """The voxels are those of the file, scaled as the standard says."""
    content, order = _unpacked(packed)
    (code,) = _field(content, order, "datatype")
    (offset,) = _field(content, order, "offset")
    slope, inter = _field(content, order, "slope")
    start = (
        352
        if len(content) and struct.unpack(f"{order}i", content[:4])[0] == 348
        else 544
    )
    start = max(start, int(offset)) if math.isfinite(offset) else start
    dtype = np.dtype(order + _NUMPY[code])
    raw = np.frombuffer(content, dtype, array.size, start).reshape(array.shape)
    with np.errstate(all="ignore"):
        shift = inter if math.isfinite(inter) else 0.0
        is_scaled = slope != 0 and math.isfinite(slope) and (slope, shift) != (1, 0)
        if is_scaled:
            raw = (raw.astype(np.float64) * slope + shift).astype(np.float32)
        np.testing.assert_allclose(array, raw.astype(array.dtype), rtol=1e-5)


def _require_place(packed: bytes, stored: nifti.Scan, turned: nifti.Scan) -> None:
    """Each voxel lies where the standard says, also once the array is turned."""
    content, order = _unpacked(packed)
    expected = _standard_affine(content, order)
    if expected is not None:
        np.testing.assert_allclose(stored.affine[:3], expected, rtol=1e-4, atol=1e-4)
    spacing = np.linalg.norm(stored.affine[:3, :3], axis=0)
    np.testing.assert_allclose(stored.spacing_mm[::-1], spacing, atol=1e-6, rtol=1e-6)
    way = np.linalg.solve(turned.affine[:3, :3], stored.affine[:3, :3])
    axes = np.rint(way).astype(int)
    if not np.allclose(way, axes, atol=1e-3):
        return  # voxels of 1e30 mm: no numbers left for their places
    assert sorted(np.abs(axes).sum(0)) == sorted(np.abs(axes).sum(1)) == [1, 1, 1]
    index = np.stack(
        np.meshgrid(*map(np.arange, stored.array.T.shape), indexing="ij"), -1
    )
    moved = index @ axes.T
    moved -= moved.reshape(-1, 3).min(0)
    np.testing.assert_array_equal(
        stored.array.T, turned.array.T[tuple(np.moveaxis(moved, -1, 0))]
    )
    first = turned.affine[:3, 3] + turned.affine[:3, :3] @ moved[0, 0, 0]
    scale = np.abs(turned.affine[:3]).max()
    np.testing.assert_allclose(first / scale, stored.affine[:3, 3] / scale, atol=1e-6)


def _standard_affine(content: bytes, order: str) -> np.ndarray | None:
    """Rows of the sform, else the qform; None where the file has neither, or no sound
    one (https://nifti.nimh.nih.gov/nifti-1, methods 2 and 3)."""
    qform_code, sform_code = _field(content, order, "codes")
    if sform_code > 0:
        return np.array(_field(content, order, "rows")).reshape(3, 4)
    if qform_code <= 0:
        return None
    fac, *size = _field(content, order, "pixdim")
    b, c, d, *offset = _field(content, order, "quatern")
    rest = 1 - b * b - c * c - d * d
    if not (np.isfinite([*size, b, c, d]).all() and min(size) > 0 and rest >= 0):
        return None
    a = math.sqrt(rest)
    turn = np.array(
        [
            [
                a * a + b * b - c * c - d * d,
                2 * b * c - 2 * a * d,
                2 * b * d + 2 * a * c,
            ],
            [
                2 * b * c + 2 * a * d,
                a * a + c * c - b * b - d * d,
                2 * c * d - 2 * a * b,
            ],
            [
                2 * b * d - 2 * a * c,
                2 * c * d + 2 * a * b,
                a * a + d * d - c * c - b * b,
            ],
        ]
    )
    size[2] *= -1 if fac < 0 else 1
    return np.column_stack([turn * size, offset])
