"""What SECURITY.md promises, where no other test holds the package to it."""

import ast
import json
import os
import re
import stat
import sys
import tomllib
from functools import cache
from importlib.metadata import metadata
from pathlib import Path

import pytest

import bmjax
from bmjax import compilation
from bmjax.data.cases import Case, sort_cases
from bmjax.data.store import prepare_store
from bmjax.data.streams import remove_unfinished, write_pieces
from bmjax.experiment import Experiment, load
from bmjax.study.review_form import form_page

PACKAGE = Path(bmjax.__file__).parent
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NETWORK = {"urllib", "requests", "httpx", "ftplib", "smtplib", "aiohttp", "http.client"}
READERS = {f"np.{name}" for name in ("load", "save", "savez", "savez_compressed")}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


@cache
def trees():
    return {p: ast.parse(p.read_text()) for p in sorted(PACKAGE.rglob("*.py"))}


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(
            node.func, ast.Name | ast.Attribute
        ):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords}


def is_of_ours(tree):
    """Whether every module that it imports by name is named `bmjax.` and more."""
    names = [
        ast.unparse(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("import_module")
    ]
    return all(name.startswith("f'bmjax.") for name in names)


@pytest.mark.parametrize("names", [UNPICKLERS, NETWORK], ids=["unpickle", "network"])
def test_no_module_imports(names):
    for path, tree in trees().items():
        found = {n for n in imported(tree) if n in names or n.split(".")[0] in names}
        assert not found, path


def test_no_text_is_run_and_no_shell_is_started():
    for path, tree in trees().items():
        for name, keywords in calls(tree):
            assert name not in CALLS, path
            assert "shell" not in keywords, path


def test_code_is_imported_by_name_in_one_place_only():
    """Configs, which are code, and classes of packages that the user allows."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path, tree in trees().items()
        if not is_of_ours(tree)
        or any(name.endswith("exec_module") for name, _ in calls(tree))
    }
    assert found == {"experiment.py"}


def test_numpy_never_reads_or_writes_objects():
    for path, tree in trees().items():
        for name, keywords in calls(tree):
            if name in READERS | {"npy.read_array"}:
                allowed = keywords.get("allow_pickle")
                assert isinstance(allowed, ast.Constant), f"{path}: {name}"
                assert allowed.value is False, path


def test_no_archive_is_unpacked_to_disk():
    for path, tree in trees().items():
        assert "tarfile" not in {*imported(tree)}, path
        for name, _ in calls(tree):
            assert not name.endswith((".extractall", ".extract", "unpack_archive")), (
                path
            )


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module that sings when it is imported."""
    module = "import pathlib\npathlib.Path(__file__).with_suffix('.sang').touch()\n"
    (tmp_path / "bmjax_canary.py").write_text(f"{module}\nclass Net:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "bmjax_canary.sang"
    sys.modules.pop("bmjax_canary", None)


@pytest.mark.parametrize("tag", ["bmjax_canary:Net", "bmjax_canary"])
def test_a_saved_experiment_imports_nothing_that_was_not_allowed(canary, tmp_path, tag):
    text = json.dumps({"type": "Experiment", "model": {"type": tag}})
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(ValueError, match=r"experiment\.json: .*--allow bmjax_canary"):
        load(tmp_path)
    assert not canary.exists()


def test_the_canary_would_sing_if_it_were_allowed(canary):
    text = '{"type": "Experiment", "model": {"type": "bmjax_canary:Net"}}'
    with pytest.raises(ValueError, match="not a saved experiment|model is"):
        Experiment.from_json(text, allow=("bmjax_canary",))
    assert canary.exists()


EVIL_IDS = ["../evil", "/tmp/evil", "..", "a/b", "a\\b", "a\0b", "a\nb", "x" * 201, ""]


@pytest.mark.parametrize("name", EVIL_IDS)
def test_a_dataset_json_cannot_name_a_case_out_of_the_folder(tmp_path, name):
    (tmp_path / "t.nii.gz").touch()
    listed = {"images": ["t.nii.gz"], "label": "t.nii.gz"}
    description = {"channel_names": {"0": "t1c"}, "labels": {"a": 1}}
    text = json.dumps({**description, "dataset": {name: listed, "good": listed}})
    (tmp_path / "dataset.json").write_text(text)
    cases, problems, _ = sort_cases(tmp_path)
    assert [case.id for case in cases] == ["good"]
    assert [problem.case for problem in problems] == [name]
    with pytest.raises(ValueError, match="cannot name a case"):
        Case(id=name, patient="p", images={})


def test_a_case_made_by_hand_cannot_be_written_elsewhere(tmp_path, brats_plan):
    home = tmp_path / "store"
    with pytest.raises(ValueError, match="cannot name a case"):
        prepare_store([Case(id="../beside", patient="p", images={})], brats_plan, home)
    assert not (tmp_path / "beside").exists()


def test_the_cache_is_private_and_of_one_kind_of_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = compilation.cache_folder()
    real = Path.read_text

    def other(path, *args, **more):
        text = real(path, *args, **more)
        return (
            text.replace("flags", "flags\t: avx9999", 1)
            if "cpuinfo" in path.name
            else text
        )

    monkeypatch.setattr(Path, "read_text", other)
    assert compilation.cache_folder() != ours
    before = compilation.jax.config.jax_compilation_cache_dir
    umask = os.umask(0)
    try:
        folder = compilation.use_cache()
    finally:
        os.umask(umask)
        compilation.jax.config.update("jax_compilation_cache_dir", before)
    assert folder is not None
    for place in (folder, folder.parent):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_the_readers_form_escapes_the_names_of_cases():
    evil = '"><script>alert(1)</script>'
    page = form_page([{"case": evil, "prediction": evil}])
    assert evil not in page and "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") == 4


def test_the_part_of_a_killed_writer_goes_and_that_of_a_living_one_stays(tmp_path):
    def pieces():
        yield b"first"
        (part,) = (p for p in tmp_path.iterdir() if p.name.endswith(".part"))
        dead = part.with_name(part.name.replace(str(os.getpid()), "1"))
        dead.write_bytes(b"left")
        (tmp_path / ".download.part").touch()  # of another program
        remove_unfinished(tmp_path)
        assert part.exists() and not dead.exists()
        yield b"second"

    write_pieces(tmp_path / "a.txt", pieces())
    assert (tmp_path / "a.txt").read_bytes() == b"firstsecond"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".download.part", "a.txt"]
    remove_unfinished(tmp_path / "nowhere")


def test_parts_in_folders_below_go_where_a_whole_tree_is_ours(tmp_path):
    part = tmp_path / "a" / ".b.json.12-0123abcd.part"
    part.parent.mkdir()
    part.touch()
    remove_unfinished(tmp_path)
    assert part.exists()
    remove_unfinished(tmp_path, within="tree")
    assert not part.exists()


ROOT = PACKAGE.parent
FAMILIES = {
    "Apache-2.0": "apache",
    "BSD, MIT, PSF": "bsd|mit|psf|python software",
    "LGPL-3.0-or-later": "lgpl-3.0-or-later",
}


def licence(package):
    """What a package's metadata say, whichever field they say it in."""
    facts = metadata(package)
    classes = [c for c in facts.get_all("Classifier") or [] if "License ::" in c]
    stated = [facts.get("License-Expression"), *classes, facts.get("License")]
    return next(text for text in stated if text).partition("\n")[0].lower()


def test_the_readme_lists_the_licence_of_every_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["report"]]
    names = {re.match(r"[\w.-]+", line)[0] for line in needed}
    terms = (ROOT / "README.md").read_text().partition("## Terms")[2]
    listed = {}
    for family, pattern in FAMILIES.items():
        row = re.search(rf"^\| {re.escape(family)} \| (.*) \|$", terms, re.MULTILINE)
        for name in row[1].split(", "):
            listed[name] = pattern
    assert set(listed) == names
    for name, pattern in listed.items():
        assert re.search(pattern, licence(name)), f"{name}: {licence(name)}"


def test_the_citation_is_of_this_version_and_licence():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {bmjax.__version__}\n" in citation
    assert "license: Apache-2.0\n" in citation
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
