"""What a run will take, before it begins."""

import shutil
from collections import namedtuple

import jax
import numpy as np
import pytest

from bmjax import run_cost as cost
from bmjax.experiment import Experiment
from bmjax.models import PlainUNet
from bmjax.training import initial_state

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def begun(brats_plan):
    """An experiment, and the state that it begins with; no array is that large."""
    model = PlainUNet(features=(8, 16, 32))
    experiment = Experiment(model=model).resolve(brats_plan)
    image = np.zeros((1, 32, 32, 32, 4), np.float32)
    variables = jax.jit(experiment.model.init)(jax.random.key(0), image)
    state = initial_state(variables, experiment.optimizer.transformation())
    return experiment, state


def look(begun, plan, folder, *, num_saved=0, **changes):
    experiment, state = begun
    experiment = experiment.replace(changes)
    return cost.run_cost(
        folder,
        experiment,
        plan,
        state,
        num_saved=num_saved,
        devices=jax.devices()[:1],
    )


def test_checkpoints_are_counted_as_they_are_kept(begun, brats_plan, tmp_path):
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(begun[1]))
    first = look(begun, brats_plan, tmp_path)
    assert first.disk_bytes == 4 * one  # two newest, the best, the one on its way
    assert look(begun, brats_plan, tmp_path, num_saved=3).disk_bytes == one
    more = look(begun, brats_plan, tmp_path, **{"fit.keep_last": 5})
    assert more.disk_bytes == 7 * one
    assert "checkpoints take" in str(first)


def test_a_disk_without_room_is_refused(begun, brats_plan, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9, 9, 1000))
    with pytest.raises(OSError, match="make room, choose another --workdir"):
        look(begun, brats_plan, tmp_path)


def test_memory_is_estimated_where_it_matters_and_warned_of(
    begun, brats_plan, tmp_path, monkeypatch
):
    small = look(begun, brats_plan, tmp_path)
    assert small.step_bytes is None and "a step" not in str(small)
    size = {"data.patch_size": (64, 64, 64), "data.batch_size": 2}
    large = look(begun, brats_plan, tmp_path, **size)
    # the image, and the first two convolutions' results, at the least
    assert large.step_bytes > 2 * 64**3 * 4 * (4 + 8 + 8)
    assert "a step takes about" in str(large) and "MAY NOT" not in str(large)
    monkeypatch.setattr(cost, "free_memory_bytes", lambda: 2**20)
    tight = look(begun, brats_plan, tmp_path, **size)
    assert "MEMORY MAY NOT SUFFICE: lower --data.batch-size" in str(tight)
