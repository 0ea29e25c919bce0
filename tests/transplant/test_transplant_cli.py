"""What a person types to carry parameters over, and what is said back."""

import pytest
from carried import a_run

from bmjax.checkpoint import digest
from bmjax.cli import FAILED, OK, USAGE, main
from bmjax.runs import read_run, write_run
from bmjax.weights import read_weights


def run(*argv):
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in argv])
    return stopped.value.code


@pytest.fixture
def target(tmp_path, experiment, plan):
    """A run folder whose parameters are those of seed 2."""
    folder = tmp_path / "target"
    write_run(folder, a_run(experiment, plan, seed=2))
    return folder


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_runs_alone_are_compared_and_nothing_is_written(target, source, capsys):
    before = files(target.parent)
    assert run("graft", target, source) == OK
    said = capsys.readouterr().out
    assert "initialised 4" in said and "unused 4" in said
    assert files(target.parent) == before


def test_a_dry_run_writes_nothing(target, source, tmp_path, capsys):
    before = files(tmp_path)
    out = ("--out", tmp_path / "new", "--to-torch", tmp_path / "w.pth")
    assert run("graft", target, source, *out, "--dry-run") == OK
    assert "transferred" in capsys.readouterr().out
    assert files(tmp_path) == before


def test_the_result_is_a_run_with_its_account(target, source, tmp_path, capsys):
    (target / "split.json").write_text('{"train": [], "val": ["a"]}')
    assert run("graft", target, source, "--out", tmp_path / "new") == OK
    assert "new: a run at step 0" in capsys.readouterr().out
    folders = (tmp_path / "new", target, source)
    new, old, given = (read_run(folder) for folder in folders)
    params = new.variables["params"]
    assert digest(params["encoder"]) == digest(given.variables["params"]["encoder"])
    assert digest(params["heads"]) == digest(old.variables["params"]["heads"])
    assert new.experiment == old.experiment and new.plan == old.plan
    assert "initialised" in (tmp_path / "new" / "graft.txt").read_text()
    assert '"a"' in (tmp_path / "new" / "split.json").read_text()


def test_parameters_by_our_names_in_a_file(target, tmp_path):
    assert run("graft", target, "--out", tmp_path / "w.safetensors") == OK
    found = read_weights(tmp_path / "w.safetensors").tensors
    assert "heads/level_0/kernel" in found


def test_to_nnunet_and_back_without_a_target(source, tmp_path, capsys):
    file = tmp_path / "checkpoint_final.pth"
    assert run("graft", source, "--to-torch", file) == OK
    assert "a checkpoint of nnU-Net" in capsys.readouterr().out
    assert run("graft", "--from-torch", file, "--out", tmp_path / "again") == OK
    assert "unused 0" in capsys.readouterr().out
    again, before = read_run(tmp_path / "again"), read_run(source)
    assert digest(again.variables) == digest(before.variables)


def test_a_training_begins_with_nnunets_checkpoint(source, tmp_path, capsys):
    """As `--pretrained_weights` does it, heads drawn anew."""
    file = tmp_path / "checkpoint_final.pth"
    assert run("graft", source, "--to-torch", file) == OK
    new = ("--workdir", tmp_path / "new", "--optimizer.num-steps", 1)
    held = ("--optimizer.peak-lr", 1e-12, "--num-devices", 1)
    frozen = ("--optimizer.freeze", "encoder/.*")
    begin = ("--from-torch", file, "--heads", "nnunet")
    assert run("train", source, *new, *held, *frozen, *begin) == OK
    said = capsys.readouterr().err
    assert f"new: from {file}" in said
    assert "24 of 48 tensors are frozen" in said
    ours, theirs = (read_run(r).variables["params"] for r in (tmp_path / "new", source))
    assert digest(ours["encoder"]) == digest(theirs["encoder"])
    assert digest(ours["heads"]) != digest(theirs["heads"])


def test_mismatches_are_a_table_and_a_failure(
    source, tmp_path, experiment, plan, capsys
):
    other = experiment.replace({"model.features": (4, 8, 16)})
    write_run(tmp_path / "wide", a_run(other, plan))
    assert run("graft", tmp_path / "wide", source, "--out", tmp_path / "new") == FAILED
    said = capsys.readouterr().err
    assert "path" in said and "target expects" in said and "source has" in said
    assert not (tmp_path / "new").exists()


def test_weight_files_are_refused_where_runs_are_expected(source, tmp_path, capsys):
    file = tmp_path / "w.pth"
    assert run("graft", source, "--to-torch", file) == OK
    for argv in (
        ("graft", source, file),
        ("graft", file, source),
        ("train", source, "--workdir", tmp_path / "new", "--origin", file),
    ):
        assert run(*argv) == FAILED
        assert "weight files are read by --from-torch" in capsys.readouterr().err


def test_nothing_to_do_is_a_usage_error(source, tmp_path, capsys):
    assert run("graft", source) == USAGE
    assert "give a source, --from-torch, --to-torch or --out" in capsys.readouterr().err
    assert run("graft", "--out", tmp_path / "new") == USAGE
    assert "give the run folder that receives" in capsys.readouterr().err


def test_surgery_on_nothing_is_refused(source, tmp_path, capsys):
    assert (
        run("train", source, "--workdir", tmp_path / "new", "--heads", "keep") == FAILED
    )
    assert "no other network was given" in capsys.readouterr().err
