"""A run from store to predictions, interrupted and not."""

import dataclasses
import io
import json

import jax
import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

import bmjax
from bmjax.checkpoint import digest
from bmjax.runs import read_run
from bmjax.training import NonFiniteLossError, Stop

ONE = {"num_devices": 1}


COST = ("_ms", "_mib", "_per_s")


def timeless(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith(COST)}
        for line in lines
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, phantom_store):
    """A finished run; made by the first test that needs it."""
    return {"folder": tmp_path_factory.mktemp("runs") / "whole", "done": None}


def whole_run(finished, experiment):
    if finished["done"] is None:
        finished["done"] = bmjax.train(experiment, workdir=finished["folder"], **ONE)
    return finished["folder"]


def test_a_run_leaves_what_its_folder_promises(finished, tiny_experiment):
    run = whole_run(finished, tiny_experiment)
    done = finished["done"]
    assert done.is_finished
    assert done.step == 8
    assert done.validation is not None
    assert done.validation.ok
    assert json.loads((run / "split.json").read_text())["val"] == [
        "BraTS-PHM-00004-000"
    ]
    found = read_run(run)
    assert found.experiment.model.num_classes == 3
    kinds = [(r["kind"], r["step"]) for r in timeless(run)]
    assert kinds == [
        *[("train", 3), ("val", 4), ("train", 6), ("train", 8), ("val", 8)]
    ]
    assert (run / "validation" / "BraTS-PHM-00004-000.nii.gz").is_file()


def test_a_run_shows_how_it_goes(finished, tiny_experiment):
    run = whole_run(finished, tiny_experiment)
    assert (run / "progress.png").read_bytes().startswith(b"\x89PNG")
    board = b"".join(p.read_bytes() for p in (run / "tensorboard").iterdir())
    assert board.count(b"val/image_labels_prediction") == 2
    assert b"train/images_per_s" in board


@pytest.mark.slow
def test_some_steps_are_traced_on_request(tiny_experiment, tmp_path):
    short = tiny_experiment.replace({"optimizer.num_steps": 5})
    bmjax.train(short, workdir=tmp_path / "run", profile_steps=2, **ONE)
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.mark.slow
def test_all_that_a_run_remembers_survives_a_stop(
    tiny_experiment, tmp_path, stopped_after
):
    """Plateaus, the early end, the running mean and parts of a batch."""
    experiment = tiny_experiment.replace(
        {
            "optimizer.num_steps": 30,
            "optimizer.plateau_patience": 1,
            "optimizer.ema_decay": 0.9,
            "optimizer.accumulate": 2,
            "fit.validate_every": 2,
            "fit.log_every": 1,
            "fit.stop_patience": 3,
            "fit.monitor": "loss",
            "fit.min_delta": 0.5,
        }
    )
    whole = bmjax.train(experiment, workdir=tmp_path / "whole", **ONE)
    assert whole.is_finished
    assert whole.step == 8  # the first look, and three that were no better

    run = tmp_path / "run"
    with stopped_after(5):
        assert not bmjax.train(experiment, workdir=run, **ONE).is_finished
    assert bmjax.train(experiment, workdir=run, **ONE).is_finished
    assert timeless(run) == timeless(tmp_path / "whole")
    ours, theirs = (
        read_run(r, checkpoint="last").variables for r in (run, tmp_path / "whole")
    )
    assert digest(ours) == digest(theirs)
    rates = [r["lr"] for r in timeless(run) if r["kind"] == "train"]
    assert rates[-1] < rates[0] / 50  # two plateaus of a tenth each


@pytest.mark.slow
def test_a_run_goes_on_with_as_many_devices_as_it_began_with(tiny_experiment, tmp_path):
    short = tiny_experiment.replace({"optimizer.num_steps": 3})
    longer = tiny_experiment.replace({"optimizer.num_steps": 4})
    longest = tiny_experiment.replace({"optimizer.num_steps": 5})
    run = tmp_path / "run"

    def said(experiment, **means):
        text = io.StringIO()
        console = Console(file=text, width=200)
        bmjax.train(experiment, workdir=run, console=console, **means)
        return text.getvalue()

    assert "run: 1 devices in 1 processes" in said(short, num_devices=1)
    with pytest.raises(ValueError, match="optimizer.num_steps: was 3, is now 4"):
        said(longer)
    # eight are there, of which two divide the batch
    again = said(longer, override=True)
    assert "run: 1 devices in 1 processes" in again
    assert "began with" not in again
    other = said(longest, override=True, num_devices=2)
    assert "began with 1 devices in 1 processes and goes on with 2 devices" in other


@pytest.mark.parametrize("step", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_stopped_and_resumed_equals_undisturbed(
    finished, tiny_experiment, tmp_path, stopped_after, step
):
    whole = whole_run(finished, tiny_experiment)

    run = tmp_path / "run"
    with stopped_after(step):
        first = bmjax.train(tiny_experiment, workdir=run, **ONE)
    assert not first.is_finished
    second = bmjax.train(tiny_experiment, workdir=run, **ONE)
    assert second.is_finished
    ours, theirs = (read_run(r, checkpoint="last").variables for r in (run, whole))
    assert digest(ours) == digest(theirs)
    assert timeless(run) == timeless(whole)


def test_a_changed_experiment_is_shown_and_refused(finished, tiny_experiment):
    run = whole_run(finished, tiny_experiment)
    changed = tiny_experiment.replace({"optimizer.peak_lr": 0.5})
    with pytest.raises(ValueError, match=r"optimizer.peak_lr: was 0.01, is now 0.5"):
        bmjax.train(changed, workdir=run, **ONE)


def test_fine_tuning_begins_with_the_parameters_of_its_origin(
    finished, tiny_experiment, tmp_path
):
    from bmjax.transplant import Origin

    run = whole_run(finished, tiny_experiment)
    still = tiny_experiment.replace({"optimizer.peak_lr": 1e-12, "seed": 5})
    done = bmjax.train(still, workdir=tmp_path / "fine", origin=Origin(run=run), **ONE)
    assert len(done.grafted.paths("initialised")) == 4  # two heads
    ours = read_run(tmp_path / "fine", checkpoint="last").variables["params"]
    theirs = read_run(run).variables["params"]
    kernel = ("encoder", "stage_0", "block_0", "conv", "kernel")
    pair = []
    for tree in (ours, theirs):
        for name in kernel:
            tree = tree[name]
        pair.append(tree)
    np.testing.assert_allclose(*pair, atol=1e-6)


def test_prediction_keeps_the_geometry_of_its_input(
    finished, tiny_experiment, phantom_raw, tmp_path
):
    run = whole_run(finished, tiny_experiment)
    results = bmjax.predict(run, images=phantom_raw, out=tmp_path / "out")
    assert [r.error for r in results] == [None] * 4
    for result in results:
        source = nib.load(phantom_raw / result.case / f"{result.case}-t1c.nii.gz")
        written = nib.load(tmp_path / "out" / f"{result.case}.nii.gz")
        assert written.shape == source.shape
        np.testing.assert_array_equal(written.affine, source.affine)
        for code in ("sform_code", "qform_code"):
            assert written.header[code] == source.header[code]
    scores = bmjax.evaluate(tmp_path / "out", phantom_raw)
    assert len(scores.rows) == 4


def test_a_nan_loss_names_the_cases_and_saves_nothing_of_it(tiny_experiment, tmp_path):
    wild = tiny_experiment.replace(
        {"optimizer.peak_lr": 1e30, "optimizer.clip_norm": None}
    )
    with pytest.raises(NonFiniteLossError, match="BraTS-PHM-0000"):
        bmjax.train(wild, workdir=tmp_path / "run", **ONE)
    assert not any((tmp_path / "run" / "checkpoints").glob("[0-9]*"))


def test_more_devices_than_samples_is_refused_plainly(tiny_experiment, tmp_path):
    with pytest.raises(ValueError, match="does not divide over 8 devices"):
        bmjax.train(tiny_experiment, workdir=tmp_path / "run", num_devices=8)


def test_a_step_compiles_once(tiny_experiment, tmp_path):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name)
    )
    longer = dataclasses.replace(tiny_experiment.replace({"optimizer.num_steps": 12}))
    counts = []

    class Counts(Stop):
        @property
        def is_asked(self):
            counts.append(sum("backend_compile" in name for name in compiled))
            return False

        @is_asked.setter
        def is_asked(self, value):
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bmjax.trainer.Stop", Counts)
        bmjax.train(longer, workdir=tmp_path / "run", **ONE)
    # after the first look and the first saving, nothing is compiled any more
    assert counts[5] == counts[11]
