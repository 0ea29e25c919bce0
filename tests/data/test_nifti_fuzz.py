"""Arbitrary bytes and headers: a clear error or a scan, nothing else."""

import warnings
import zlib

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmjax.data import nifti


@given(content=st.binary(max_size=1000))
@settings(max_examples=100, deadline=None)
def test_arbitrary_bytes_give_a_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "a.nii.gz"
    with pytest.raises(ValueError, match="a.nii.gz"):
        path.write_bytes(content)
        nifti.read(path)


@given(position=st.integers(0, 347), value=st.integers(0, 255), packed=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_flipped_header_byte_never_crashes_otherwise(
    tmp_path_factory, position, value, packed
):
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(zlib.compress(content, wbits=31) if packed else content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            nifti.read(path)
        except ValueError as error:
            assert "a.nii" in str(error)
