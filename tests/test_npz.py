"""NumPy's archives: plain arrays, and no more memory than the file can fill."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from bmjax.npz import read_npz


def header(shape, dtype="<f4"):
    stream = io.BytesIO()
    facts = {"descr": dtype, "fortran_order": False, "shape": shape}
    npy.write_array_header_2_0(stream, facts)
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    arrays = {"a/b": np.arange(6.0).reshape(2, 3).T, "none": np.zeros((0, 3), np.int8)}
    save(tmp_path / "w.npz", **arrays)
    found = read_npz(tmp_path / "w.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert list(read_npz(tmp_path / "w.npz", ["none"])) == ["none"]


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("w.npy", header((10**12,)) + bytes(1000)),
        ("w.npy", header((2**32, 2**32)) + bytes(1000)),
        ("w.npy", b"\x93NUMPY\x07\x00"),
        ("w.npy", header((1,), "|O") + bytes(8)),
        ("w.txt", b"no array"),
    ],
    ids=["too large", "wraps round", "version", "objects", "no array"],
)
def test_what_cannot_be_read_is_refused_before_memory_is_taken(
    tmp_path, member, content
):
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"w\.npz: is no npz file of plain arrays"):
        read_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.zeros(1000))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02") + 24  # the size in the central directory
    content[place : place + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="larger than it can be"):
        read_npz(path)


def test_a_name_that_is_not_there_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(1))
    with pytest.raises(ValueError, match=r"w\.npz: .*b\.npy"):
        read_npz(tmp_path / "w.npz", ["b"])
