"""One process at a time in a folder; what dead ones left is no obstacle."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from bmjax import locks
from bmjax.locks import HeldError, Holder, held

ASK = {"doing": "training", "otherwise": "choose another --workdir"}
HOLD = """
import sys
from pathlib import Path
from bmjax.locks import held
with held(Path(sys.argv[1]), doing="training", otherwise=""):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["with locks", "without locks"])
def disk(request, monkeypatch):
    """A file system that has locks, and one that has none."""
    if request.param == "without locks":

        def refuse(file, operation):
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(locks.fcntl, "flock", refuse)


def leave(folder, **facts):
    """The file of a process that was killed."""
    folder.mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = replace(Holder.this("training"), pid=dead.pid, born="1", **facts)
    (folder / ".lock").write_text(json.dumps(asdict(holder)))


def test_the_second_is_told_who_the_first_is(disk, tmp_path):
    with held(tmp_path, **ASK):
        with pytest.raises(HeldError) as refused:
            held(tmp_path, **ASK).__enter__()
        mine = Holder.this("training")
    said = str(refused.value)
    assert f"{tmp_path}: process {os.getpid()} on {mine.host} has been training" in said
    assert "since 20" in said and "choose another --workdir" in said
    assert list(tmp_path.iterdir()) == []


def test_two_folders_and_two_names_do_not_disturb_each_other(disk, tmp_path):
    with (
        held(tmp_path, **ASK),
        held(tmp_path / "other", **ASK),
        held(tmp_path, name=".scores.lock", **ASK),
    ):
        assert (tmp_path / ".lock").is_file()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_is_taken_over(disk, tmp_path):
    folder = tmp_path / "run"
    leave(folder)
    with held(folder, **ASK):
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()


def test_what_was_left_before_the_machine_started_again_is_taken_over(disk, tmp_path):
    folder = tmp_path / "run"
    leave(folder, boot="another")
    text = (folder / ".lock").read_text()
    alive = json.loads(text) | {"pid": os.getpid(), "boot": "another"}
    (folder / ".lock").write_text(json.dumps(alive))
    with held(folder, **ASK):
        pass


def test_a_later_process_of_the_same_number_is_not_taken_for_the_holder():
    mine = Holder.this("training")
    assert not mine.is_gone()
    assert replace(mine, born="7").is_gone()
    assert not replace(mine, host="elsewhere", born="7").is_gone()


def test_of_another_host_nothing_is_known_without_locks(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    leave(tmp_path / "run", host="elsewhere")
    with pytest.raises(HeldError, match=r"on elsewhere has .* remove .*\.lock"):
        held(tmp_path / "run", **ASK).__enter__()


def test_a_killed_process_frees_its_folder(tmp_path):
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(HeldError, match=f"process {process.pid} on"):
            held(tmp_path, **ASK).__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / ".lock").is_file()
    with held(tmp_path, **ASK):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_said_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written to .* another --workdir"):
        held(tmp_path / "file" / "run", **ASK).__enter__()


def test_a_folder_that_nothing_came_into_is_not_left(tmp_path):
    with held(tmp_path / "run", **ASK):
        pass
    assert not (tmp_path / "run").exists()
