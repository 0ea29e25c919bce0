"""The start of the command: large pages where Linux gives them on request only."""

import os
import sys

import pytest

from bmjax import __main__ as start


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Commands that the process would become; pages on request, no tunables."""
    commands = []
    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never\n")
    monkeypatch.setattr(start, "_KERNEL_SETTING", pages)
    monkeypatch.setattr(os, "execv", lambda path, argv: commands.append((path, argv)))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "bmjax", "demo"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return commands


def test_the_same_command_starts_again_with_large_pages(started):
    start._use_large_pages()
    assert started == [(sys.executable, [sys.executable, "-m", "bmjax", "demo"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    start._use_large_pages()
    assert len(started) == 1


def test_other_tunables_are_kept(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=2")
    start._use_large_pages()
    wanted = "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"
    assert os.environ["GLIBC_TUNABLES"] == wanted


def test_a_wish_against_them_is_respected(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    start._use_large_pages()
    assert not started


@pytest.mark.parametrize("text", ["[always] madvise never", "always madvise [never]"])
def test_nothing_starts_again_where_it_would_change_nothing(started, text):
    start._KERNEL_SETTING.write_text(text)
    start._use_large_pages()
    assert not started


def test_nothing_starts_again_without_such_pages(started):
    start._KERNEL_SETTING.unlink()
    start._use_large_pages()
    assert not started
