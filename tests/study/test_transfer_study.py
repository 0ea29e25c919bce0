import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bmjax.study.cohorts import hold_out, read_manifest, write_manifest
from bmjax.study.forecast import step_flop
from bmjax.study.phantoms import draw_cohorts
from bmjax.study.recipes import RECIPES, find_recipes
from bmjax.study.stages import Ledger
from bmjax.study.transfer import Study, Transfer
from bmjax.study.transfer_stages import require_aligned

TINY = str(Path(__file__).with_name("tiny_net.py"))


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """The files of four source and seven target cases, which hold nothing."""
    folder = tmp_path_factory.mktemp("named")
    for name, start, count in (("source", "MET", 4), ("target", "SBT", 7)):
        rows = ["case,patient,t1c,t1n,t2f,t2w,labels,primary"]
        for i in range(count):
            files = [f"{start}-{i}-{kind}.nii.gz" for kind in (*"abcd", "seg")]
            rows.append(",".join([f"{start}-{i}", f"{start}{i}", *files, "lung"]))
            for file in files:
                path = folder / name / file
                path.parent.mkdir(exist_ok=True)
                path.touch()
        (folder / name / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    """Four source and seven target cases at 6 mm."""
    folder = tmp_path_factory.mktemp("cohorts")
    draw_cohorts(
        folder,
        num_source=4,
        num_target=7,
        spacing_mm=(6.0, 6.0, 6.0),
        console=Console(quiet=True),
    )
    return folder


@pytest.fixture
def what(named):
    return Transfer(
        source=named / "source",
        target=named / "target",
        models=(TINY,),
        folds=2,
        num_test=3,
        pretrain_epochs=2,
        finetune_epochs=1,
        spacing_mm=(6.0, 6.0, 6.0),
        patch_size=(16, 16, 16),
        batch_size=2,
    )


def test_the_papers_study_is_one_and_a_half_million_steps(what, tmp_path):
    paper = Transfer(source=what.source, target=what.target, num_test=3)
    stages = Study(paper, tmp_path).stages
    assert sum(stage.num_steps for stage in stages) == 1_500_000
    trained = [stage.name for stage in stages if stage.num_steps]
    assert len(trained) == 3 * 5 * 3


def test_every_stage_comes_after_those_that_it_needs(what, tmp_path):
    Ledger(tmp_path, Study(what, tmp_path).stages)


@pytest.mark.parametrize(
    ("seeds", "wanted"),
    [
        ("matched", ["fold_0", "fold_1"]),
        ("first", ["fold_0", "fold_0"]),
        ("all", ["all", "all"]),
    ],
)
def test_the_seed_of_each_fold_is_as_asked_for(what, tmp_path, seeds, wanted):
    study = Study(dataclasses.replace(what, seeds=seeds), tmp_path)
    found = {stage.name: stage.needs for stage in study.stages}
    seeded = [found[f"finetune/tiny_net/fold_{k}"][-1] for k in (0, 1)]
    assert seeded == [f"pretrain/tiny_net/{name}" for name in wanted]
    assert found["scratch/tiny_net/fold_0"] == ("prepare/target",)


def test_fine_tuning_and_scratch_run_the_same_recipe(what, tmp_path):
    study = Study(what, tmp_path)
    tuned, scratch, source = (
        study.experiment(part, "tiny_net", 1)
        for part in ("finetune", "scratch", "pretrain")
    )
    assert tuned == scratch
    assert (source.optimizer.total_steps, tuned.optimizer.total_steps) == (8, 4)
    assert tuned.data.fold == 1


@pytest.mark.parametrize(
    ("plan", "first", "second_needs"),
    [
        ("target", "prepare/target", ("prepare/target",)),
        ("source", "prepare/source", ("prepare/source",)),
        ("native", "prepare/target", ()),
    ],
)
def test_plans_are_aligned_as_asked_for(what, tmp_path, plan, first, second_needs):
    stages = Study(dataclasses.replace(what, plan=plan), tmp_path).stages
    assert stages[0].name == first
    assert stages[1].needs == second_needs


def test_a_longer_fine_tuning_leaves_the_pre_training_as_it_is(what, tmp_path):
    before, after = (
        {s.name: s.settings for s in Study(w, tmp_path).stages}
        for w in (what, dataclasses.replace(what, finetune_epochs=3))
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        f"{part}/tiny_net/fold_{k}" for part in ("finetune", "scratch") for k in (0, 1)
    }


def test_patients_are_on_one_side_only(named, what, tmp_path):
    held = hold_out(named / "target", data=what.target_data, num_test=3)
    assert len(held.test) == 3
    assert not {c.id for c in held.train} & {c.id for c in held.test}
    again = hold_out(named / "target", data=what.target_data, num_test=3)
    assert again == held
    leaky = dataclasses.replace(what, source=named / "target")
    with pytest.raises(ValueError, match="among the source's cases and among the test"):
        Study(leaky, tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"folds": 1}, "folds: 1; a cross-validation takes 2 or more"),
        ({"models": ("unet9",)}, "no recipe 'unet9'; there are default, tverskybce"),
        ({"models": (TINY, TINY)}, "two are called tiny_net"),
        ({"test_cases": ("nobody",)}, "has no case nobody to hold out"),
        ({"num_test": 2}, "2 to test on; some of the first and at least 3"),
    ],
)
def test_what_cannot_be_studied_is_refused(what, tmp_path, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        _ = Study(dataclasses.replace(what, **changes), tmp_path).stages


def test_a_manifest_gives_the_same_cases_back(named, what, tmp_path):
    held = hold_out(named / "target", data=what.target_data, num_test=3)
    path = write_manifest(tmp_path, "test", held.test, named / "target")
    again = read_manifest(path, what.target_data)
    assert [case.id for case in again] == [case.id for case in held.test]
    assert [case.columns for case in again] == [case.columns for case in held.test]
    assert all(
        a.images[c].samefile(b.images[c])
        for a, b in zip(again, held.test, strict=True)
        for c in a.images
    )


def test_a_store_is_taken_as_it_is(what, tmp_path, phantom_store):
    study = Study(dataclasses.replace(what, source=phantom_store), tmp_path)
    found = {stage.name: stage for stage in study.stages}
    assert "prepare/source" not in found
    assert study.store("source") == phantom_store
    stage = found["pretrain/tiny_net/fold_0"]
    assert stage.needs == ("prepare/target",) and len(stage.inputs) == 4
    with pytest.raises(ValueError, match="a store has no test cases; give them with"):
        Study(dataclasses.replace(what, target=phantom_store), tmp_path)


def test_stores_of_other_plans_are_refused(phantom_store, brats_plan, tmp_path):
    require_aligned(phantom_store, phantom_store)
    (tmp_path / "plan.json").write_text(json.dumps(brats_plan.to_dict()))
    with pytest.raises(ValueError, match=r"differ in .*spacing_mm .*--plan native"):
        require_aligned(phantom_store, tmp_path)


def test_results_are_grouped_by_the_primary_tumour_where_it_is_known(what, tmp_path):
    assert Study(what, tmp_path).by == "primary"
    assert Study(dataclasses.replace(what, by="scanner"), tmp_path).by == "scanner"
    manifest = what.target / "manifest.csv"
    text = manifest.read_text()
    manifest.write_text(text.replace("primary", "organ"))
    assert Study(what, tmp_path).by == ""
    manifest.write_text(text)


def test_operations_of_a_step_are_counted(brats_plan):
    small, large = (
        step_flop(
            find_recipes([TINY])["tiny_net"].replace({"data.batch_size": size}),
            brats_plan,
        )
        for size in (2, 4)
    )
    assert large / small == pytest.approx(2, rel=0.02)
    # the three 3x3x3 convolutions at full resolution alone, forward
    voxels = 2 * 32**3
    assert small > 2 * voxels * 27 * (4 * 4 + 4 * 4 + 8 * 4)


def test_the_recipes_are_those_of_the_authors_code():
    default, tversky, segresnet = (RECIPES[name]() for name in RECIPES)
    assert default.optimizer == tversky.optimizer
    assert (default.optimizer.peak_lr, default.optimizer.momentum) == (1e-2, 0.99)
    assert (tversky.loss.voxel_weight, tversky.loss.positive_weight) == (10, 1)
    assert (segresnet.optimizer.eps, segresnet.optimizer.weight_decay) == (1e-5, 1e-5)
    assert all(r().optimizer.total_steps == 25_000 for r in RECIPES.values())


def _command(cohorts, workdir):
    return [
        *(sys.executable, "-m", "bmjax", "study", "transfer"),
        *("--workdir", str(workdir), "--models", TINY),
        *("--source", str(cohorts / "source"), "--target", str(cohorts / "target")),
        *("--folds", "2", "--num-test", "3"),
        *("--pretrain-epochs", "2", "--finetune-epochs", "1"),
        *("--spacing-mm", "6", "6", "6", "--patch-size", "16", "16", "16"),
        *("--batch-size", "2"),
    ]


def _kill_in(stage, command, workdir):
    """Run until the stage has begun, then kill without warning."""
    record = workdir / "stages" / f"{stage.replace('/', '.')}.json"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not record.is_file():
        assert process.poll() is None, f"ended before {stage}"
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(record.read_text())["state"] == "begun"


_KILLED_AT_THE_END = """
import os, signal
from bmjax import cli
from bmjax.study import transfer_stages

write = transfer_stages.{name}

def write_and_die(*args, **kwargs):
    write(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

transfer_stages.{name} = write_and_die
cli.main()
"""


def _kill_at_the_end_of(stage, name, command, workdir):
    """Let a stage of milliseconds write, and kill before the ledger says so."""
    program = _KILLED_AT_THE_END.format(name=name)
    words = [sys.executable, "-c", program, *command[3:]]
    code = subprocess.run(words, stderr=subprocess.DEVNULL).returncode
    assert code == -signal.SIGKILL
    record = json.loads((workdir / "stages" / f"{stage}.json").read_text())
    assert record["state"] == "begun"


@pytest.mark.slow
def test_the_whole_study_survives_kills_and_runs_from_one_command(cohorts, tmp_path):
    workdir = tmp_path / "study"
    command = _command(cohorts, workdir)
    for stage in ("prepare/source", "pretrain/tiny_net/fold_0"):
        _kill_in(stage, command, workdir)
    name = "write_cross_validation"
    _kill_at_the_end_of("crossvalidation", name, command, workdir)
    for stage in (
        "finetune/tiny_net/fold_1",
        "scratch/tiny_net/fold_0",
        "evaluate/tiny_net/finetune/fold_0",
        "predict/tiny_net/scratch/ensemble",
    ):
        _kill_in(stage, command, workdir)
    _kill_at_the_end_of("scores", "write_scores", command, workdir)
    for stage in ("statistics", "report"):
        _kill_in(stage, command, workdir)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(workdir / "report.html")
    page = (workdir / "report.html").read_text()
    assert "tiny_net fine-tuned against tiny_net from scratch, Dice WT" in page
    assert "fold k begins with the source&#x27;s fold k" in page
    groups = (workdir / "statistics" / "groups.csv").read_text()
    assert groups.startswith("group,method,column")
    table = (workdir / "crossvalidation" / "table.csv").read_text()
    assert table.count("\n") == 1 + 9
    grafted = (workdir / "finetune" / "tiny_net" / "fold_1" / "graft.txt").read_text()
    assert "pretrain/tiny_net/fold_1" in grafted
    files = {
        path: path.stat().st_mtime_ns
        for path in workdir.rglob("*")
        if path.is_file() and path.parent.name != "stages"
    }
    subprocess.run(command, capture_output=True, check=True)
    assert files == {path: path.stat().st_mtime_ns for path in files}
    dry = subprocess.run(
        [*command, "--dry-run"], capture_output=True, text=True, check=True
    )
    assert "todo" not in dry.stdout and "24 stages, 32 training steps" in dry.stdout
