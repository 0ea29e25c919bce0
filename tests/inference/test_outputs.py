"""What is written beside the label files: maps, tables, segmentations, and no more."""

import csv
import gzip
from dataclasses import replace

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from exams import PLAN, apply, labels_of, network, record, write_case
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.tree_util import Partial

from bmjax.data import nifti
from bmjax.evaluation.prediction import read_prediction
from bmjax.inference import Outputs, predict_cases, stack_folds
from bmjax.inference.uncertainty import (
    disagreement,
    entropy_bits,
    mean_probability,
    sigmoid,
)
from bmjax.planning import BRATS_METS

finite = st.floats(-500, 500, width=32)


@given(arrays(np.float32, 20, elements=finite))
def test_sigmoids_of_opposite_logits_add_up_to_one(logits):
    np.testing.assert_allclose(sigmoid(logits) + sigmoid(-logits), 1, rtol=1e-6)
    assert sigmoid(logits).dtype == np.float32


@given(arrays(np.float32, (3, 20), elements=finite))
def test_entropy_and_disagreement_have_their_bounds(logits):
    probs = mean_probability(logits, average="probabilities")
    entropy = entropy_bits(probs)
    assert entropy.min() >= 0 and entropy.max() <= 1 + 1e-6
    apart = disagreement(logits)
    assert apart.min() >= 0 and apart.max() <= 0.5 + 1e-6


def test_entropy_is_a_bit_at_one_half_and_nothing_at_the_ends():
    np.testing.assert_allclose(
        entropy_bits(np.array([0, 0.5, 1, 0.11], np.float32)),
        [0, 1, 0, 0.4999],
        atol=1e-4,
    )


def gentle(params, image):
    """Logits of a few units, so that probabilities are not only 0 and 1."""
    return (apply({"level": jnp.float32(50)}, image) + params["shift"]) / 20


def folds(*shifts):
    return stack_folds([Partial(gentle, {"shift": np.float32(s)}) for s in shifts])


def test_probability_maps_are_those_that_evaluation_reads(tmp_path):
    case = write_case(tmp_path, "A-001", affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    outputs = Outputs(maps=("probability",))
    (result,) = predict_cases(
        Partial(gentle, {"shift": jnp.float32(0)}),
        [case],
        PLAN,
        tmp_path / "out",
        outputs=outputs,
    )
    assert [path.name for path in result.files] == [
        f"A-001_prob_{region}.nii.gz" for region in ("WT", "TC", "ET")
    ]
    reference = nifti.read_labels(result.path)
    read = read_prediction(result.path, "A-001", scheme=BRATS_METS, reference=reference)
    inside = reference.array > 0
    assert (read.probs["WT"].array[inside] > 0.5).all()
    np.testing.assert_allclose(
        read.probs["WT"].array[inside].max(), 1 / (1 + np.exp(-2.5)), rtol=1e-4
    )
    for path in result.files:
        np.testing.assert_array_equal(
            nib.load(path).affine, nib.load(case.images["t1c"]).affine
        )
    # labels made from the maps alone are the label file
    result.path.unlink()
    again = read_prediction(
        result.path, "A-001", scheme=BRATS_METS, reference=reference
    )
    np.testing.assert_array_equal(again.labels.array, reference.array)


def test_folds_are_averaged_as_logits_or_as_probabilities(tmp_path):
    case = write_case(tmp_path, "A-001")
    # two folds just below one half, one far above: the mean logit is above zero
    forward = folds(-52, -52, 20)
    made = {}
    for average in ("logits", "probabilities"):
        out = tmp_path / average
        outputs = Outputs(average=average, maps=("probability", "disagreement"))
        (result,) = predict_cases(
            forward, [case], PLAN, out, outputs=outputs, num_folds=3
        )
        assert result.error is None
        made[average] = labels_of(result.path)
        bright = np.asarray(nib.load(case.images["t2f"]).dataobj) == 100
        p = [1 / (1 + np.exp(-(50 + s) / 20)) for s in (-52, -52, 20)]
        want = 1 / (1 + np.exp(-(50 - 28) / 20)) if average == "logits" else np.mean(p)
        got = nib.load(out / "A-001_prob_WT.nii.gz").get_fdata()[bright]
        np.testing.assert_allclose(got, want, rtol=1e-4)
        got = nib.load(out / "A-001_disagreement_WT.nii.gz").get_fdata()[bright]
        np.testing.assert_allclose(got, np.std(p), rtol=1e-4)
    np.testing.assert_array_equal(*made.values())


def test_the_mean_probability_may_say_yes_where_the_mean_logit_says_no(tmp_path):
    case = write_case(tmp_path, "A-001")
    forward = folds(-45, -45, -400)  # 0.56, 0.56 and 0: mean logit below zero
    made = {}
    for average in ("logits", "probabilities"):
        (result,) = predict_cases(
            forward,
            [case],
            PLAN,
            tmp_path / average,
            outputs=Outputs(average=average),
            num_folds=3,
        )
        made[average] = labels_of(result.path)
    assert not made["logits"].any() and not made["probabilities"].any()
    forward = folds(-20, -20, -400)  # 0.82, 0.82 and 0: mean probability 0.54
    (result,) = predict_cases(
        forward,
        [case],
        PLAN,
        tmp_path / "more",
        outputs=Outputs(average="probabilities"),
        num_folds=3,
    )
    assert labels_of(result.path).any()
    (result,) = predict_cases(forward, [case], PLAN, tmp_path / "fewer", num_folds=3)
    assert not labels_of(result.path).any()


def spots(folder, *, affine=None):
    """A case with three bright spots: 27, 8 and 1 voxels."""
    case = write_case(folder, "A-001", affine=affine)
    for channel in ("t1c", "t2f"):
        values = np.full((20, 18, 16), 10, np.int16)
        values[2:5, 2:5, 2:5] = 100
        values[10:12, 10:12, 10:12] = 100
        values[17, 3, 12] = 100
        image = nib.load(case.images[channel])
        nib.save(nib.Nifti1Image(values, image.affine), case.images[channel])
    return case


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("turn", [(1, 1), (-1, -1)])
def test_the_lesion_table_says_where_how_large_and_how_sure(tmp_path, turn, transpose):
    affine = np.diag([2.0 * turn[0], 1.0 * turn[1], 1.5, 1.0])
    affine[:3, 3] = (-30, 12, 7)
    case = spots(tmp_path, affine=affine)
    spacing_mm = (1.5, 1.0, 2.0)  # z y x, as in the file
    plan = replace(
        PLAN,
        spacing_mm=tuple(spacing_mm[i] for i in transpose),
        transpose_forward=transpose,
    )
    (result,) = predict_cases(
        Partial(gentle, {"shift": jnp.float32(0)}),
        [case],
        plan,
        tmp_path / "out",
        outputs=Outputs(lesions="csv"),
    )
    assert result.error is None
    with result.files[0].open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["region"] == "WT"]
    assert [float(row["volume_mm3"]) for row in rows] == [81, 24, 3]
    centres = [(3, 3, 3), (10.5, 10.5, 10.5), (17, 3, 12)]
    for row, centre in zip(rows, centres, strict=True):
        want = (affine @ [*centre, 1])[:3]
        got = [float(row[name]) for name in ("x_mm", "y_mm", "z_mm")]
        np.testing.assert_allclose(got, want, atol=0.01)
        for name in ("confidence", "confidence_max"):
            assert float(row[name]) == pytest.approx(1 / (1 + np.exp(-2.5)), abs=1e-3)


def test_a_case_without_lesions_has_a_table_of_none(tmp_path):
    case = write_case(tmp_path, "A-001")
    (result,) = predict_cases(
        network(level=1e4),
        [case],
        PLAN,
        tmp_path / "out",
        outputs=Outputs(lesions="csv", min_volume_mm3=5),
    )
    assert result.error is None and not labels_of(result.path).any()
    assert len(result.files[0].read_text().splitlines()) == 1


def test_lesions_below_the_least_volume_are_removed_and_counted(tmp_path):
    case = spots(tmp_path)
    outputs = Outputs(min_volume_mm3=8)
    (result,) = predict_cases(
        network(), [case], PLAN, tmp_path / "out", outputs=outputs
    )
    assert np.count_nonzero(labels_of(result.path)) == 27 + 8
    (warning,) = [text for text in result.warnings if "removed" in text]
    assert warning.startswith("1 of 3 predicted lesions were below 8 mm3")
    assert "1 mm3 in all" in warning


def test_smoothing_takes_single_voxels_and_leaves_large_lesions(tmp_path):
    case = spots(tmp_path)
    (result,) = predict_cases(
        network(), [case], PLAN, tmp_path / "out", outputs=Outputs(smooth_mm=0.6)
    )
    labels = labels_of(result.path)
    assert labels[3, 3, 3] == 3 and labels[17, 3, 12] == 0


def test_a_segmentation_of_slicer_has_names_colours_and_voxels(tmp_path):
    case = write_case(tmp_path, "A-001", affine=np.diag([-1.0, -1.0, 2.0, 1.0]))
    (result,) = predict_cases(
        network(), [case], PLAN, tmp_path / "out", outputs=Outputs(slicer="seg.nrrd")
    )
    assert result.error is None
    content = result.files[0].read_bytes()
    header, _, packed = content.partition(b"\n\n")
    lines = header.decode().splitlines()
    assert lines[0] == "NRRD0004"
    assert "Segment2_Name:=ET" in lines and "Segment2_LabelValue:=3" in lines
    assert "Segment0_Extent:=0 -1 0 -1 0 -1" in lines  # no NETC here
    assert "Segment2_Color:=0.239216 0.862745 0.517647" in lines
    labels = nifti.read_labels(result.path)
    assert f"sizes: {' '.join(map(str, labels.array.shape[::-1]))}" in lines
    voxels = np.frombuffer(gzip.decompress(packed), np.uint8)
    np.testing.assert_array_equal(voxels, labels.array.reshape(-1))


def test_a_colour_table_names_every_label(tmp_path):
    case = write_case(tmp_path, "A-001")
    out = tmp_path / "out"
    predict_cases(network(), [case], PLAN, out, outputs=Outputs(slicer="colours"))
    lines = (out / "labels.ctbl").read_text().splitlines()
    assert lines[1:] == [
        "0 background 0 0 0 0",
        "1 NETC 177 132 255 255",
        "2 SNFH 255 210 63 255",
        "3 ET 61 220 132 255",
    ]


def test_other_outputs_are_another_prediction_and_lost_ones_are_made_again(tmp_path):
    case, out = write_case(tmp_path, "A-001"), tmp_path / "out"
    outputs = Outputs(maps=("entropy",), lesions="csv")
    predict_cases(network(), [case], PLAN, out)
    with pytest.raises(ValueError, match="made with another outputs"):
        predict_cases(network(), [case], PLAN, out, outputs=outputs)
    (first,) = predict_cases(
        network(), [case], PLAN, out, outputs=outputs, overwrite=True
    )
    assert record(out)["cases"][0]["files"] == [path.name for path in first.files]
    (kept,) = predict_cases(network(), [case], PLAN, out, outputs=outputs)
    assert kept.is_kept and kept.files == first.files
    first.files[0].unlink()
    (again,) = predict_cases(network(), [case], PLAN, out, outputs=outputs)
    assert not again.is_kept and first.files[0].is_file()


def test_a_case_that_fails_while_writing_leaves_nothing(tmp_path, monkeypatch):
    case, out = write_case(tmp_path, "A-001"), tmp_path / "out"
    write = nifti.write_like

    def full(path, array, **kwargs):
        if path.name == "A-001.nii.gz":
            raise OSError(28, "No space left on device")
        write(path, array, **kwargs)

    monkeypatch.setattr(nifti, "write_like", full)
    outputs = Outputs(maps=("probability",), lesions="csv", slicer="seg.nrrd")
    (result,) = predict_cases(network(), [case], PLAN, out, outputs=outputs)
    assert "No space left" in result.error
    assert [path.name for path in out.iterdir()] == ["predict.json"]


@pytest.mark.parametrize("name", ["min_volume_mm3", "smooth_mm"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_impossible_outputs_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
        Outputs(**{name: value})
