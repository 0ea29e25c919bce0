"""A run folder and the experiment that goes on in it."""

import json

import pytest

from bmjax import models
from bmjax.experiment import Experiment
from bmjax.runs import _require_same

EXPERIMENT = Experiment(model=models.PlainUNet(features=(4, 8), num_classes=3))


@pytest.fixture
def saved(tmp_path):
    """The experiment of a run, as a dict that is written back by calling it."""
    path = tmp_path / "experiment.json"
    content = json.loads(EXPERIMENT.to_json())

    def write():
        path.write_text(json.dumps(content))
        return tmp_path

    return content, write


def test_a_field_that_did_not_exist_yet_has_its_default(saved):
    content, write = saved
    del content["optimizer"]["freeze"]
    _require_same(write(), EXPERIMENT)
    frozen = EXPERIMENT.replace({"optimizer.freeze": ("encoder/.*",)})
    with pytest.raises(ValueError, match="optimizer.freeze: was"):
        _require_same(write(), frozen)


def test_another_value_is_shown_and_refused(saved):
    content, write = saved
    content["seed"] = 7
    with pytest.raises(ValueError, match="seed: was 7, is now 0"):
        _require_same(write(), EXPERIMENT)
