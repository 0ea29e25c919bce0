"""Folds trained side by side leave the run folders that each would alone."""

import json

import jax
import numpy as np
import pytest

import bmjax
from bmjax.cli import main
from bmjax.cli.output import FAILED, OK, STOPPED, USAGE
from bmjax.runs import read_run
from bmjax.training import NonFiniteLossError

COST = ("_ms", "_mib", "_per_s")
FOLDS = (0, 1)


def timeless(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith(COST)}
        for line in lines
    ]


def assert_same(ours, theirs):
    """Parameters to the byte, the log, and what was predicted."""
    assert timeless(ours) == timeless(theirs)
    first, second = (read_run(run, checkpoint="last") for run in (ours, theirs))
    assert first.step == second.step
    assert first.experiment == second.experiment
    jax.tree.map(np.testing.assert_array_equal, first.variables, second.variables)
    predictions = sorted(path.name for path in (ours / "validation").glob("*.nii.gz"))
    assert predictions
    for name in predictions:
        one, other = (run / "validation" / name for run in (ours, theirs))
        assert one.read_bytes() == other.read_bytes()


@pytest.fixture
def experiment(tiny_experiment):
    """Four cases in two folds."""
    return tiny_experiment.replace(
        {
            "data.held_out": (),
            "data.num_folds": 2,
            "optimizer.ema_decay": 0.9,
        }
    )


def test_stopped_and_gone_on_with_they_are_the_runs_of_each_alone(
    experiment, tmp_path, stopped_after
):
    side_by_side = {"workdir": tmp_path, "folds": FOLDS, "num_devices": 2}
    with stopped_after(5):
        first = bmjax.train_folds(experiment, **side_by_side)
    assert [(done.step, done.is_finished) for done in first] == [(5, False)] * 2

    # the second fold goes on alone for a while, so that it is ahead of the first
    one = experiment.replace({"data.fold": 1})
    with stopped_after(1):
        assert bmjax.train(one, workdir=tmp_path / "fold_1").step == 6

    done = bmjax.train_folds(experiment, workdir=tmp_path, folds=FOLDS)
    assert [each.run.name for each in done] == ["fold_0", "fold_1"]
    assert all(each.is_finished and each.validation.ok for each in done)
    for fold, each in zip(FOLDS, done, strict=True):
        alone = experiment.replace({"data.fold": fold})
        bmjax.train(alone, workdir=tmp_path / f"alone_{fold}", num_devices=1)
        assert_same(each.run, tmp_path / f"alone_{fold}")


@pytest.mark.slow
def test_a_fold_whose_loss_breaks_leaves_the_others_whole(experiment, tmp_path):
    from bmjax import fold_mesh

    experiment = experiment.replace({"fit.num_val_volumes": 1})
    real = fold_mesh.SideBySide.parallelise

    def breaking(self, step, **means):
        compiled, calls = real(self, step, **means), []

        def call(state, batch):
            state, metrics = compiled(state, batch)
            calls.append(None)
            if len(calls) == 4:
                metrics = {**metrics, "loss": np.array([1.0, np.nan])}
            return state, metrics

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_mesh.SideBySide, "parallelise", breaking)
        with pytest.raises(NonFiniteLossError, match="loss is nan .* at step 4"):
            bmjax.train_folds(experiment, workdir=tmp_path, folds=FOLDS, num_devices=2)
    assert timeless(tmp_path / "fold_0")[-1]["step"] == 8
    assert list((tmp_path / "fold_1").glob("nonfinite-0.npz"))
    done = bmjax.train_folds(experiment, workdir=tmp_path, folds=FOLDS)
    assert all(each.is_finished for each in done)
    alone = experiment.replace({"data.fold": 1})
    bmjax.train(alone, workdir=tmp_path / "alone", num_devices=1)
    assert_same(tmp_path / "fold_1", tmp_path / "alone")


def test_what_cannot_go_side_by_side_is_refused(experiment, tmp_path):
    def start(experiment=experiment, folds=FOLDS, **means):
        bmjax.train_folds(experiment, workdir=tmp_path / "runs", folds=folds, **means)

    for folds in ((), (0, 0)):
        with pytest.raises(ValueError, match="name each fold once"):
            start(folds=folds)
    with pytest.raises(ValueError, match="fold 2 of 2 does not exist"):
        start(folds=(0, 2))
    with pytest.raises(ValueError, match=r"data.held_out names the cases"):
        start(experiment.replace({"data.held_out": ("BraTS-PHM-00004-000",)}))
    assert not (tmp_path / "runs").exists()
    with pytest.raises(ValueError, match="2 folds side by side need .*launch/folds.sh"):
        start(num_devices=3)


@pytest.mark.slow
def test_the_command_trains_them_and_says_how_it_ended(
    experiment, tmp_path, stopped_after, capsys
):
    config = tmp_path / "config"
    config.mkdir()
    (config / "experiment.json").write_text(experiment.to_json())

    def command(*flags):
        with pytest.raises(SystemExit) as ended:
            main(["train", str(config), "--workdir", str(tmp_path / "runs"), *flags])
        return ended.value.code

    folds = ("--folds", "0", "1")
    assert command(*folds, "--parallel", "pmap") == USAGE
    assert command(*folds, "--num-devices", "1") == FAILED
    with stopped_after(5):
        assert command(*folds, "--num-devices", "2") == STOPPED
    assert command(*folds) == OK
    said = capsys.readouterr()
    assert "fold_0: step 8" in said.err and "fold_1: step 8" in said.err
    first, second = said.out.split("\nfold_1\n")
    assert first.startswith("\nfold_0\n")
    assert all("Agreement of volumes" in part for part in (first, second))
