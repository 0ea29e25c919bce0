"""nnU-Net's checkpoints as runs, and runs as nnU-Net's models."""

import dataclasses
import json

import pytest
from carried import a_run, drawn, from_file, into

from bmjax import models
from bmjax.checkpoint import digest
from bmjax.experiment import Experiment
from bmjax.runs import Run
from bmjax.surgery import Surgery
from bmjax.transplant import (
    read_nnunet,
    write_torch,
)
from bmjax.weights import read_weights, write_weights


def test_a_checkpoint_of_nnunet_is_a_run_by_itself(tmp_path, experiment, plan):
    run = a_run(experiment, plan, seed=1)
    write_torch(tmp_path / "checkpoint_final.pth", run)
    again, report = read_nnunet(tmp_path / "checkpoint_final.pth", surgery=Surgery())
    assert digest(again.variables) == digest(run.variables)
    assert not report.paths("initialised") and not report.paths("unused")
    assert again.plan == dataclasses.replace(plan, features=(4, 8, 8))
    assert again.experiment.model == experiment.model


def test_its_channels_and_regions_can_be_called_otherwise(tmp_path, experiment, plan):
    strange = dataclasses.replace(
        plan,
        channels=("mri1", "mri2", "mri3", "mri4"),
        regions=tuple((f"r{i}", labels) for i, (_, labels) in enumerate(plan.regions)),
    )
    write_torch(
        tmp_path / "w.pth",
        Run(experiment, strange, 0, drawn(experiment.model, plan, 1)),
    )
    again, _ = read_nnunet(
        tmp_path / "w.pth",
        surgery=Surgery(
            source_channels=plan.channels, source_classes=("WT", "TC", "ET")
        ),
    )
    assert again.plan.channels == plan.channels
    assert again.plan.regions == plan.regions
    with pytest.raises(ValueError, match="takes all of it"):
        read_nnunet(tmp_path / "w.pth", surgery=Surgery(skip=("encoder/.*",)))


def test_a_model_folder_holds_what_nnunet_asks_for(tmp_path, experiment, plan):
    said = write_torch(tmp_path / "model", a_run(experiment, plan))
    assert "nnUNetv2_predict_from_modelfolder" in said
    plans = json.loads((tmp_path / "model" / "plans.json").read_text())
    dataset = json.loads((tmp_path / "model" / "dataset.json").read_text())
    network = plans["configurations"]["3d_fullres"]["architecture"]
    assert network["network_class_name"].endswith("PlainConvUNet")
    assert network["arch_kwargs"]["features_per_stage"] == [4, 8, 8]
    assert network["arch_kwargs"]["n_conv_per_stage"] == [2, 2, 2]
    assert plans["image_reader_writer"] == "NibabelIOWithReorient"
    assert dataset["channel_names"] == dict(zip("0123", plan.channels, strict=True))
    assert dataset["labels"]["TC"] == [1, 3]
    assert dataset["regions_class_order"] == [2, 1, 3]
    checkpoint = read_weights(tmp_path / "model" / "fold_0" / "checkpoint_final.pth")
    assert checkpoint.metadata["trainer_name"] == "nnUNetTrainer"
    assert checkpoint.metadata["init_args"]["configuration"] == "3d_fullres"
    assert checkpoint.metadata["inference_allowed_mirroring_axes"] == [0, 1, 2]


def test_networks_that_nnunet_has_not_are_refused_as_its_checkpoint(tmp_path, plan):
    model = models.SegResNet(num_classes=3, num_features=8, num_blocks_down=(1,)).clone(
        num_blocks_up=()
    )
    run = Run(Experiment(model=model), plan, 0, drawn(model, plan))
    with pytest.raises(ValueError, match="cannot describe a SegResNet"):
        write_torch(tmp_path / "w.pth", run)


def test_regions_that_nnunet_would_make_exclusive_are_refused(
    tmp_path, experiment, plan
):
    single = dataclasses.replace(
        plan, regions=(("NETC", (1,)), ("SNFH", (2,)), ("ET", (3,)))
    )
    with pytest.raises(ValueError, match="a softmax with the background"):
        write_torch(tmp_path / "w.pth", a_run(experiment, single))


def _checkpoint(file, experiment, plan, change):
    run = a_run(experiment, plan, seed=1)
    write_torch(file, run)
    found = read_weights(file)
    metadata = json.loads(json.dumps(found.metadata))
    change(metadata)
    write_weights(file, found.tensors, metadata=metadata)
    return file


@pytest.mark.parametrize("axes", [None, [0, 1]])
def test_a_network_that_saw_no_mirrored_image_has_none_at_prediction(
    tmp_path, experiment, plan, axes
):
    def limit(metadata):
        metadata["inference_allowed_mirroring_axes"] = axes

    whole = _checkpoint(tmp_path / "whole.pth", experiment, plan, lambda m: None)
    limited = _checkpoint(tmp_path / "limited.pth", experiment, plan, limit)
    for file, is_mirrored in ((whole, True), (limited, False)):
        run, _ = read_nnunet(file, surgery=Surgery())
        assert (run.experiment.augment.p_mirror > 0) == is_mirrored


def test_a_softmax_network_begins_a_training_but_predicts_nothing(
    tmp_path, experiment, plan
):
    def to_labels(metadata):
        metadata["init_args"]["dataset_json"]["labels"] = {
            **{"background": 0, "NETC": 1, "SNFH": 2, "ET": 3}
        }

    file = _checkpoint(tmp_path / "w.pth", experiment, plan, to_labels)
    with pytest.raises(ValueError, match=r"\(softmax\).*--from-torch FILE"):
        read_nnunet(file, surgery=Surgery())
    _, report = into(experiment, plan, from_file(file))
    assert {path.split("/")[0] for path in report.paths("initialised")} == {"heads"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.pop("init_args"), "does not say which network it is of"),
        (lambda m: m["init_args"].update(plans={}), "its plans are not nnU-Net's"),
        (lambda m: m["init_args"].update(configuration="x"), "no configuration 'x'"),
    ],
)
def test_a_checkpoint_that_does_not_say_what_it_is_is_refused(
    tmp_path, experiment, plan, change, said
):
    file = _checkpoint(tmp_path / "w.pth", experiment, plan, change)
    with pytest.raises(ValueError, match=said) as caught:
        read_nnunet(file, surgery=Surgery())
    assert str(file) in str(caught.value)


def test_a_torn_data_set_description_is_said_with_its_file(tmp_path, experiment, plan):
    def tear(metadata):
        metadata["init_args"]["dataset_json"] = {"labels": {"ET": 3}}

    file = _checkpoint(tmp_path / "w.pth", experiment, plan, tear)
    with pytest.raises(ValueError, match=r"w\.pth: its dataset_json is not nnU-Net's"):
        into(experiment, plan, from_file(file))


def test_names_of_nnunet_are_put_into_our_words(tmp_path, experiment, plan):
    def rename(metadata):
        names = dict(zip("0123", ("T1_ce", "T1", "FLAIR", "T2"), strict=True))
        metadata["init_args"]["dataset_json"]["channel_names"] = names

    file = _checkpoint(tmp_path / "w.pth", experiment, plan, rename)
    assert plan.channels == ("t1c", "t1n", "t2f", "t2w")
    _, report = into(experiment, plan, from_file(file, heads="keep"))
    assert not report.paths("adapted") and not report.paths("initialised")
