"""One network and one scene for each test of a fault."""

import pytest
from scene import PLAN, Scene, write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Run folder of a small 3-D network."""
    return write_model(tmp_path_factory.mktemp("model") / "run", PLAN)


@pytest.fixture
def scene(tmp_path, model, capsys):
    """Two exams, a network, and the command line."""
    return Scene(tmp_path, model, capsys)
