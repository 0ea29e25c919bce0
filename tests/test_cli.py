"""What a person types, and the exit codes that a script sees."""

import json
from importlib.metadata import version

import jax
import pytest

import bmjax
from bmjax.cli import FAILED, OK, USAGE, main
from bmjax.compilation import cache_folder


def run(*argv):
    with pytest.raises(SystemExit) as stopped:
        main([str(part) for part in argv])
    return stopped.value.code


def test_version(capsys):
    assert run("--version") == OK
    assert capsys.readouterr().out.strip() == f"bmjax {bmjax.__version__}"


def test_a_bug_report_says_what_runs_where(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS_OF_MINE", "7")
    assert run("--version", "--devices") == OK
    said = capsys.readouterr().out
    assert said.startswith(f"bmjax {bmjax.__version__}\npython 3.")
    for name in ("jax", "jaxlib", "flax", "orbax-checkpoint", "grain", "numpy"):
        assert f"\n{name} {version(name)}\n" in said
    assert said.count("\ndevice ") == 8
    assert "\ncpu " in said and "\nmemory " in said
    assert f"\ncompile cache {cache_folder()}" in said
    assert "\nXLA_FLAGS_OF_MINE=7" in said


def test_a_bug_report_is_printed_without_a_device_too(capsys, monkeypatch):
    def nothing():
        raise RuntimeError("Unable to initialize backend 'cuda': none\nmore")

    monkeypatch.setattr(jax, "devices", nothing)
    assert run("--version", "--devices") == OK
    said = capsys.readouterr().out
    assert "devices none: " in said
    assert "(Unable to initialize backend 'cuda': none)" in said


def test_an_unknown_verb_is_a_usage_error(capsys):
    assert run("segment", "it") == USAGE
    assert "segment" in capsys.readouterr().err


def test_check_of_whole_cases_is_ok(phantom_raw, capsys):
    assert run("check", phantom_raw) == OK
    assert "4 complete cases" in capsys.readouterr().out


def test_check_names_every_problem_and_fails(phantom_raw, tmp_path, capsys):
    for name in ("BraTS-PHM-00001-000", "BraTS-PHM-00002-000"):
        case = tmp_path / "raw" / name
        case.mkdir(parents=True)
        for channel in ("t1c", "t1n", "t2f", "t2w", "seg"):
            file = f"{name}-{channel}.nii.gz"
            (case / file).write_bytes((phantom_raw / name / file).read_bytes())
    (
        tmp_path / "raw" / "BraTS-PHM-00001-000" / "BraTS-PHM-00001-000-t2f.nii.gz"
    ).unlink()
    torn = tmp_path / "raw" / "BraTS-PHM-00002-000" / "BraTS-PHM-00002-000-t1c.nii.gz"
    torn.write_bytes(torn.read_bytes()[:500])
    assert run("check", tmp_path / "raw") == FAILED
    said = capsys.readouterr().out
    assert "BraTS-PHM-00001-000" in said
    assert "t2f" in said
    assert "BraTS-PHM-00002-000" in said
    assert "truncated" in said


def test_check_speaks_json(phantom_raw, capsys):
    assert run("check", phantom_raw, "--json") == OK
    assert json.loads(capsys.readouterr().out)


def test_training_without_a_store_says_which_flag_is_missing(tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "from bmjax import Experiment, models\n"
        "def experiment():\n    return Experiment(model=models.PlainUNet())\n"
    )
    assert run("train", config, "--workdir", tmp_path / "run") == FAILED
    assert "--data.store STORE" in capsys.readouterr().err


def test_training_a_missing_config_is_said_plainly(tmp_path, capsys):
    assert run("train", tmp_path / "none.py", "--workdir", tmp_path / "run") == FAILED
    assert "no such config" in capsys.readouterr().err


def test_a_misspelt_flag_is_a_usage_error(tmp_path, capsys):
    config = tmp_path / "config.py"
    config.write_text(
        "from bmjax import Experiment, models\n"
        "def experiment():\n    return Experiment(model=models.PlainUNet())\n"
    )
    code = run("train", config, "--workdir", tmp_path, "--optimizer.peek-lr", "1")
    assert code == USAGE
    assert "peak-lr" in capsys.readouterr().err


def test_predicting_with_no_run_is_said_plainly(tmp_path, phantom_raw, capsys):
    code = run("predict", tmp_path, "--images", phantom_raw, "--out", tmp_path / "out")
    assert code == FAILED
    assert "experiment.json: no such config" in capsys.readouterr().err


def test_a_missing_prediction_is_a_failure(tmp_path, phantom_raw, capsys):
    out = tmp_path / "out"
    out.mkdir()
    name = "BraTS-PHM-00001-000"
    labels = phantom_raw / name / f"{name}-seg.nii.gz"
    (out / f"{name}.nii.gz").write_bytes(labels.read_bytes())
    assert run("evaluate", out, phantom_raw) == FAILED
    captured = capsys.readouterr()
    assert "BraTS-PHM-00002-000" in captured.err
    assert run("evaluate", out, phantom_raw, "--cases", name) == OK


def test_benchmarks_are_refused_outside_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bmjax, "__file__", str(tmp_path / "bmjax" / "__init__.py"))
    assert run("bench", "step") == USAGE
    assert "installed from a checkout" in capsys.readouterr().err


def test_the_flags_of_bench_are_those_of_the_suite(capfd):
    assert run("bench", "no-such-benchmark") == USAGE
    assert "no-such-benchmark" in capfd.readouterr().err
