import os
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

from bmjax.locks import HeldError, held
from bmjax.study.running import StageError, perform_all, perform_on_devices
from bmjax.study.stages import Ledger, Stage, Stopped

QUIET = Console(quiet=True)


class Kitchen:
    """Three stages: two that copy, and one that joins what they made."""

    def __init__(self, folder):
        self.folder, self.done, self.fails = folder, [], None
        (folder / "raw").mkdir()
        (folder / "raw" / "a").write_text("a")

    def stages(self, *, taste="plain"):
        return [
            self._stage("first", taste, inputs=(self.folder / "raw",)),
            self._stage("second", "plain"),
            self._stage("third", "plain", needs=("first", "second")),
        ]

    def ledger(self, **kwargs):
        return Ledger(self.folder / "stages", self.stages(**kwargs))

    def _stage(self, name, taste, *, needs=(), inputs=()):
        out = self.folder / name

        def run(console):
            out.mkdir(exist_ok=True)
            if self.fails == name:
                (out / "half").write_text("half")
                raise KeyboardInterrupt
            before = [(self.folder / n / "out.txt").read_text() for n in needs]
            text = "".join([taste, *before])
            (out / "out.txt").write_text(text + "+" * (out / "half").is_file())
            self.done.append(name)

        return Stage(
            name=name,
            run=run,
            outputs=(out,),
            results=("out.txt",),
            needs=needs,
            settings={"taste": taste},
            inputs=inputs,
        )


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path)


def _perform(kitchen, **kwargs):
    kitchen.done.clear()
    perform_all(kitchen.ledger(**kwargs), QUIET)
    return list(kitchen.done)


def test_what_is_done_of_the_same_inputs_is_not_done_again(kitchen):
    assert _perform(kitchen) == ["first", "second", "third"]
    assert _perform(kitchen) == []


def test_another_setting_does_that_stage_again_and_those_after_it(kitchen):
    _perform(kitchen)
    assert _perform(kitchen, taste="salty") == ["first", "third"]
    assert (kitchen.folder / "first.before-1" / "out.txt").read_text() == "plain"
    assert (kitchen.folder / "third" / "out.txt").read_text() == "plainsaltyplain"


def test_a_stage_that_makes_the_same_again_starts_nothing_else(kitchen):
    _perform(kitchen)
    (kitchen.folder / "raw" / "a").write_text("b")
    assert _perform(kitchen) == ["first"]


def test_inputs_count_by_content_not_by_time(kitchen):
    _perform(kitchen)
    os.utime(kitchen.folder / "raw" / "a", (1, 1))
    os.utime(kitchen.folder / "first" / "out.txt", (1, 1))
    assert _perform(kitchen) == []


def test_the_folder_of_a_study_may_be_moved_and_named_otherwise(
    kitchen, tmp_path, monkeypatch
):
    _perform(kitchen)
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    monkeypatch.chdir(moved)
    again = Kitchen.__new__(Kitchen)
    again.folder, again.done, again.fails = Path(), [], None
    assert _perform(again) == []


def test_a_result_that_was_changed_or_removed_is_made_again(kitchen):
    _perform(kitchen)
    (kitchen.folder / "second" / "out.txt").write_text("poison")
    assert _perform(kitchen) == ["second"]
    (kitchen.folder / "third" / "out.txt").unlink()
    assert _perform(kitchen) == ["third"]


def test_a_stage_that_was_killed_goes_on_with_what_it_left(kitchen):
    kitchen.fails = "second"
    with pytest.raises(KeyboardInterrupt):
        _perform(kitchen)
    assert kitchen.ledger().state(kitchen.stages()[1]) == "begun"
    kitchen.fails = None
    assert _perform(kitchen) == ["second", "third"]
    assert (kitchen.folder / "second" / "out.txt").read_text() == "plain+"


def test_what_was_begun_of_other_inputs_is_set_aside(kitchen):
    kitchen.fails = "first"
    with pytest.raises(KeyboardInterrupt):
        _perform(kitchen)
    kitchen.fails = None
    _perform(kitchen, taste="salty")
    assert (kitchen.folder / "first" / "out.txt").read_text() == "salty"
    assert (kitchen.folder / "first.before-1" / "half").is_file()


def test_a_stage_is_refused_before_what_it_needs(kitchen):
    with pytest.raises(ValueError, match="third: do first, second first"):
        perform_all(kitchen.ledger(), QUIET, only=["third"])
    with pytest.raises(ValueError, match="no stage fourth; there are first"):
        perform_all(kitchen.ledger(), QUIET, only=["fourth"])


def test_two_processes_are_not_at_one_stage(kitchen):
    where = {"doing": "at stage first", "otherwise": "", "name": "first.lock"}
    with (
        held(kitchen.folder / "stages", **where),
        pytest.raises(HeldError, match="has been at stage first since"),
    ):
        _perform(kitchen)


def test_a_stage_that_makes_nothing_is_not_done(tmp_path):
    stage = Stage(
        name="idle",
        run=lambda console: None,
        outputs=(tmp_path / "out",),
        results=("*.csv",),
    )
    ledger = Ledger(tmp_path / "stages", [stage])
    with pytest.raises(ValueError, match=r"idle: made no \*.csv"):
        ledger.perform(stage, QUIET)
    assert ledger.state(stage) == "begun"


def test_stages_are_in_order_and_have_names_of_their_own(kitchen, tmp_path):
    first, second, third = kitchen.stages()
    with pytest.raises(ValueError, match="third: needs .*before it"):
        Ledger(tmp_path, [first, third, second])
    with pytest.raises(ValueError, match="same name"):
        Ledger(tmp_path, [first, first])


WORKER = """
import os, sys
from pathlib import Path
from rich.console import Console
from bmjax.study.running import perform_all
from bmjax.study.stages import Ledger, Stage
folder = Path(sys.argv[1])
def stage(name, needs=()):
    def run(console):
        if name == os.environ.get("FAILS"):
            sys.exit(3)
        (folder / name).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    return Stage(name=name, run=run, outputs=(folder / name,), results=("*",),
                 needs=needs)
STAGES = [stage("a"), stage("b"), stage("c", ("a",)), stage("d", ("b", "c"))]
if __name__ == "__main__":
    perform_all(Ledger(folder / "stages", STAGES), Console(), only=sys.argv[3:])
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path)])
    scope = {"__name__": "worker"}
    exec(WORKER, scope)
    command = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path)]

    def perform():
        perform_on_devices(
            Ledger(tmp_path / "stages", scope["STAGES"]),
            QUIET,
            devices=["4", "7"],
            command=command,
            logs=tmp_path / "logs",
        )

    return perform


def test_stages_run_side_by_side_one_on_each_device(worker, tmp_path):
    worker()
    used = {name: (tmp_path / name).read_text() for name in "abcd"}
    assert {used["a"], used["b"]} == {"4", "7"}
    assert set(used.values()) == {"4", "7"}


def test_a_failed_stage_is_named_and_the_others_are_done(worker, tmp_path, monkeypatch):
    monkeypatch.setenv("FAILS", "a")
    with pytest.raises(StageError, match="1 stages failed:\na: see .*a.log"):
        worker()
    assert (tmp_path / "b").is_file()
    assert not (tmp_path / "d").exists()


def test_a_signal_stops_before_the_next_stage(worker, tmp_path, monkeypatch):
    began = Ledger.is_ready

    def ask(self, stage):
        os.kill(os.getpid(), signal.SIGTERM)
        return began(self, stage)

    monkeypatch.setattr(Ledger, "is_ready", ask)
    with pytest.raises((Stopped, StageError)):
        worker()
    assert not (tmp_path / "d").exists()
