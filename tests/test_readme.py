"""The README's Python blocks run, and its commands exist."""

import re
from pathlib import Path

import pytest

from bmjax.cli import VERBS

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, flags=re.S)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_block_runs(number, capsys):
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), {})


def test_every_command_of_the_readme_exists():
    commands = set(re.findall(r"^bmjax (\w+)", TEXT, flags=re.M))
    assert commands >= {"check", "prepare", "train", "predict", "evaluate", "report"}
    assert commands <= set(VERBS)


def test_every_file_of_the_readme_exists():
    for name in re.findall(r"\b(?:configs|launch)/[\w.]+", TEXT):
        assert (README.parent / name).is_file(), name
