import pytest
from carried import a_run

from bmjax.data.store import Store
from bmjax.runs import write_run


@pytest.fixture(scope="module")
def plan(phantom_store):
    return Store(phantom_store).plan


@pytest.fixture
def experiment(tiny_experiment, plan):
    return tiny_experiment.resolve(plan)


@pytest.fixture
def source(tmp_path, experiment, plan):
    """A run folder whose parameters are those of seed 1."""
    folder = tmp_path / "source"
    write_run(folder, a_run(experiment, plan, seed=1))
    return folder
