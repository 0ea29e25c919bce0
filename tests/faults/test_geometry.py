"""Faults of geometry (rows 20 to 34): ranks, grids, affines, orientations, sizes."""

import itertools
import re
import struct

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes, axcodes2ornt, io_orientation
from scene import (
    BROKEN,
    CHANNELS,
    FLAT,
    SIZE,
    SOUND,
    Done,
    assert_said,
    image,
    labels,
    rewrite,
    write_exam,
    write_model,
)

from bmjax.cli import FAILED, OK
from bmjax.data import nifti
from bmjax.data.store import Store

FILE = "A-001-t2f.nii.gz"


def put(scene, array, affine=None, channel="t2f"):
    affine = np.eye(4) if affine is None else affine
    nifti.write(scene.path(channel), array, affine=affine)


def change_header(scene, channels=CHANNELS, **fields):
    """Set header fields as no writer would, in files of the broken case."""
    for channel in channels:

        def change(content):
            header = nib.Nifti1Header(bytes(content[:348]), check=False)
            for name, value in fields.items():
                header[name] = value
            content[:348] = header.binaryblock

        rewrite(scene.path(channel), change)


def turned(degrees):
    """An affine turned about an axis that is none of the scanner's."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    affine[:3, 3] = 11, -7, 30
    return affine


def test_fault_20_one_volume_in_4d_is_taken_and_a_series_refused(scene):
    array = image(BROKEN, "t2f").T[..., None]
    nib.save(nib.Nifti1Image(array, np.eye(4)), scene.path("t2f"))
    said = "a 4-D file with one volume; read as 3-D"
    assert_said(scene.check(), FILE, said)
    scene.is_predicted(said)
    series = np.concatenate([array, array], axis=3)
    nib.save(nib.Nifti1Image(series, np.eye(4)), scene.path("t2f"))
    scene.fails_alone("4 dimensions", "give one volume", name=FILE)


def test_fault_21_a_slice_for_3d_and_a_volume_for_2d_are_predicted(scene, tmp_path):
    write_exam(scene.raw, BROKEN, size=(1, 18, 20), labelled=False)
    scene.is_predicted(f"{BROKEN}: a single slice, where the network was trained on")
    assert scene.labels().shape == (20, 18, 1)
    flat = write_model(tmp_path / "flat", FLAT)
    out = tmp_path / "sliced"
    done = scene.predict(model=flat, out=out)
    assert done.code == OK
    assert "single slice" not in done.said
    assert scene.labels(SOUND, out).shape == SIZE[::-1]
    assert scene.labels(BROKEN, out).shape == (20, 18, 1)


def test_fault_22_sizes_that_differ_are_shown_as_a_table(scene):
    put(scene, image(BROKEN, "t2f", (16, 18, 21)))
    scene.fails_alone("t1c", "16 x 18 x 20", "t2f", "16 x 18 x 21")


def test_fault_23_a_tiny_difference_of_affines_is_accepted_silently(scene):
    affine = np.eye(4)
    affine[0, 3] = 1e-5
    put(scene, image(BROKEN, "t2f"), affine)
    before = scene.check()
    assert before.code == OK
    assert "grid" not in before.said and "warning" not in before.said
    done = scene.is_predicted()
    assert BROKEN not in done.said


def test_fault_24_other_grids_are_refused_or_resampled_when_asked_for(scene):
    moved = np.eye(4)
    moved[2, 3] = 0.2
    put(scene, image(BROKEN, "t2f"), moved)
    scene.fails_alone("t2f lies up to 0.2 voxels away from t1c")
    put(scene, image(BROKEN, "t2f", (8, 9, 10)), np.diag([2.0, 2.0, 2.0, 1.0]))
    scene.fails_alone("t2f", "8 x 9 x 10", "t1c", "16 x 18 x 20")
    scene.cannot_be_prepared(BROKEN, "8 x 9 x 10")
    flags = ("--resample-to", "t1c")
    assert_said(scene.check(), "--resample-to t1c")
    done = scene.check(*flags)
    assert done.code == OK
    assert_said(done, "(will be done)")
    scene.is_predicted("resampled from 8 x 9 x 10", flags=("--overwrite", *flags))
    assert scene.labels().shape == SIZE[::-1]
    assert scene.prepare(*flags).code == OK
    case = Store(scene.store).case(BROKEN)
    assert any("resampled from 8 x 9 x 10" in text for text in case.warnings)
    assert case.source.reading.resample_to == "t1c"


def test_fault_25_two_different_forms_are_remarked_and_the_sform_taken(scene):
    change_header(scene, qoffset_x=40)
    said = ("sform", "and qform", "40.", "differ; the sform is used")
    assert_said(scene.check(), FILE, *said)
    scene.is_predicted(FILE, *said)
    made = nib.load(scene.out / f"{BROKEN}.nii.gz")
    np.testing.assert_array_equal(made.affine, np.eye(4))
    assert made.header["qoffset_x"] == 40  # what it was given, it gives back


def test_fault_26_without_any_form_the_voxel_size_is_taken(scene):
    fields = {"sform_code": 0, "qform_code": 0, "pixdim": [1, 2, 1, 3, 0, 0, 0, 0]}
    change_header(scene, [*CHANNELS, "seg"], **fields)
    said = "neither sform nor qform; orientation assumed from the voxel size"
    assert_said(scene.check(), FILE, said, "3 x 1 x 2 mm")
    scene.is_predicted(FILE, said)
    header = nib.load(scene.out / f"{BROKEN}.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)
    np.testing.assert_array_equal(header["pixdim"][1:4], [2, 1, 3])


@pytest.mark.parametrize("row", [[0, 0, 0, 5], [1, 0, 0, 5], [np.nan, 0, 0, 0]])
def test_fault_27_a_singular_affine_is_an_error(scene, row):
    change_header(scene, ["t2f"], srow_x=row, srow_y=row, srow_z=[0, 0, 1, 0])
    kind = "singular" if np.isfinite(row).all() else "impossible"
    scene.fails_alone(f"{kind} affine", "correct the header", name=FILE)


def test_fault_28_a_sheared_affine_is_predicted_and_remarked(scene):
    change_header(scene, srow_x=[1, 0.2, 0, 0], qform_code=0)
    assert_said(scene.check(), FILE, "sheared", "degrees")
    scene.is_predicted(FILE, "sheared")
    sheared = nib.load(scene.path("t2f")).affine
    made = nib.load(scene.out / f"{BROKEN}.nii.gz").affine
    np.testing.assert_array_equal(made, sheared)


AXES = [
    turn
    for order in itertools.permutations("RAS")
    for turn in itertools.product(
        *[(a, {"R": "L", "A": "P", "S": "I"}[a]) for a in order]
    )
]


@pytest.mark.slow  # its unit test, in tests/inference, is fast
def test_fault_29_all_48_orientations_are_predicted_the_same(scene, tmp_path):
    raw, size = tmp_path / "turned", (12, 13, 14)
    for axes in AXES:
        case = "".join(axes)
        turn = axcodes2ornt(axes)
        for channel in CHANNELS:
            # one and the same exam, stored along other axes
            upright = nib.Nifti1Image(image("same", channel, size).T, np.eye(4))
            back = nib.orientations.ornt_transform(io_orientation(np.eye(4)), turn)
            path = raw / case / f"{case}-{channel}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(upright.as_reoriented(back), path)
    done = scene.predict(raw=raw)
    assert done.code == OK
    found = {}
    for axes in AXES:
        made = nib.load(scene.out / f"{''.join(axes)}.nii.gz")
        assert aff2axcodes(made.affine) == axes
        found[axes] = np.asarray(nib.as_closest_canonical(made).dataobj)
    wanted = found["R", "A", "S"]
    assert len(found) == 48 and wanted.any()
    for axes, array in found.items():
        np.testing.assert_array_equal(array, wanted, err_msg=str(axes))


def test_fault_30_an_oblique_exam_is_predicted_on_its_own_grid(scene):
    write_exam(scene.raw, BROKEN, affine=turned(20))
    assert scene.check().code == OK
    scene.is_predicted()
    source, made = nib.load(scene.path("t1c")), nib.load(scene.out / f"{BROKEN}.nii.gz")
    assert made.shape == source.shape
    np.testing.assert_array_equal(made.affine, source.affine)
    for name in ("sform_code", "qform_code", "pixdim", "quatern_b", "quatern_c"):
        np.testing.assert_array_equal(made.header[name], source.header[name])


def test_fault_31_thick_slices_are_handled_and_measured_in_mm(scene, tmp_path):
    size, affine = (8, 48, 48), np.diag([0.5, 0.5, 6.0, 1.0])
    for case in (BROKEN, SOUND):
        write_exam(scene.raw, case, size=size, affine=affine)
    assert_said(scene.check(), "8 x 48 x 48 voxels of 6 x 0.5 x 0.5 mm")
    assert scene.prepare().code == OK
    plan = Store(scene.store).plan
    assert plan.spacing_mm == (6.0, 0.5, 0.5) and plan.kernel_sizes[0] == (1, 3, 3)
    scene.is_predicted()
    assert scene.labels().shape == (48, 48, 8)
    second = tmp_path / "second"
    moved = {BROKEN: 0, SOUND: 1}  # each lesion, one slice higher in the other case
    for case, shift in moved.items():
        array = np.roll(labels(size), shift, axis=0)
        nifti.write(second / f"{case}.nii.gz", array, affine=affine)
    done = scene.run("evaluate", second, scene.raw, "--out", tmp_path / "scores")
    assert done.code == OK
    lines = (tmp_path / "scores" / "cases.csv").read_text().splitlines()
    rows = [
        dict(zip(lines[0].split(","), line.split(","), strict=True))
        for line in lines[1:]
    ]
    by_case = {row["case"]: row for row in rows}
    assert float(by_case[BROKEN]["hd95_monai_WT"]) == 0
    assert float(by_case[SOUND]["hd95_monai_WT"]) == pytest.approx(6)
    volume_ml = np.count_nonzero(labels(size)) * 0.5 * 0.5 * 6 / 1000
    assert float(by_case[BROKEN]["reference_ml_WT"]) == pytest.approx(volume_ml)


@pytest.mark.parametrize("value", [0.0, float("nan"), -1.0])
def test_fault_32_an_odd_voxel_size_is_an_error_or_the_affine_used(scene, value):
    pixdim = [1, 1, value, 1, 0, 0, 0, 0]
    change_header(scene, ["t2f"], pixdim=pixdim)
    assert scene.check().code == OK  # its sform says the size
    scene.is_predicted()
    change_header(scene, [*CHANNELS, "seg"], sform_code=0, qform_code=0)
    scene.out = scene.folder / "again"
    if value < 0:  # the standard takes its amount
        scene.is_predicted("neither sform nor qform")
    else:
        kind = "singular" if value == 0 else "impossible"
        scene.fails_alone(f"{kind} affine", name=FILE)


@pytest.mark.parametrize("size", [(3, 10, 10), (1, 10, 10), (1, 1, 1)])
def test_fault_33_a_volume_smaller_than_a_patch_is_predicted(scene, size):
    for channel in CHANNELS:
        put(
            scene,
            np.arange(1, 1 + np.prod(size), dtype=np.int16).reshape(size),
            None,
            channel,
        )
    scene.is_predicted()
    assert scene.labels().shape == size[::-1]


def test_fault_34_memory_of_a_huge_exam_is_said_before_it_is_taken(scene):
    def enlarge(content):
        content[42:48] = struct.pack("<3h", 512, 512, 400)

    for channel in CHANNELS:
        rewrite(scene.path(channel), enlarge)
    done: Done = scene.predict()
    assert done.code == FAILED
    windows = int(re.search(r"2 cases, (\d+) windows", done.said)[1])
    gib = float(re.search(r"memory up to ([\d.]+) GiB", done.said)[1])
    voxels = 512 * 512 * 400
    assert windows > voxels / 16**3
    # four channels as float32, and three regions of logits, at the least
    assert 7 * 4 * voxels / 2**30 < gib < 40 * 4 * voxels / 2**30
    assert_said(done, BROKEN, "the header promises", "the file holds")
    assert scene.outcomes() == {BROKEN: "failed", SOUND: "done"}
