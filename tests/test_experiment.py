import dataclasses
import json

import pytest

from bmjax import losses, models
from bmjax.data.pipeline import Loader
from bmjax.experiment import Experiment, load
from bmjax.training import Optimizer

OPEN = Experiment(model=models.PlainUNet(), data=Loader(store="store"))


def test_open_fields_come_from_the_plan(brats_plan):
    closed = OPEN.resolve(brats_plan)
    assert closed.model.features == (8, 16, 32)
    assert closed.model.num_classes == 3
    assert closed.data.patch_size == (32, 32, 32)
    assert closed.loss.batch_dice is True


def test_chosen_fields_are_kept(brats_plan):
    chosen = OPEN.replace({"model.features": (4, 4), "data.batch_size": 8})
    closed = chosen.resolve(brats_plan)
    assert closed.model.features == (4, 4)
    assert closed.model.strides == brats_plan.strides[:2]
    assert closed.data.batch_size == 8


def test_a_network_with_other_outputs_than_the_plan_is_refused(brats_plan):
    with pytest.raises(ValueError, match=r"plan has 3 regions \(WT, TC, ET\)"):
        OPEN.replace({"model.num_classes": 4}).resolve(brats_plan)


def test_json_gives_back_the_same_experiment(brats_plan):
    closed = OPEN.resolve(brats_plan)
    again = Experiment.from_json(closed.to_json())
    assert again == closed
    assert hash(again) == hash(closed)
    assert isinstance(again.model.strides, tuple)


def test_all_networks_and_losses_survive_json():
    for model in (models.SegResNet(), models.UNet2D(), models.ConvNet(), models.FCN()):
        for loss in (
            losses.TverskyBCE(),
            losses.DeepSupervision(loss=losses.DiceCE(), weights=(1.0, 0.5)),
        ):
            given = Experiment(model=model, loss=loss)
            assert Experiment.from_json(given.to_json()) == given


def test_a_misspelt_path_names_the_nearest_field():
    with pytest.raises(ValueError, match="did you mean peak_lr"):
        OPEN.replace({"optimizer.peek_lr": 1.0})


def test_replacing_leaves_the_original_alone():
    changed = OPEN.replace({"optimizer.peak_lr": 0.5, "seed": 7})
    assert (changed.optimizer.peak_lr, changed.seed) == (0.5, 7)
    assert OPEN.optimizer == Optimizer()


def test_json_cannot_name_a_class_of_a_foreign_package():
    text = json.loads(OPEN.to_json())
    text["loss"] = {"type": "os:system", "command": "true"}
    with pytest.raises(ValueError, match="--allow os"):
        Experiment.from_json(json.dumps(text))


def test_a_spec_holds_plain_values_only():
    broken = dataclasses.replace(OPEN, loss=object())
    with pytest.raises(TypeError, match="numbers, strings"):
        broken.to_json()


def test_a_config_without_experiment_is_named(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(ValueError, match="defines `experiment"):
        load(path)


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such config"):
        load(tmp_path / "none.py")
