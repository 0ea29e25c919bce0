"""The doors and verbs predict, bundle and explain, from files to files."""

import csv
import json
from dataclasses import replace

import jax
import nibabel as nib
import numpy as np
import pytest
from exams import PLAN, write_case

import bmjax
from bmjax import models, prediction
from bmjax.augment import AugmentPolicy
from bmjax.cli import FAILED, OK, USAGE, main
from bmjax.data.cases import find_cases
from bmjax.ensemble import read_ensemble
from bmjax.experiment import Experiment
from bmjax.explanation import explain
from bmjax.inference import Outputs
from bmjax.runs import Run, write_run

CASE = "A-001"


def run(*argv):
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in argv])
    return stopped.value.code


@pytest.fixture(scope="module")
def plan():
    return replace(PLAN, patch_size=(16, 16, 16))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two small exams."""
    folder = tmp_path_factory.mktemp("raw")
    for name in (CASE, "B-001"):
        write_case(folder, name, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    return folder


def write_fold(folder, plan, *, fold=0, gain=1.0, p_mirror=0.5):
    """A run whose network was never trained."""
    experiment = Experiment(
        model=models.PlainUNet(features=(4, 8)),
        augment=AugmentPolicy(p_mirror=p_mirror),
    ).resolve(plan)
    experiment = experiment.replace({"data.fold": fold})
    image = jax.ShapeDtypeStruct((1, *plan.patch_size, 4), np.float32)
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0), image)
    rng = np.random.default_rng(fold)
    variables = jax.tree.map(
        lambda x: gain * rng.normal(size=x.shape, scale=0.3).astype(np.float32), shapes
    )
    # without biases about half of the voxels are above one half
    variables["params"]["heads"] = jax.tree.map(
        lambda x: x * (x.ndim > 1), variables["params"]["heads"]
    )
    write_run(folder, Run(experiment, plan, 0, variables))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, plan):
    """Two folds, the second of which says less."""
    folder = tmp_path_factory.mktemp("model") / "runs"
    write_fold(folder / "fold_0", plan)
    write_fold(folder / "fold_1", plan, fold=1, gain=0.7)
    return folder


def arrays(folder, pattern="*.nii.gz"):
    return {
        path.name: np.asarray(nib.load(path).dataobj)
        for path in sorted(folder.glob(pattern))
    }


def test_a_run_folder_and_its_bundle_predict_the_same_bytes(
    runs, raw, tmp_path, capsys
):
    bundle = tmp_path / "model.bmjax"
    assert run("bundle", runs, "--out", bundle) == OK
    assert run("bundle", bundle, "--verify") == OK
    assert "whole; folds 0 (step 0), 1 (step 0)" in capsys.readouterr().out
    for model, out in ((runs, "a"), (bundle, "b")):
        code = run(
            *("predict", model, "--images", raw, "--out", tmp_path / out),
            *("--cases", CASE, "--maps", "probability", "disagreement"),
        )
        assert code == OK
    said = capsys.readouterr().err
    assert "to predict: 1 cases" in said and "x 2 passes" in said
    one, other = arrays(tmp_path / "a"), arrays(tmp_path / "b")
    assert len(one) == 7 and list(one) == list(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])
    assert one[f"{CASE}_disagreement_WT.nii.gz"].max() > 0
    assert 0 < np.count_nonzero(one[f"{CASE}.nii.gz"]) < one[f"{CASE}.nii.gz"].size


def test_one_exam_is_predicted_from_its_four_files(runs, raw, tmp_path):
    (case,) = find_cases(raw, ids=[CASE])
    files = [part for c in case.images for part in (f"--{c}", case.images[c])]
    out = tmp_path / "results" / "mine.nii.gz"
    assert run("predict", runs / "fold_0", *files, "--out", out) == OK
    bmjax.predict(runs / "fold_0", images=raw, out=tmp_path / "all", cases=[CASE])
    assert out.read_bytes() == (tmp_path / "all" / f"{CASE}.nii.gz").read_bytes()
    assert run("predict", runs / "fold_0", *files, "--out", tmp_path / "folder") == OK
    assert (tmp_path / "folder" / "exam.nii.gz").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("odd", ["missing", "both", "neither", "not there"])
def test_an_exam_that_is_not_whole_is_refused(runs, raw, tmp_path, odd, capsys):
    (case,) = find_cases(raw, ids=[CASE])
    images = dict(case.images)
    argv, want, said = [], USAGE, "give --images, or the files of one exam"
    if odd == "missing":
        del images["t2f"]
        want, said = FAILED, "t2f missing"
    elif odd == "both":
        argv = ["--images", raw]
    elif odd == "neither":
        images = {}
    else:
        images["t1c"] = tmp_path / "none.nii.gz"
        want, said = FAILED, "no such file: t1c"
    files = [part for c in images for part in (f"--{c}", images[c])]
    out = tmp_path / "x.nii.gz"
    assert run("predict", runs / "fold_0", *files, *argv, "--out", out) == want
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_presets_and_folds_choose_networks_and_flips(runs, raw, tmp_path):
    def passes(**arguments):
        said = []
        (result,) = bmjax.predict(
            runs,
            images=raw,
            cases=[CASE],
            out=tmp_path / "out",
            overwrite=True,
            announce=said.append,
            **arguments,
        )
        assert result.error is None
        settings = json.loads((tmp_path / "out" / "predict.json").read_text())
        return said[0], settings["settings"]

    said, settings = passes(preset="fast")
    assert "x 1 passes" in said and settings["overlap"] == 0.25
    said, settings = passes(preset="accurate", folds=[1])
    assert "x 8 passes" in said and settings["flips"] == "all"
    said, settings = passes(preset="accurate", window={"flips": "none"})
    assert "x 2 passes" in said and settings["overlap"] == 0.5
    said, settings = passes(window={"convention": "monai"})
    assert settings["convention"] == "monai"


def test_flips_of_a_network_that_never_saw_any_are_refused(plan, raw, tmp_path, capsys):
    model = write_fold(tmp_path / "run", plan, p_mirror=0.0)
    argv = ["--images", raw, "--out", tmp_path / "out", "--tta", "flips"]
    assert run("predict", model, *argv) == FAILED
    assert "trained without mirrored images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_fold_cannot_disagree(runs, raw, tmp_path):
    with pytest.raises(ValueError, match="one fold cannot disagree"):
        bmjax.predict(
            runs / "fold_0",
            images=raw,
            out=tmp_path,
            outputs=Outputs(maps=("disagreement",)),
        )


def test_the_cost_of_a_least_volume_is_that_of_the_validation(runs, plan, tmp_path):
    found = read_ensemble(runs, folds=[0])
    assert "not known" in prediction.cost_of_min_volume(found, 30)
    model = write_fold(tmp_path / "run", plan)
    (model / "validation").mkdir()
    with (model / "validation" / "lesions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("region", "kind", "volume_mm3", "is_found"))
        writer.writerow(("WT", "reference", 10, 1))
        writer.writerow(("WT", "reference", 20, 0))
        writer.writerow(("WT", "reference", 90, 1))
        writer.writerow(("WT", "reference", 95, 1))
        writer.writerow(("WT", "false positive", 5, 0))
        writer.writerow(("ET", "reference", 5, 1))
    said = prediction.cost_of_min_volume(read_ensemble(model), 30)
    assert "of 4 real ones (WT)" in said and "2 are so small and 1 of those" in said
    assert "falls from 0.750 to 0.500" in said


def test_an_estimate_is_printed_before_a_case_is_read(runs, raw, tmp_path):
    events = []
    bmjax.predict(
        runs,
        images=raw,
        out=tmp_path / "out",
        folds=[0],
        outputs=Outputs(min_volume_mm3=1),
        announce=events.append,
        progress=lambda done, total, name: events.append(done),
    )
    said, cost, *ticks = events
    assert said.startswith("to predict: 2 cases, ")
    assert "GiB of" in said
    assert "its cost in sensitivity is not known" in cost
    assert ticks[-1] == 2


def test_explanations_are_maps_in_the_exams_own_geometry(runs, raw, tmp_path):
    out = tmp_path / "why"
    code = run(
        *("explain", runs, "--images", raw, "--case", CASE, "--out", out),
        *("--num-steps", 4, "--fold", 0),
    )
    assert code == OK
    source = nib.load(raw / CASE / f"{CASE}-t1c.nii.gz")
    channels = ("t1c", "t1n", "t2f", "t2w")
    names = {
        f"{CASE}_WT_{kind}_{c}" for kind in ("gradients", "occlusion") for c in channels
    }
    names.add(f"{CASE}_WT_gradcam")
    assert {path.name for path in out.glob("*.nii.gz")} == {
        f"{n}.nii.gz" for n in names
    }
    for path in out.glob("*.nii.gz"):
        image = nib.load(path)
        np.testing.assert_array_equal(image.affine, source.affine)
        assert image.shape == source.shape
        assert np.isfinite(image.get_fdata()).all()
    facts = json.loads((out / f"{CASE}_WT_explain.json").read_text())
    assert facts["gradcam_layer"] == "encoder/stage_1"
    assert set(facts["occlusion"]) == set(channels) == set(facts["gradients"])
    assert facts["volume_mm3"] > 0
    # the lesion nearest to its own centre is itself
    (case,) = find_cases(raw, ids=[CASE])
    path = explain(
        runs,
        case=case,
        out=tmp_path / "again",
        at_mm=tuple(facts["centre_mm"]),
        method=("occlusion",),
    )
    again = json.loads(path.read_text())
    assert again["volume_mm3"] == facts["volume_mm3"]


def test_explaining_what_is_not_there_is_said(runs, raw, tmp_path):
    (case,) = find_cases(raw, ids=[CASE])
    with pytest.raises(ValueError, match="no region 'X'; the network has WT, TC, ET"):
        explain(runs, case=case, out=tmp_path, region="X")
    lacking = replace(case, images={"t1c": case.images["t1c"]})
    with pytest.raises(ValueError, match="A-001: t1n, t2f, t2w missing"):
        explain(runs, case=lacking, out=tmp_path)
    with pytest.raises(ValueError, match="no layer 'decoder/x'; there are .*encoder"):
        explain(runs, case=case, out=tmp_path, layer="decoder/x", method=("gradcam",))
