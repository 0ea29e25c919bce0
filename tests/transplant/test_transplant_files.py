"""Parameters out of weight files and into them."""

import dataclasses

import pytest
from carried import a_run, drawn, from_file, into

from bmjax import models
from bmjax.checkpoint import digest
from bmjax.experiment import Experiment
from bmjax.runs import Run
from bmjax.surgery import to_torch
from bmjax.transplant import (
    write_result,
    write_torch,
)
from bmjax.weights import read_weights


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_names_its_channels_and_regions_needs_no_flags(
    tmp_path, experiment, plan, suffix
):
    file = tmp_path / f"w{suffix}"
    run = a_run(experiment, plan, seed=1)
    write_torch(file, run)
    turned = dataclasses.replace(plan, channels=plan.channels[::-1])
    variables, report = into(experiment, turned, from_file(file, heads="keep"))
    assert len(report.paths("adapted")) == 1 and not report.paths("initialised")
    assert digest(variables["params"]["heads"]) == digest(
        run.variables["params"]["heads"]
    )


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_a_file_that_names_nothing_needs_the_names(tmp_path, experiment, plan, suffix):
    file = tmp_path / f"w{suffix}"
    run = a_run(experiment, plan, seed=1)
    write_torch(file, run)
    with pytest.raises(ValueError, match="--source-channels t1n t1c t2w t2f"):
        into(experiment, plan, from_file(file))
    channels = {"source_channels": plan.channels}
    with pytest.raises(ValueError, match="--source-classes WT TC ET"):
        into(experiment, plan, from_file(file, **channels, heads="keep"))
    named = from_file(file, **channels, source_classes=("WT", "TC", "ET"), heads="keep")
    variables, _ = into(experiment, plan, named)
    assert digest(variables) == digest(run.variables)


def test_another_number_of_names_than_the_file_has_is_refused(
    tmp_path, experiment, plan
):
    write_torch(tmp_path / "w.pth", a_run(experiment, plan))
    origin = from_file(tmp_path / "w.pth", source_channels=("t1c", "t1n"))
    with pytest.raises(ValueError, match=r"it has 4 input channels .* but 2 names"):
        into(experiment, plan, origin)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_our_own_files_come_back_bit_for_bit(tmp_path, experiment, plan, suffix):
    file = tmp_path / f"ours{suffix}"
    run = a_run(experiment, plan, seed=1)
    write_result(file, run, None)
    names = {"source_channels": plan.channels, "source_classes": ("WT", "TC", "ET")}
    names = names if suffix == ".npz" else {}
    variables, _ = into(experiment, plan, from_file(file, **names, heads="keep"))
    assert digest(variables) == digest(run.variables)
    assert "encoder/stage_0/block_0/conv/kernel" in read_weights(file).tensors


@pytest.mark.parametrize(
    "model",
    [
        models.PlainUNet(features=(2, 4), num_classes=3),
        models.ResEncUNet(features=(2, 4), num_classes=3, num_blocks=(1, 2)),
        models.SegResNet(num_classes=3, num_features=8, num_blocks_down=(1, 1)).clone(
            num_blocks_up=(1,)
        ),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_every_network_goes_through_torchs_names_and_back(
    tmp_path, plan, model, suffix
):
    setting = Experiment(model=model)
    run = Run(setting, plan, 0, drawn(model, plan, 1))
    file = tmp_path / f"w{suffix}"
    assert "a state dict" in write_torch(file, run)
    assert set(read_weights(file).tensors) == set(to_torch(run.variables["params"]))
    origin = from_file(
        file,
        source_channels=plan.channels,
        source_classes=tuple(dict(plan.regions)),
        heads="keep",
    )
    variables, _ = into(setting, plan, origin)
    assert digest(variables) == digest(run.variables)


def test_the_wrong_network_for_a_torch_file_is_a_table(tmp_path, experiment, plan):
    write_torch(tmp_path / "w.pth", a_run(experiment, plan))
    setting = dataclasses.replace(
        experiment, model=models.ResEncUNet(features=(4, 8, 8), num_classes=3)
    )
    with pytest.raises(ValueError, match="onto a ResEncUNet") as caught:
        into(setting, plan, from_file(tmp_path / "w.pth"))
    text = str(caught.value)
    assert "missing" in text and "tensors do not fit" in text


def test_files_where_torchs_names_are_wanted_are_refused(tmp_path, experiment, plan):
    run = a_run(experiment, plan)
    with pytest.raises(ValueError, match="are written by --to-torch"):
        write_result(tmp_path / "w.pth", run, None)
    with pytest.raises(ValueError, match="give a folder, or a file that ends in"):
        write_torch(tmp_path / "w.onnx", run)
