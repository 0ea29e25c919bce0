"""Faults of files (rows 1 to 12 of the list): missing, doubled, damaged, elsewhere."""

import gzip
import json
import os
import struct

import numpy as np
from scene import (
    BROKEN,
    PLAN,
    SOUND,
    assert_said,
    image,
    rewrite,
    truncate,
    write_exam,
    write_model,
)

from bmjax.cli import FAILED, OK
from bmjax.data import nifti
from bmjax.data.store import Store


def test_fault_01_a_missing_modality_is_named_or_allowed(scene, tmp_path):
    scene.path("t2f").unlink()
    scene.fails_alone("t2f missing", "A-001-t2f.nii.gz")
    scene.cannot_be_prepared(BROKEN, "t2f missing")
    done = scene.predict("--allow-missing")
    assert done.code == FAILED
    assert_said(done, "--augment.p-drop-channel")
    trained = write_model(tmp_path / "dropping", PLAN, p_drop_channel=0.2)
    out = tmp_path / "allowed"
    done = scene.predict("--allow-missing", model=trained, out=out)
    assert done.code == OK
    assert_said(done, f"{BROKEN}: t2f missing, taken as zero")
    assert scene.labels(BROKEN, out).any()


def test_fault_02_an_unknown_modality_is_listed_and_ignored(scene):
    extra = scene.raw / BROKEN / f"{BROKEN}-adc.nii.gz"
    extra.write_bytes(scene.path("t1c").read_bytes())
    done = scene.check()
    assert done.code == OK
    assert_said(done, extra, "not used: no known channel in its name")
    scene.is_predicted(extra, "not used: no known channel in its name")


def _numbered(raw, order, names):
    """The same exams in nnU-Net's layout, channels numbered in another order."""
    (raw / "imagesTr").mkdir(parents=True)
    for case in (BROKEN, SOUND):
        for i, channel in enumerate(order):
            path = raw / "imagesTr" / f"{case}_{i:04}.nii.gz"
            nifti.write(path, image(case, channel), affine=np.eye(4))
    description = {
        "channel_names": dict(enumerate(names)),
        "labels": {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    return raw


def test_fault_03_modalities_go_by_the_names_of_the_data_set(scene, tmp_path):
    order = ("t2w", "t1c", "t2f", "t1n")
    named = _numbered(tmp_path / "named", order, ("T2", "T1Gd", "FLAIR", "T1"))
    scene.is_predicted()
    done = scene.predict(raw=named, out=tmp_path / "other")
    assert done.code == OK
    for case in (BROKEN, SOUND):
        ours, theirs = scene.labels(case), scene.labels(case, tmp_path / "other")
        np.testing.assert_array_equal(ours, theirs)
    odd = _numbered(tmp_path / "odd", order, ("T2", "T1Gd", "ADC", "T1"))
    done = scene.predict(raw=odd, out=tmp_path / "none")
    assert done.code == FAILED
    assert_said(done, "dataset.json", "adc", "t2f wanted", "correct its channel_names")
    assert not (tmp_path / "none").exists()


def test_fault_04_a_case_that_is_there_twice_is_named_with_both_paths(scene):
    packed = scene.path("t1c")
    plain = packed.with_suffix("")
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    scene.fails_alone("t1c is there twice", packed, plain, "keep one")
    scene.cannot_be_prepared("t1c is there twice", packed, plain)


def test_fault_05_long_odd_and_shouted_names_work(scene, tmp_path):
    raw = tmp_path / ("long folder " * 12) / "Bilder Größe (neu) [b]"
    case = "PATIENT Ä 1"
    write_exam(raw, case)
    for path in list((raw / case).iterdir()):
        path.rename(path.with_name(path.name.upper()))
    done = scene.check(raw=raw)
    assert done.code == OK
    assert_said(done, "1 complete cases")
    assert scene.prepare(raw=raw).code == OK
    assert Store(scene.store).ids == (case,)
    assert scene.predict(raw=raw).code == OK
    assert (scene.out / f"{case}.nii.gz").is_file()


def test_fault_06_a_truncated_file_fails_its_case_alone(scene):
    truncate(scene.path("t2f"))
    scene.fails_alone("truncated", "copy or export it again", name="A-001-t2f.nii.gz")
    scene.cannot_be_prepared(BROKEN, "A-001-t2f.nii.gz", "truncated")


def test_fault_07_a_wrong_checksum_fails_its_case_alone(scene):
    content = bytearray(scene.path("t2f").read_bytes())
    content[-8] ^= 1
    scene.path("t2f").write_bytes(bytes(content))
    scene.fails_alone("damaged gzip stream", "check", name="A-001-t2f.nii.gz")
    scene.cannot_be_prepared(BROKEN, "A-001-t2f.nii.gz", "damaged gzip stream")


def test_fault_08_an_empty_file_fails_its_case_alone(scene):
    scene.path("t1n").write_bytes(b"")
    scene.fails_alone("the file is empty (0 bytes)", name="A-001-t1n.nii.gz")


def test_fault_09_the_content_decides_not_the_name(scene):
    before = scene.predict()
    assert before.code == OK
    wanted = scene.labels()
    packed = scene.path("t2w").read_bytes()
    scene.path("t2w").write_bytes(gzip.decompress(packed))  # plain, by a packed name
    scene.is_predicted()
    np.testing.assert_array_equal(scene.labels(), wanted)
    scene.path("t2w").write_bytes(b"this is a text, not a picture\n" * 100)
    scene.fails_alone("not a NIfTI file", name="A-001-t2w.nii.gz")


def test_fault_10_a_header_that_promises_too_much_is_an_error(scene):
    def promise(content):
        content[42:44] = struct.pack("<h", 200)  # dim[1]

    rewrite(scene.path("t1c"), promise)
    scene.fails_alone("the header promises", "bytes", name="A-001-t1c.nii.gz")


def test_fault_11_absurd_sizes_are_refused_before_memory_is_taken(scene):
    def blow_up(content):
        content[42:48] = struct.pack("<3h", 32767, 32767, 32767)

    rewrite(scene.path("t1c"), blow_up)
    content = gzip.decompress(scene.path("t1c").read_bytes())
    # a bomb: what it unpacks to is a thousand times the file
    bomb = gzip.compress(content + bytes(2**26))
    scene.path("t1c").write_bytes(bomb)
    scene.fails_alone("promises [32767, 32767, 32767] voxels", name="A-001-t1c.nii.gz")


def test_fault_12_links_and_manifests_do_not_lead_outside(scene, tmp_path):
    elsewhere = tmp_path / "elsewhere.nii.gz"
    scene.path("t1c").rename(elsewhere)
    scene.path("t1c").symlink_to(elsewhere)
    scene.fails_alone("outside of the data folder", elsewhere)
    assert scene.predict("--allow-outside").code == OK
    scene.path("t1c").unlink()
    scene.path("t1c").symlink_to(tmp_path / "nowhere.nii.gz")
    done = scene.check()
    assert done.code == FAILED
    assert_said(done, BROKEN, tmp_path / "nowhere.nii.gz", "which does not exist")
    scene.path("t1c").unlink()
    header = "case,t1c,t1n,t2f,t2w\n"
    row = [os.path.relpath(elsewhere, scene.raw)]
    row += [f"{SOUND}/{SOUND}-{name}.nii.gz" for name in ("t1n", "t2f", "t2w")]
    (scene.raw / "manifest.csv").write_text(header + ",".join(["X", *row]) + "\n")
    done = scene.check()
    assert done.code == FAILED
    assert_said(done, "X", "../elsewhere.nii.gz", "outside")
