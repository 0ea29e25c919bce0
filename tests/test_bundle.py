"""Bundles: made of runs, verified, refused where a member has no place (fault 47)."""

import io
import json
import shutil
import stat
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from bmjax import models, prediction
from bmjax.bundle import read_bundle, write_bundle
from bmjax.checkpoint import digest
from bmjax.ensemble import read_ensemble
from bmjax.experiment import Experiment
from bmjax.runs import Run, write_run


@pytest.fixture(scope="module")
def shapes(brats_plan):
    """Of the parameters of a small network."""
    model = (
        Experiment(model=models.PlainUNet(features=(4, 8))).resolve(brats_plan).model
    )
    image = jax.ShapeDtypeStruct((1, 16, 16, 16, 4), np.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), image)


@pytest.fixture(scope="module")
def made(tmp_path_factory, shapes, brats_plan):
    """A folder with `runs`, two folds of one experiment, and with their bundle."""
    model, variables = shapes
    folder = tmp_path_factory.mktemp("made")
    for fold in range(2):
        own = Experiment(model=model).resolve(brats_plan).replace({"data.fold": fold})
        rng = np.random.default_rng(fold)
        variables = jax.tree.map(
            lambda x, rng=rng: rng.normal(size=x.shape).astype(np.float32), variables
        )
        write_run(folder / "runs" / f"fold_{fold}", Run(own, brats_plan, 0, variables))
    split = {"train": ["A", "B", "C"], "val": ["D"]}
    (folder / "runs/fold_0/split.json").write_text(json.dumps(split))
    prediction.bundle(folder / "runs", out=folder / "model.bmjax")
    return folder


@pytest.fixture
def runs(made, tmp_path):
    return Path(shutil.copytree(made / "runs", tmp_path / "runs"))


@pytest.fixture
def bundled(made, tmp_path):
    return Path(shutil.copy(made / "model.bmjax", tmp_path))


def test_a_bundle_holds_what_its_runs_hold(runs, bundled):
    from_runs, from_bundle = read_ensemble(runs), read_ensemble(bundled)
    assert list(from_bundle.folds) == [0, 1]
    for fold, variables in from_runs.folds.items():
        assert digest(from_bundle.folds[fold]) == digest(variables)
    assert digest(from_bundle.folds[0]) != digest(from_bundle.folds[1])
    assert from_bundle.plan == from_runs.plan
    assert from_bundle.experiment == from_runs.experiment
    assert list(read_ensemble(bundled, folds=[1]).folds) == [1]


def test_the_same_runs_give_the_same_bytes(runs, bundled, tmp_path):
    again = prediction.bundle(runs, out=tmp_path / "again.bmjax")
    with zipfile.ZipFile(bundled) as one, zipfile.ZipFile(again) as other:
        assert one.namelist() == other.namelist()
        for name in set(one.namelist()) - {"README.md", "manifest.json"}:
            assert one.read(name) == other.read(name)


def test_the_card_says_what_it_is_for_and_what_it_saw(bundled):
    card = read_bundle(bundled).card
    assert "Research only" in card
    assert "Cases of each fold: 3." in card
    assert "| 3 | ET | WT TC ET |" in card
    assert "no run that was bundled has been validated" in card


def test_verifying_names_every_member_and_its_versions(bundled):
    said = prediction.verify(bundled)
    assert "folds 0 (step 0), 1 (step 0)" in said and "jax" in said
    for name in ("fold_1.safetensors", "plan.json", "experiment.json", "README.md"):
        assert name in said


def test_a_flipped_byte_of_any_member_is_noticed(bundled, tmp_path):
    with zipfile.ZipFile(bundled) as archive:
        members = {i.filename: archive.read(i) for i in archive.infolist()}
    for name in set(members) - {"manifest.json"}:
        changed = dict(members)
        middle = len(changed[name]) // 2
        content = bytearray(changed[name])
        content[middle] ^= 1
        changed[name] = bytes(content)
        path = tmp_path / f"{name}.bmjax"
        with zipfile.ZipFile(path, "w") as archive:  # with a checksum of its own
            for member, value in changed.items():
                archive.writestr(member, value)
        with pytest.raises(ValueError, match=f"{name} is not what was bundled"):
            read_bundle(path)


@pytest.mark.parametrize("share", [0.2, 0.7, 0.999])
def test_a_truncated_bundle_is_refused(bundled, share):
    content = bundled.read_bytes()
    bundled.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="not a bundle, or a damaged one"):
        read_bundle(bundled)


def test_a_damaged_bundle_is_refused(bundled):
    content = bytearray(bundled.read_bytes())
    content[len(content) // 2] ^= 255
    bundled.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged one|not what was bundled"):
        read_bundle(bundled)


BAD_MEMBERS = {
    "climbs out": zipfile.ZipInfo("../evil.py"),
    "absolute": zipfile.ZipInfo("/etc/evil"),
    "of Windows": zipfile.ZipInfo("C:\\evil"),
    "folder": zipfile.ZipInfo("folder/"),
    "code": zipfile.ZipInfo("setup.py"),
    "pickle": zipfile.ZipInfo("fold_2.pkl"),
    "fold of odd number": zipfile.ZipInfo("fold_02.safetensors"),
}


@pytest.mark.parametrize("info", BAD_MEMBERS.values(), ids=BAD_MEMBERS)
def test_fault_47_a_member_without_a_place_is_refused(bundled, tmp_path, info):
    with zipfile.ZipFile(bundled, "a") as archive:
        archive.writestr(info, b"payload")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ValueError, match="has no place in a bundle; nothing was unpack"
    ):
        read_bundle(bundled)
    assert sorted(tmp_path.rglob("*")) == before


def test_fault_47_a_link_is_refused(bundled):
    info = zipfile.ZipInfo("fold_7.safetensors")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(bundled, "a") as archive:
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(ValueError, match="is a link"):
        read_bundle(bundled)


def test_fault_47_a_member_that_unpacks_to_more_than_the_file_is_refused(bundled):
    with zipfile.ZipFile(bundled, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fold_8.safetensors", bytes(10_000_000))
    with pytest.raises(ValueError, match="compressed or encrypted"):
        read_bundle(bundled)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_fault_47_a_member_that_is_there_twice_is_refused(bundled):
    with zipfile.ZipFile(bundled, "a") as archive:
        archive.writestr("plan.json", b"{}")
    with pytest.raises(ValueError, match="'plan.json' is there twice"):
        read_bundle(bundled)


def test_an_unlisted_fold_is_refused(bundled):
    with zipfile.ZipFile(bundled, "a") as archive:
        archive.writestr("fold_9.safetensors", b"payload")
    with pytest.raises(ValueError, match="its manifest lists"):
        read_bundle(bundled)


def test_other_archives_and_files_are_no_bundles(tmp_path):
    path = tmp_path / "other.bmjax"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", b"{}")
    with pytest.raises(ValueError, match="not a bundle, experiment.json, .* missing"):
        read_bundle(path)
    path.write_bytes(io.BytesIO(b"text").getvalue())
    with pytest.raises(ValueError, match="not a bundle"):
        read_bundle(path)
    with pytest.raises(FileNotFoundError, match="no such bundle"):
        read_bundle(tmp_path / "none.bmjax")
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(ValueError, match="graft --from-torch"):
        read_ensemble(tmp_path / "w.pth")


def test_a_bundle_of_another_name_is_not_written(tmp_path, brats_plan):
    with pytest.raises(ValueError, match="ends in .bmjax"):
        write_bundle(
            tmp_path / "m.zip",
            experiment="",
            plan=brats_plan,
            folds={},
            steps={},
            card="",
        )
    assert not list(tmp_path.iterdir())


def test_a_fold_that_is_not_there_is_said(runs, bundled):
    for model in (runs, bundled):
        with pytest.raises(ValueError, match=r"folds \[5\] wanted, it holds \[0, 1\]"):
            read_ensemble(model, folds=[5])


def test_folds_of_other_plans_are_not_averaged(runs):
    path = runs / "fold_1" / "plan.json"
    plan = json.loads(path.read_text()) | {"batch_size": 7}
    path.write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r"fold_1: has another network or plan than"):
        read_ensemble(runs)
    assert list(read_ensemble(runs, folds=[0]).folds) == [0]
