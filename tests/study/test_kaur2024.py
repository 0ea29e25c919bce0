"""The 2-D study whole, its callbacks, and that each network can learn."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest
from made_slices import CLASSES, SIZE, made_batch

import bmjax
from bmjax.cli import main
from bmjax.study import iou_beside_dice, table4
from bmjax.study.fit2d import Program, Schedule, fit_network
from bmjax.study.kaur2024 import SCALES, Kaur2024, _require_same
from bmjax.study.overfit2d import fullest, overfit
from bmjax.study.scores2d import SOUND, Tally
from bmjax.study.slices2d import Exam, SliceStore, Slicing
from bmjax.study.training2d import read_run
from bmjax.training import TrainState


def main_returns(argv, code=0):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == code


@pytest.mark.slow
def test_the_whole_study_by_its_command(phantom_raw, tmp_path, capsys, monkeypatch):
    """One test, since the study takes a while: what it leaves, keeps and refuses."""
    quick = SCALES["quick"]
    # one slice a batch: one device, and one program for each network and use
    small = dataclasses.replace(quick.schedule, batch_size=1)
    slicing = dataclasses.replace(quick.slicing, every=6)
    quick = dataclasses.replace(quick, schedule=small, slicing=slicing)
    monkeypatch.setitem(SCALES, "quick", quick)
    command = ["study", "kaur2024", "--quick", "--epochs", "1"]
    command += ["--data", str(phantom_raw), "--workdir", str(tmp_path)]
    main_returns(command)
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    require_table_of_the_runs(tmp_path)
    require_figures_and_page(tmp_path)
    split = json.loads((tmp_path / "split.json").read_text())
    assert [len(split[name]) for name in table4.SETS] == [2, 1, 1]
    assert split["patients_on_two_sides"] == []
    require_networks_that_predict(tmp_path, phantom_raw)
    (line,) = read_run(tmp_path / "runs" / "fcn-0").epochs
    for start in ("", "val_"):
        for measure in SOUND:
            assert start + measure in line and f"{start}legacy_{measure}" in line
    # again: what is done is kept
    path = tmp_path / "runs" / "unet2d-0" / "scores.json"
    before = path.stat().st_mtime_ns
    main_returns(command)
    assert path.stat().st_mtime_ns == before
    # other settings, other data: refused
    main_returns([*command, "--as-published"], code=1)
    text = " ".join(capsys.readouterr().err.split())
    assert "holds a study with another split_by" in text and "--workdir" in text
    command[command.index("--data") + 1] = str(tmp_path)
    main_returns(command, code=1)
    assert "holds a study with another data" in capsys.readouterr().err


def require_networks_that_predict(workdir, raw):
    """Each training is a run folder: whole volumes by `predict`, a page by `report`."""
    for name in table4.NETWORKS:
        run = workdir / "networks" / f"{name}-0"
        split = json.loads((run / "split.json").read_text())
        lines = (run / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["train", "val"]
        out = workdir / "out" / name
        main_returns(
            ["predict", str(run), "--images", str(raw), "--out", str(out)]
            + ["--cases", *split["val"]]
        )
        (case,) = split["val"]
        assert (out / f"{case}.nii.gz").is_file()
        scores = workdir / "scores" / name
        main_returns(["evaluate", str(out), str(raw), "--out", str(scores)])
    scores = [str(workdir / "scores" / name) for name in table4.NETWORKS]
    main_returns(["report", scores[0], "--against", *scores[1:]])
    page = (workdir / "scores" / "unet2d" / "against.html").read_text()
    assert "<h1>unet2d against convnet against fcn" in page
    main_returns(["report", str(run), "--out", str(workdir / "run.html")])
    page = (workdir / "run.html").read_text()
    assert "Accuracy by step" in page and "IoU by step" in page
    assert "FCN" in page.split("<h1>")[1].split("<nav")[0]


def require_table_of_the_runs(workdir):
    """Every cell is what the runs measured."""
    with (workdir / "table4.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * (2 + 5 * 4)
    # a few updates teach nothing, and the table says so
    assert {row["counts"] for row in rows} == {"False"}
    assert "(!) U-Net" in (workdir / "table4.md").read_text()
    for row in rows:
        network, measure = row["network"], row["measure"]
        scores = read_run(workdir / "runs" / f"{network}-0").scores[row["set"]]
        name = measure if row["scope"] == "lesion" else f"{measure}_{row['scope']}"
        np.testing.assert_equal(float(row["sound"]), scores[name])


def require_figures_and_page(workdir):
    """Nine figures, each as PNG, as PDF and on the page."""
    figures = {path.name for path in (workdir / "figures").iterdir()}
    assert len(figures) == 18
    assert {name[7:9] for name in figures} == {f"{n:02d}" for n in range(3, 12)}
    for name in figures:
        content = (workdir / "figures" / name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF")
    page = (workdir / "report.html").read_text()
    assert page.count("<picture>") == 9
    assert "0.9681" in page and "finds no lesion at all" in page


def test_defaults_are_those_of_the_paper_and_its_notebooks():
    study = Kaur2024()
    assert SCALES["full"] == study
    assert study.slicing.size == 256 and study.features == (32, 64, 128, 256, 512)
    assert study.p_drop == 0.2 and study.split_by == "patient"
    schedule = study.schedule
    assert (schedule.epochs, schedule.stop_patience) == (35, 2)
    assert (schedule.plateau_factor, schedule.plateau_patience) == (0.2, 2)
    optimizer = schedule.optimizer()
    assert (optimizer.name, optimizer.peak_lr, optimizer.eps) == ("adam", 1e-3, 1e-7)
    assert optimizer.after_plateau(1.0) == 0.2
    assert optimizer.after_plateau(2e-3) == pytest.approx(1e-3)  # the rate's 1e-6


class Scripted(Program):
    """A program whose losses are written down."""

    classes = CLASSES

    def __init__(self, schedule, losses, val_losses):
        self.schedule = schedule
        self._losses, self._val_losses = iter(losses), iter(val_losses)
        self.factors = []

    def begin(self, image, *, seed):
        one = jax.numpy.ones(())
        return TrainState(one, {"params": one * 0}, (), one)

    def train(self, state, batches, *, seed):
        self.factors.append(float(state.lr_factor))
        variables = {"params": state.variables["params"] + 1}  # counts epochs
        scores = {"loss": next(self._losses)}
        return dataclasses.replace(state, variables=variables), scores

    def evaluate(self, variables, batches):
        value = next(self._val_losses)

        class Looked(Tally):
            def scores(self):
                return {"loss": value, "dice": 0.0, "legacy_dice": 0.0}

        return Looked(CLASSES)


class OneSlice(SliceStore):
    """A store that has one slice."""

    def __init__(self):
        pass

    def in_order(self, ids, *, batch_size):
        yield {"image": np.zeros((1, 1, 1, 1)), "exams": ["a"]}

    def shuffled(self, ids, *, batch_size, seed, epoch):
        return iter(())


def fit_scripted(schedule, losses, val_losses, tmp_path):
    program = Scripted(schedule, losses, val_losses)
    fitted = fit_network(
        program,
        OneSlice(),
        train=["a"],
        val=["b"],
        seed=0,
        log=tmp_path / "log.csv",
        announce=lambda line: None,
    )
    return program, fitted


def test_the_rate_falls_at_a_plateau_and_the_best_weights_are_kept(tmp_path):
    # better by less than 1e-4 does not count for the plateau, but for the best
    val_losses = [1.0, 0.5, 0.49995, 0.6, 0.6, 0.6, 0.6]
    losses = [1 - i / 10 for i in range(7)]
    program, fitted = fit_scripted(Schedule(epochs=7), losses, val_losses, tmp_path)
    assert program.factors == pytest.approx([1, 1, 1, 1, 0.2, 0.2, 0.04])
    assert fitted.best_epoch == 3
    assert fitted.variables == {"params": 3.0}
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows] == pytest.approx(
        [1e-3] * 4 + [2e-4] * 2 + [4e-5]
    )
    assert [float(row["val_loss"]) for row in rows] == val_losses


def test_the_run_ends_when_the_training_loss_no_longer_falls(tmp_path):
    losses = [1.0, 0.9, 0.9, 0.95, 0.1]
    _, fitted = fit_scripted(Schedule(epochs=5), losses, [1.0] * 5, tmp_path)
    assert len(fitted.epochs) == 4
    endless = Schedule(epochs=5, stop_patience=None)
    _, fitted = fit_scripted(endless, losses, [1.0] * 5, tmp_path)
    assert len(fitted.epochs) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet2d", "convnet", "fcn"])
def test_each_network_overfits_eight_slices_with_the_settings_of_the_study(name):
    study = SCALES["reduced"]
    net = study.networks(len(CLASSES) + 1)[name]
    program = Program(net, CLASSES, study.schedule)
    found = overfit(program, made_batch(8), max_steps=study.overfit_steps)
    assert found.is_enough, found


@pytest.mark.slow
def test_a_step_gives_the_same_measures_on_one_device_and_on_eight():
    net = Kaur2024(features=(2, 2, 2, 2, 2), p_drop=0.3).networks(4)["unet2d"]
    batch = made_batch(8)
    found = []
    for batch_size in (8, 1):  # eight devices share eight slices; one takes all
        program = Program(net, CLASSES, Schedule(batch_size=batch_size))
        _, scores = program.train(
            program.begin(batch["image"], seed=0), iter([batch]), seed=0
        )
        found.append(scores)
    ties = 4 / batch["labels"].size  # voxels whose classes are equal to rounding
    for name, value in found[0].items():
        bound = {"rtol": 2e-4, "atol": 0 if name == "loss" else ties}
        np.testing.assert_allclose(value, found[1][name], **bound, err_msg=name)


def test_the_slices_to_overfit_are_the_fullest_of_as_many_exams_as_there_are():
    labelled = {"a": (5, 90, 0), "b": (7, 0, 3), "c": (1, 2, 2)}

    class Named(SliceStore):
        exams = {n: Exam(n, n, 3, counts, 1) for n, counts in labelled.items()}

        def __init__(self):
            pass

        def image(self, exam, index):
            return np.full((1, 1, 1), index)

        def labels(self, exam, index):
            return np.full((1, 1), index)

    found = fullest(Named(), ["a", "b", "c"])
    chosen = zip(found["exams"], found["labels"].ravel().tolist(), strict=True)
    # the fullest of each exam, then the second of each, then the third
    assert list(chosen) == [
        *(("a", 1), ("b", 0), ("c", 1)),
        *(("a", 0), ("b", 2), ("c", 2)),
        *(("c", 0), ("a", 2)),
    ]
    assert found["image"].shape == (8, 1, 1, 1)


def test_the_explanation_quotes_our_own_numbers_beside_the_published():
    ours = {"saturated": 0.123, "legacy_iou": 0.456, "iou": 0.0789, "dice": 0.111}
    ours |= {"legacy_dice": 0.222}
    nothing = {"legacy_iou": 0.991, "legacy_dice": 0.777, "legacy_precision": 0.9976}
    nothing |= {"legacy_sensitivity": 0.9975, "accuracy": 0.9974, "dice": 0.0}
    first, second, third = iou_beside_dice.explain(ours, nothing)
    for number in ("0.645", "0.476", "0.738", "0.968", "95.2%", "0.375"):
        assert number in first
    for number in ("12.3%", "0.456", "0.079", "0.111", "0.222"):
        assert number in second
    for number in ("0.991", "0.777", "0.9976", "0.9975", "0.9974", "0.000"):
        assert number in third


def test_finding_nothing_looks_good_by_the_legacy_measures():
    batch = made_batch(2)
    found = iou_beside_dice.finding_nothing([batch], classes=CLASSES)
    share = (batch["labels"] > 0).mean()
    assert found["accuracy"] == pytest.approx(1 - share)
    assert found["legacy_precision"] == pytest.approx(1 - share)
    # zeros and ones of four channels: one of either is wrong at each lesion pixel
    ones, zeros = (1 - share) / (1 + share), (3 - share) / (3 + share)
    assert found["legacy_iou"] == pytest.approx((ones + zeros) / 2)
    assert found["dice"] == 0 and found["saturated"] == 1


def test_as_published_and_scales_reach_the_study(monkeypatch, tmp_path):
    seen = {}

    def record(workdir, *, study, data, console):
        seen.update(study=study, data=data)
        return tmp_path / "report.html"

    monkeypatch.setattr("bmjax.study.kaur2024.run_study", record)
    main_returns(
        ["study", "kaur2024", "--workdir", str(tmp_path), "--as-published"]
        + ["--epochs", "7", "--seeds", "2"]
    )
    expected = Kaur2024(split_by="exam", num_seeds=2, schedule=Schedule(epochs=7))
    assert seen == {"study": expected, "data": None}
    options = ["--scaling", "zscore", "--loss", "binary", "--one-class"]
    main_returns(["study", "kaur2024", "--workdir", str(tmp_path), *options])
    expected = Kaur2024(
        slicing=Slicing(scaling="zscore", binary=True), schedule=Schedule(loss="binary")
    )
    assert seen["study"] == expected
    main_returns(["study", "kaur2024", "--workdir", str(tmp_path), "--reduced"])
    assert seen["study"] == SCALES["reduced"]


@pytest.mark.parametrize("flag", ["--epochs", "--seeds"])
def test_a_study_without_trainings_is_refused(flag, capsys, tmp_path):
    command = ["study", "kaur2024", "--workdir", str(tmp_path / "w"), flag, "0"]
    main_returns(command, code=1)
    assert "give at least 1" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_study_may_go_on_with_other_seeds_and_nothing_else(tmp_path):
    path = tmp_path / "study.json"
    study = SCALES["quick"]
    _require_same(path, study, None)
    _require_same(path, dataclasses.replace(study, num_seeds=3), None)
    assert json.loads(path.read_text())["num_seeds"] == 3
    before = path.read_text()
    with pytest.raises(ValueError, match="another overfit_steps, p_drop"):
        _require_same(
            path, dataclasses.replace(study, p_drop=0.5, overfit_steps=1), None
        )
    assert path.read_text() == before
    # as a version before the field wrote it
    known = json.loads(before)
    del known["overfit_steps"]
    path.write_text(json.dumps(known))
    _require_same(path, study, None)


def test_two_scales_at_once_are_refused(capsys, tmp_path):
    command = ["study", "kaur2024", "--workdir", str(tmp_path), "--quick"]
    main_returns([*command, "--reduced"], code=2)
    assert "--quick or --reduced" in capsys.readouterr().err


def test_the_network_of_figure_7_is_that_of_the_module():
    from bmjax.study.kaur2024_page import stages

    net = Kaur2024().networks(4)["unet2d"]
    found = stages(net, (256, 256, 4))
    assert [stage.features for stage in found] == [
        32,
        64,
        128,
        256,
        512,
        256,
        128,
        64,
        32,
    ]
    assert [stage.size[0] for stage in found[:5]] == [256, 128, 64, 32, 16]
    # two 3 x 3 convolutions with bias, each with scale and bias of a batch norm
    first = 9 * 4 * 32 + 32 + 64 + 9 * 32 * 32 + 32 + 64
    assert found[0].num_params == first
    variables = jax.eval_shape(
        net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, SIZE, SIZE, 4), "float32")
    )
    total = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    head = 32 * 4 + 4
    assert sum(stage.num_params for stage in found) == total - head


def test_the_verb_is_among_the_doors_of_the_command_line(capsys):
    assert bmjax.study is not None
    main_returns(["study", "--help"])
    assert "kaur2024" in capsys.readouterr().out
