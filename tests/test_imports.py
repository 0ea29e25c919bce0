"""Importing is cheap: heavy libraries start only where they are used."""

import subprocess
import sys

import pytest

HEAVY = ("jax", "flax", "optax", "orbax", "grain", "matplotlib", "nibabel")


def loaded_by(code):
    program = f"{code}\nimport sys; print(*sys.modules)"
    run = [sys.executable, "-c", program]
    names = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in names.split()}


def test_importing_bmjax_loads_nothing_heavy():
    assert not loaded_by("import bmjax").intersection(HEAVY)


@pytest.mark.parametrize("module", ["patches", "store"])
def test_what_a_worker_imports_knows_no_network_library(module):
    loaded = loaded_by(f"import bmjax.data.{module}")
    assert not loaded.intersection(("flax", "optax", "orbax", "grain"))


def test_a_worker_starts_no_device():
    code = (
        "import bmjax.data.pipeline, jax\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()"
    )
    assert "bmjax" in loaded_by(code)


def test_every_door_and_room_opens():
    code = "import bmjax\nfor name in bmjax.__all__: getattr(bmjax, name)"
    assert "bmjax" in loaded_by(code)


def test_an_unknown_name_is_an_attribute_error():
    import bmjax

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bmjax.nothing


def test_the_pipeline_itself_knows_no_network_library():
    loaded = loaded_by("import bmjax.data.pipeline")  # grain brings orbax
    assert not loaded.intersection(("flax", "optax"))
