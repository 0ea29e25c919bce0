"""No door but one opens a foreign weight file, and none runs what it holds."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from carried import ONE, from_file, into, with_source

import bmjax
from bmjax.data.store import Store
from bmjax.surgery import Surgery
from bmjax.transplant import (
    Origin,
    graft_run,
    read_nnunet,
)
from bmjax.weights import write_weights


class Canary:
    """Pickles as a call that leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def torch_file_with(path, canary):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"w": Canary(canary)}, 2))
    return path


def evil_files(folder, canary):
    objects = np.empty(1, object)
    objects[0] = Canary(canary)
    np.savez(folder / "w.npz", w=objects)
    (folder / "w.pkl").write_bytes(pickle.dumps(Canary(canary)))
    (folder / "raw.pth").write_bytes(pickle.dumps(Canary(canary)))
    torch_file_with(folder / "w.pth", canary)
    torch_file_with(folder / "w.pt", canary)
    return [folder / name for name in ("w.npz", "w.pkl", "raw.pth", "w.pth", "w.pt")]


def doors(experiment, plan, source, raw, out):
    """Every door of a user that takes a path, as name: call of that path."""
    return {
        "from_torch": lambda f: into(experiment, plan, from_file(f)),
        "read_nnunet": lambda f: read_nnunet(f, surgery=Surgery()),
        "origin": lambda f: into(experiment, plan, with_source(f)),
        "graft target": lambda f: graft_run(f, with_source(source)),
        "config": bmjax.load,
        "predict": lambda f: bmjax.predict(f, images=raw, out=out),
        "images": lambda f: bmjax.predict(source, images=f, out=out),
        "check": lambda f: raise_if_bad(bmjax.check(f)),
        "evaluate": lambda f: bmjax.evaluate(f, raw),
        "prepare": lambda f: bmjax.prepare(f, out / "store", num_workers=1),
        "store": Store,
        "workdir": lambda f: bmjax.train(experiment, workdir=f, **ONE),
    }


def raise_if_bad(report):
    if not report.ok:
        raise ValueError(str(report))


def test_the_canary_would_sing_under_pickle(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


DOORS = tuple(doors(None, None, None, None, Path()))


@pytest.mark.parametrize("door", DOORS)
def test_no_door_runs_what_a_weight_file_holds(
    tmp_path, experiment, plan, source, phantom_raw, door
):
    """Fault 46: refused everywhere, and never executed."""
    canary = tmp_path / "canary"
    call = doors(experiment, plan, source, phantom_raw, tmp_path / "out")[door]
    for file in evil_files(tmp_path, canary):
        with pytest.raises((ValueError, OSError)):
            call(file)
        assert not canary.exists(), (door, file.name)


@pytest.mark.parametrize("name", ["w.pth", "w.npz", "w.safetensors"])
def test_even_an_honest_file_is_no_run(tmp_path, experiment, plan, source, name):
    file = tmp_path / name
    write_weights(file, {"w": np.ones(2)})
    said = "is a file where a run folder is expected; weight files are read by"
    with pytest.raises(ValueError, match=said):
        into(experiment, plan, with_source(file))
    with pytest.raises(ValueError, match=said):
        graft_run(file, with_source(source))


def test_an_origin_is_one_thing():
    for both in ({}, {"run": Path("a"), "from_torch": Path("b.pth")}):
        with pytest.raises(ValueError, match="either a run folder or"):
            Origin(**both)
