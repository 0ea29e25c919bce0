"""A run folder and the experiment that goes on in it (fault 49)."""

import json

import pytest

from bmjax import models
from bmjax.changes import require_same
from bmjax.data.pipeline import Loader
from bmjax.experiment import Experiment
from bmjax.training import Optimizer

EXPERIMENT = Experiment(
    model=models.PlainUNet(features=(4, 8), num_classes=3),
    data=Loader(store="store", batch_size=2),
    optimizer=Optimizer(num_steps=1000),
)
FACTS = {"plan": "p", "train": {"a": "1", "b": "2"}, "val": {"c": "3"}}


@pytest.fixture
def saved(tmp_path):
    """The experiment of a run, as a dict that is written back by calling it."""
    path = tmp_path / "experiment.json"
    content = json.loads(EXPERIMENT.to_json())

    def write():
        path.write_text(json.dumps(content))
        (tmp_path / "data.json").write_text(json.dumps(FACTS))
        return tmp_path

    return content, write


def test_a_field_that_did_not_exist_yet_has_its_default(saved):
    content, write = saved
    del content["optimizer"]["freeze"]
    require_same(write(), EXPERIMENT, FACTS)
    frozen = EXPERIMENT.replace({"optimizer.freeze": ("encoder/.*",)})
    with pytest.raises(ValueError, match="optimizer.freeze: was"):
        require_same(write(), frozen, FACTS)


def test_another_value_is_shown_and_refused(saved):
    content, write = saved
    content["seed"] = 7
    with pytest.raises(ValueError, match="seed: was 7, is now 0"):
        require_same(write(), EXPERIMENT, FACTS)


def test_another_batch_size_is_gone_on_with_only_when_overridden(saved):
    larger = EXPERIMENT.replace({"data.batch_size": 4})
    with pytest.raises(ValueError, match="data.batch_size: was 2, is now 4"):
        require_same(saved[1](), larger, FACTS)
    lines = require_same(saved[1](), larger, FACTS, override=True)
    assert lines == ("data.batch_size: was 2, is now 4",)


def test_what_cannot_change_the_result_is_shown_and_gone_on_with(saved):
    other = EXPERIMENT.replace({"data.num_workers": 3, "data.store": "moved"})
    assert len(require_same(saved[1](), other, FACTS)) == 2


@pytest.mark.parametrize(
    "change, said",
    [
        ({"plan": "q"}, "plan: was p, is now q"),
        ({"train": {"a": "1"}}, "train cases no longer there: b"),
        ({"val": {"c": "3", "d": "4"}}, "val cases new: d"),
        ({"train": {"a": "9", "b": "2"}}, "train cases prepared from other files: a"),
    ],
)
def test_another_data_set_is_shown_and_refused(saved, change, said):
    with pytest.raises(ValueError, match=said):
        require_same(saved[1](), EXPERIMENT, {**FACTS, **change})
    assert require_same(saved[1](), EXPERIMENT, {**FACTS, **change}, override=True)


def test_a_longer_run_says_what_becomes_of_the_learning_rate(saved):
    longer = EXPERIMENT.replace({"optimizer.num_steps": 2000})
    with pytest.raises(ValueError, match="stretched: at step 1000 the learning"):
        require_same(saved[1](), longer, FACTS)
    with pytest.raises(ValueError, match="optimizer.restarts 1000 to keep the rates"):
        require_same(saved[1](), longer, FACTS)
