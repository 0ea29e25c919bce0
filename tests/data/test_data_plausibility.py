"""Doubts of check: not stripped, not registered, there twice."""

import json
from pathlib import Path

import numpy as np
import pytest

from bmjax.cli import FAILED, OK, main
from bmjax.data import nifti
from bmjax.data.nifti import Scan
from bmjax.data.plausibility import (
    is_stripped,
    look,
    registration_doubts,
    stripping_doubts,
)

CHANNELS = ("t1c", "t1n", "t2f", "t2w")


def run(*argv):
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in argv])
    return stopped.value.code


def scan(array, like):
    return Scan(array, like.affine, like.spacing_mm, like.path)


@pytest.fixture
def scans(real_cases):
    """A real case whose channels lie well on each other."""
    folder = real_cases / "BraTS-SSA-00028-000"
    return {
        name: nifti.load(folder / f"{folder.name}-{name}.nii.gz")
        for name in ("t1c", "t2f")
    }


def test_a_real_stripped_and_registered_case_raises_no_doubt(scans):
    looks = {name: look(scan) for name, scan in scans.items()}
    assert is_stripped(looks)
    assert stripping_doubts(looks) == registration_doubts(looks) == []


def test_a_background_of_noise_or_too_much_tissue_raises_a_doubt(scans, rng):
    t1c = scans["t1c"]
    noisy = t1c.array + rng.uniform(1, 5, t1c.array.shape).astype(np.float32)
    (doubt,) = stripping_doubts({"t1c": look(scan(noisy, t1c))})
    assert "t1c not skull-stripped? at most 0%" in doubt
    head = np.zeros_like(t1c.array)
    head[20:, 40:200, 40:190] = 1 + t1c.array[20:, 40:200, 40:190]
    looks = {"t1c": look(scan(head, t1c))}
    assert not is_stripped(looks)
    (doubt,) = stripping_doubts(looks)
    assert "more than a brain is not 0: t1c 3240 ml" in doubt
    assert stripping_doubts({"ct": look(scan(noisy, t1c))}) == []


def test_channels_stripped_by_different_masks_raise_a_doubt(scans):
    half = scans["t2f"].array.copy()
    half[:80] = 0
    looks = {"t1c": look(scans["t1c"]), "t2f": look(scan(half, scans["t2f"]))}
    (doubt,) = stripping_doubts(looks)
    assert "t2f and t1c are not 0 in different places (Dice 0." in doubt


@pytest.mark.parametrize("shift", [(0, 6, 0), (5, 0, 4)])
def test_a_displaced_channel_raises_a_doubt_even_under_the_same_mask(scans, shift):
    t2f = scans["t2f"]
    moved = np.roll(t2f.array, shift, (0, 1, 2)) * (scans["t1c"].array != 0)
    looks = {"t1c": look(scans["t1c"]), "t2f": look(scan(moved, t2f))}
    (doubt,) = registration_doubts(looks)
    assert "t2f not registered to t1c? their edges fit better about" in doubt


def test_a_channel_of_another_patient_raises_a_doubt(scans, real_cases):
    other = nifti.load(
        real_cases / "BraTS-SSA-00012-000" / "BraTS-SSA-00012-000-t2f.nii.gz"
    )
    strange = scan(np.rot90(other.array, 2, (0, 1)).copy(), other)
    looks = {"t1c": look(scans["t1c"]), "t2f": look(strange)}
    assert registration_doubts(looks)


def test_thin_and_tiny_volumes_are_looked_at_too():
    for size in ((1, 20, 20), (3, 5, 7), (2, 2, 2)):
        like = Scan(np.zeros(size, np.float32), np.eye(4), (1.0, 1.0, 1.0), Path("x"))
        assert look(like).p_zero == 1


def write_case(root, case, values, *, suffix=".nii.gz"):
    size = (6, 7, 8)
    labels = np.zeros(size, np.uint8)
    labels[1, 1:3, 1:4] = [[1, 2, 3], [3, 2, 1]]
    arrays = {
        name: np.random.default_rng([values, i]).integers(1, 900, size)
        for i, name in enumerate(CHANNELS)
    }
    for name, array in (arrays | {"seg": labels}).items():
        array[..., 5:] = 0
        path = root / case / f"{case}-{name}{suffix}"
        nifti.write(path, array.astype(np.int16), affine=np.eye(4))


def report_of(root, capsys, *flags):
    code = run("check", root, "--json", "--num-workers", "1", *flags)
    return code, json.loads(capsys.readouterr().out)


def test_a_scan_that_is_there_twice_is_found(tmp_path, capsys):
    write_case(tmp_path, "P-00001-000", 1)
    write_case(tmp_path, "P-00001-001", 1, suffix=".nii")
    write_case(tmp_path, "P-00002-000", 2)
    code, report = report_of(tmp_path, capsys)
    assert code == OK
    (warning,) = report["warnings"]
    assert warning["case"] == "P-00001-001"
    assert "the same scan as P-00001-000 (t1c, t1n, t2f, t2w)" in warning["message"]
    write_case(tmp_path, "P-00003-000", 2)
    code, report = report_of(tmp_path, capsys)
    assert code == FAILED
    assert "of another patient by its name" in report["problems"][0]["message"]


def test_one_scan_as_two_channels_is_a_problem(tmp_path, capsys):
    write_case(tmp_path, "a", 1)
    copy = nifti.load(tmp_path / "a" / "a-t2f.nii.gz")
    nifti.write(tmp_path / "a" / "a-t2w.nii.gz", copy.array, affine=np.eye(4))
    code, report = report_of(tmp_path, capsys)
    assert code == FAILED
    assert "t2f and t2w hold the same voxels" in report["problems"][0]["message"]


def test_the_label_map_and_the_table_are_printed(tmp_path, capsys):
    write_case(tmp_path, "a", 1)
    code = run("check", tmp_path, "--label-map", "1=2", "2=1", "--num-workers", "1")
    text = " ".join(capsys.readouterr().out.split())
    assert code == OK
    assert "1 of 1 cases show a brain on a background of zeros" in text
    assert "value label WT TC ET comes back as 1 NETC x x - 1" in text
    assert "in the files used as 0 0 background as it is 1 2 SNFH 2 1 NETC" in text


def test_a_data_set_without_any_lesion_is_a_problem(tmp_path, capsys):
    write_case(tmp_path, "a", 1)
    code, report = report_of(tmp_path, capsys, "--label-map", "1=0", "2=0", "3=0")
    assert code == FAILED
    assert "no case has a lesion" in report["problems"][0]["message"]
