import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmjax import sharding
from bmjax.checkpoint import Checkpoints, digest


def tree(value):
    return {
        "params": {"conv": {"kernel": jnp.full((2, 3), value), "bias": jnp.ones(3)}}
    }


OPTIMIZER = {"momentum": jnp.arange(4.0), "step": jnp.asarray(3)}


def save(folder, step, score=None, keep_last=2):
    checkpoints = Checkpoints(folder, keep_last=keep_last)
    checkpoints.save(
        step,
        variables=tree(float(step)),
        optimizer=OPTIMIZER,
        meta={"cursor": step},
        score=score,
    )
    return checkpoints


def test_what_is_saved_comes_back(tmp_path):
    checkpoints = save(tmp_path / "c", 3)
    found = checkpoints.restore(3, variables=tree(0.0), optimizer=OPTIMIZER)
    assert digest(found.variables) == digest(tree(3.0))
    assert digest(found.optimizer) == digest(OPTIMIZER)
    assert found.meta["cursor"] == 3


def test_variables_alone_are_read_as_numpy(tmp_path):
    checkpoints = save(tmp_path / "c", 3)
    found = checkpoints.restore_variables(3)
    assert digest(found.variables) == digest(tree(3.0))
    assert {type(x) for x in jax.tree.leaves(found.variables)} == {np.ndarray}


def test_the_newest_and_the_best_are_kept(tmp_path):
    for step, score in [(1, 0.2), (2, 0.9), (3, 0.5), (4, 0.4), (5, 0.3)]:
        checkpoints = save(tmp_path / "c", step, score)
    assert checkpoints.latest() == 5
    assert checkpoints.best() == 2
    kept = {int(x.name) for x in (tmp_path / "c").iterdir() if x.name.isdigit()}
    assert kept == {2, 4, 5}


def test_saved_on_eight_devices_and_read_on_one(tmp_path):
    mesh = sharding.data_mesh()
    checkpoints = Checkpoints(tmp_path / "c")
    spread = sharding.replicate(tree(7.0), mesh)
    checkpoints.save(1, variables=spread, optimizer=OPTIMIZER, meta={})
    found = checkpoints.restore(1, variables=tree(0.0), optimizer=OPTIMIZER)
    assert digest(found.variables) == digest(tree(7.0))


def test_a_killed_save_is_ignored_and_cleaned(tmp_path):
    save(tmp_path / "c", 1).close()
    left = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    left.mkdir()
    (left / "junk").write_text("half written")
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() == 1
    assert not left.exists()


def test_changed_bytes_are_noticed(tmp_path):
    checkpoints = save(tmp_path / "c", 1)
    metadata = next((tmp_path / "c" / "1" / "meta").rglob("metadata"))
    metadata.write_text(
        metadata.read_text().replace('"variables": "', '"variables": "0')
    )
    with pytest.raises(ValueError, match="differ from those that were saved"):
        checkpoints.restore_variables(1)


def test_no_run_is_said_plainly(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoints"):
        Checkpoints(tmp_path / "none", is_read_only=True)
