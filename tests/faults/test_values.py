"""Faults of values (rows 13 to 19): not finite, constant, scaled, of odd types."""

import nibabel as nib
import numpy as np
from scene import BROKEN, CHANNELS, SIZE, SOUND, assert_said, brain, image, write_exam

from bmjax.cli import FAILED, OK
from bmjax.data import nifti
from bmjax.data.store import Store

FILE = "A-001-t2f.nii.gz"


def put(scene, array, channel="t2f"):
    nifti.write(scene.path(channel), array, affine=np.eye(4))


def save(scene, stored, *, channel="t2f", order="<", slope=None, inter=None):
    """A file by nibabel, whose header fields may hold what no writer would put."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(stored.dtype.newbyteorder(order))
    picture = nib.Nifti1Image(stored.T, np.eye(4), header)
    nib.save(picture, scene.path(channel))
    if slope is not None:
        packed = nib.openers.Opener(scene.path(channel), "rb").read()
        fields = nib.Nifti1Header(packed[:348], endianness=order, check=False)
        fields["scl_slope"], fields["scl_inter"] = slope, inter
        scene.path(channel).write_bytes(bytes(fields.binaryblock) + packed[348:])


def test_fault_13_nan_is_refused_or_taken_for_zero_on_request(scene):
    array = image(BROKEN, "t2f").astype(np.float32)
    array[8, 8, 8:11] = np.nan, np.inf, -np.inf
    put(scene, array)
    scene.fails_alone("3 voxels are NaN or infinite", name=FILE)
    scene.cannot_be_prepared(BROKEN, FILE, "3 voxels are NaN or infinite")
    scene.is_predicted(f"{FILE}: 3 NaN or infinite", flags=("--zero-nonfinite",))


def test_fault_14_a_constant_image_is_predicted_with_a_word_but_not_learnt(scene):
    put(scene, np.full(SIZE, 7, np.int16))
    put(scene, np.zeros(SIZE, np.int16), "t2w")
    done = scene.check()
    assert done.code == FAILED
    assert_said(done, BROKEN, FILE, "every voxel is 7", "every voxel is 0")
    scene.cannot_be_prepared(BROKEN, FILE, "every voxel is 7", "export it again")
    scene.is_predicted(f"{FILE}: every voxel is 7", "every voxel is 0")
    for channel in CHANNELS:
        put(scene, np.zeros(SIZE, np.int16), channel)
    done = scene.predict("--overwrite")
    assert done.code == FAILED
    assert_said(done, BROKEN, "every voxel of every channel is 0")
    assert scene.outcomes() == {BROKEN: "failed", SOUND: "done"}


def test_fault_15_a_scale_of_zero_or_nan_is_no_scale(scene, tmp_path):
    scene.is_predicted()
    wanted = scene.labels()
    stored = image(BROKEN, "t2f")
    cases = [(0.0, 0.0), (0.0, 5.0), (np.nan, np.nan), (np.nan, 3.0), (1.0, np.nan)]
    for i, (slope, inter) in enumerate(cases):
        save(scene, stored, slope=slope, inter=inter)
        out = tmp_path / f"out{i}"
        assert scene.predict(out=out).code == OK
        np.testing.assert_array_equal(scene.labels(out=out), wanted)


def test_fault_16_every_storage_type_gives_the_same_result(scene, tmp_path):
    values = image(BROKEN, "t2f") // 4 * 20  # up to 4500, in steps of 20
    save(scene, values.astype(np.float32))
    scene.is_predicted()
    wanted = scene.labels()
    stored = {
        "int16": (values, {}),
        "float64": (values.astype(np.float64), {}),
        "big-endian": (values, {"order": ">"}),
        "uint8, scaled": ((values // 20).astype(np.uint8), {"slope": 20, "inter": 0}),
        # 200 x 20 does not fit the eight bits of the type, nor 4500 x 20 in int16
        "int16, scaled": (values * 7, {"slope": 1 / 7, "inter": 0}),
    }
    for name, (array, how) in stored.items():
        save(scene, array, **how)
        out = tmp_path / name
        assert scene.predict(out=out).code == OK, name
        wrong = np.count_nonzero(scene.labels(out=out) != wanted)
        # a slope of 1/7 is rounded to float32
        assert wrong <= (5 if name == "int16, scaled" else 0), name


def test_fault_17_complex_and_colour_voxels_fail_their_case_alone(scene):
    save(scene, image(BROKEN, "t2f").astype(np.complex64))
    scene.fails_alone("complex64 where real numbers are expected", name=FILE)
    colours = np.zeros(SIZE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(scene, colours)
    scene.fails_alone("RGB where real numbers are expected", name=FILE)
    scene.cannot_be_prepared(BROKEN, FILE, "RGB where real numbers are expected")


def test_fault_18_a_huge_outlier_stays_finite(scene):
    array = image(BROKEN, "t2f").astype(np.float32)
    array[8, 9, 10] = 1e30
    put(scene, array)
    scene.is_predicted(flags=("--maps", "probability"))
    for path in scene.out.glob(f"{BROKEN}_prob_*.nii.gz"):
        assert np.isfinite(nib.load(path).get_fdata()).all()
    assert scene.prepare().code == OK
    assert np.isfinite(Store(scene.store).case(BROKEN).image).all()


def test_fault_19_what_is_not_stripped_or_not_alike_is_said(scene):
    done = scene.check()
    assert done.code == OK
    assert_said(done, "2 of 2 cases show a brain on a background of zeros")
    for channel in CHANNELS:  # noise everywhere, as a scanner delivers it
        noise = np.random.default_rng([*channel.encode()]).integers(1, 99, SIZE)
        put(scene, np.where(brain(), image(BROKEN, channel), noise), channel)
    done = scene.check()
    assert_said(done, "1 of 2 cases show a brain", BROKEN, "not skull-stripped?")
    scene.is_predicted(f"{BROKEN}: not skull-stripped? 0% of the box", "one mask")
    write_exam(scene.raw, BROKEN)
    other = np.where(brain(), image(BROKEN, "t2f"), 0)
    other[:, :, :10] = 0  # half of a brain
    put(scene, other)
    done = scene.check()
    assert_said(done, BROKEN, "t2f and t1c are not 0 in different places")
    scene.is_predicted(f"{BROKEN}: t2f is 0 where other channels are not (Dice 0.6")
