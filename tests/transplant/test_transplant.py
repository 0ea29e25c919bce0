"""Parameters from one run into another: what fits, and what is refused."""

import dataclasses

import numpy as np
import pytest
from carried import ONE, a_run, drawn, into, with_source

import bmjax
from bmjax import models
from bmjax.checkpoint import digest
from bmjax.experiment import Experiment
from bmjax.runs import read_run, write_run
from bmjax.transplant import (
    graft_run,
)


@pytest.mark.slow
def test_a_written_run_predicts_and_trains_on_from_its_parameters(
    source, experiment, plan, phantom_raw, tmp_path
):
    before = read_run(source)
    assert before.step == 0
    assert digest(before.variables) == digest(drawn(experiment.model, plan, 1))
    case = "BraTS-PHM-00004-000"
    found = bmjax.predict(
        source, images=phantom_raw, out=tmp_path / "out", cases=[case]
    )
    assert [result.error for result in found] == [None]
    frozen = experiment.replace({"optimizer.freeze": ("encoder/.*", "decoder/.*")})
    run = tmp_path / "frozen"
    write_run(run, dataclasses.replace(before, experiment=frozen))
    done = bmjax.train(frozen, workdir=run, **ONE)
    assert done.is_finished
    after = read_run(run, checkpoint="last").variables["params"]
    for part in ("encoder", "decoder"):
        assert digest(after[part]) == digest(before.variables["params"][part])
    assert digest(after["heads"]) != digest(before.variables["params"]["heads"])


@pytest.mark.slow
def test_a_frozen_run_that_was_stopped_ends_as_one_that_was_not(
    experiment, tmp_path, stopped_after
):
    frozen = experiment.replace(
        {
            "optimizer.freeze": ("encoder/.*",),
            "optimizer.lr_scale": (("decoder/.*", 0.5),),
        }
    )

    ends = []
    with stopped_after(2):
        assert not bmjax.train(frozen, workdir=tmp_path / "halves", **ONE).is_finished
    for run in (tmp_path / "whole", tmp_path / "halves"):
        assert bmjax.train(frozen, workdir=run, **ONE).is_finished
        ends.append(digest(read_run(run, checkpoint="last").variables))
    assert ends[0] == ends[1]


def test_a_folder_that_holds_something_is_never_written_over(source, experiment, plan):
    with pytest.raises(ValueError, match="source: is there already"):
        write_run(source, a_run(experiment, plan))


def test_what_a_killed_call_left_is_no_run(tmp_path, experiment, plan):
    left = tmp_path / ".run.tmp"
    left.mkdir()
    (left / "checkpoints").write_text("torn")
    write_run(tmp_path / "run", a_run(experiment, plan))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert read_run(tmp_path / "run").step == 0


def test_channels_and_regions_go_by_the_names_of_the_two_plans(
    source, experiment, plan
):
    other = dataclasses.replace(
        plan,
        channels=("t2w", "t1c", "dwi"),
        normalization=("zscore",) * 3,
        regions=(("ET", (3,)), ("core", (1, 3)), ("WT", (1, 2, 3))),
        spacing_mm=(1.0, 1.0, 1.0),
    )
    how = {"heads": "map", "new_channels": (("dwi", "zero"),)}
    variables, report = into(experiment, other, with_source(source, **how))
    theirs = drawn(experiment.model, plan, 1)["params"]
    first = ("encoder", "stage_0", "block_0", "conv", "kernel")
    new, old = variables["params"], theirs
    for name in first:
        new, old = new[name], old[name]
    names = plan.channels
    np.testing.assert_array_equal(new[..., 0, :], old[..., names.index("t2w"), :])
    np.testing.assert_array_equal(new[..., 1, :], old[..., names.index("t1c"), :])
    assert (new[..., 2, :] == 0).all()
    bias = variables["params"]["heads"]["level_0"]["bias"]
    np.testing.assert_array_equal(
        bias[[0, 2]], theirs["heads"]["level_0"]["bias"][[2, 0]]
    )
    text = str(report)
    assert f"from {source}, step 0" in text
    assert "plans differ: spacing_mm was" in text
    assert "dwi begins as zero, without t1n, t2f" in text
    assert "ET, WT by name; core left as it was; without TC" in text


def test_statistics_of_batch_norm_come_along(tmp_path, plan):
    from bmjax.data.pipeline import Loader

    model = models.UNet2D(num_classes=3, features=(2, 4), skip="after_pool")
    flat = dataclasses.replace(
        plan,
        spacing_mm=(1.0, 1.0),
        patch_size=(8, 8),
        strides=((1, 1), (2, 2)),
        kernel_sizes=((3, 3),) * 2,
        features=(2, 4),
    )
    setting = Experiment(model=model, data=Loader(patch_size=(8, 8))).resolve(flat)
    write_run(tmp_path / "run", a_run(setting, flat, seed=1))
    turned = dataclasses.replace(flat, channels=flat.channels[::-1])
    variables, report = into(setting, turned, with_source(tmp_path / "run"))
    theirs = drawn(model, flat, 1)
    assert digest(variables["batch_stats"]) == digest(theirs["batch_stats"])
    # the decoder sees the image once more
    assert report.paths("adapted") == (
        "decoder/stage_0/conv_0/kernel",
        "encoder/stage_0/conv_0/kernel",
    )


def test_patterns_are_the_same_for_training_as_for_looking(source, experiment, plan):
    how = {"skip": ("encoder/stage_0/.*",), "heads": "keep"}
    _, trained = into(experiment, plan, with_source(source, **how))
    _, shown = graft_run(source, with_source(source, **how))
    assert trained.rows == shown.rows
    assert all(p.startswith("encoder/stage_0") for p in shown.paths("initialised"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": models.SegResNet(num_classes=3, num_features=8)}, r"onto a SegResN"),
        ({"model": "features"}, r"16 +.*8"),
        ({"channels": ("t1c", "t1n", "t2f", "t2w", "dwi")}, "no channel dwi"),
        ({"regions": (("WT", (1, 2, 3)), ("TC", (1, 3)))}, "target has WT, TC, the"),
    ],
    ids=["model", "features", "channels", "classes"],
)
def test_what_differs_is_a_table_and_nothing_is_loaded(
    source, experiment, plan, changes, said
):
    """Fault 45: no silent partial load."""
    model = changes.pop("model", experiment.model)
    if model == "features":
        model = experiment.model.clone(features=(4, 8, 16))
    if "channels" in changes:
        changes["normalization"] = ("zscore",) * len(changes["channels"])
    if "regions" in changes:
        changes["paint"] = plan.paint[:2]
        model = experiment.model.clone(num_classes=2)
    other = dataclasses.replace(plan, **changes)
    setting = dataclasses.replace(experiment, model=model)
    with pytest.raises(ValueError, match=said) as caught:
        into(setting, other, with_source(source, heads="keep"))
    assert f"{source}, step 0, onto a {type(model).__name__}" in str(caught.value)


def test_another_patch_shows_in_the_strides(source, experiment, plan):
    strides = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
    setting = dataclasses.replace(
        experiment, model=experiment.model.clone(strides=strides)
    )
    with pytest.raises(ValueError, match="decoder/up_0/kernel +1x2x2x8x4 +2x2x2x8x4"):
        into(setting, plan, with_source(source))


@pytest.mark.slow
def test_a_run_goes_on_without_its_origin_but_not_with_another(
    source, experiment, tmp_path
):
    run = tmp_path / "run"
    short = experiment.replace({"optimizer.num_steps": 2})
    done = bmjax.train(short, workdir=run, origin=with_source(source), **ONE)
    assert len(done.grafted.paths("initialised")) == 4  # two heads
    account = (run / "graft.txt").read_text()
    moved = source.rename(tmp_path / "gone")
    again = bmjax.train(short, workdir=run, origin=with_source(source), **ONE)
    assert again.grafted is None
    with pytest.raises(ValueError, match=r"path: was .*source, is now .*gone"):
        bmjax.train(short, workdir=run, origin=with_source(moved), **ONE)
    with pytest.raises(ValueError, match="heads: was init, is now keep"):
        bmjax.train(short, workdir=run, origin=with_source(source, heads="keep"), **ONE)
    assert (run / "graft.txt").read_text() == account


@pytest.mark.slow
def test_a_try_that_saved_nothing_leaves_no_account(source, experiment, tmp_path):
    short = experiment.replace({"optimizer.num_steps": 1})
    run = tmp_path / "run"
    run.mkdir()
    for name in ("origin.json", "graft.txt"):
        (run / name).write_text("{}")
    bmjax.train(short, workdir=run, **ONE)
    assert not (run / "origin.json").exists() and not (run / "graft.txt").exists()


def test_a_run_that_began_from_chance_is_given_no_origin(source, experiment):
    """The folder `source` was made without one and has a checkpoint."""
    with pytest.raises(ValueError, match="was not begun with the parameters of"):
        bmjax.train(experiment, workdir=source, origin=with_source(source), **ONE)
