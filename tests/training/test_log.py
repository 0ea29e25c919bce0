"""What people see of a training while it runs."""

import io

import pytest
from rich.console import Console

from bmjax.training import TrainingBars

TRAIN = {"loss": 0.395, "step_ms": 112.0, "images_per_s": 18.0, "wait_ms": 28.0}
VAL = {"loss": 0.4, "pseudo_dice": {"WT": 0.7125, "TC": 0.25}, "epoch": 1.0}


def shown(width, *, is_terminal):
    """The last picture of two bars, without the codes that draw it."""
    text = io.StringIO()
    console = Console(
        file=text, width=width, force_terminal=is_terminal, color_system=None
    )
    with TrainingBars(console) as bars:
        for title in ("fold_0", "fold_12"):
            show = bars.add(title, total=250_000, start=100)
            show({"kind": "train", "step": 240, **TRAIN})
            show({"kind": "val", "step": 250, **VAL})
            show({"kind": "train", "step": 260, **TRAIN})
    return text.getvalue().split("\x1b[2K")[-1].replace("\x1b[?25h", "").splitlines()


@pytest.mark.parametrize("width", [80, 160])
def test_each_run_has_a_bar_whose_name_and_count_are_never_cut(width):
    lines = [line for line in shown(width, is_terminal=True) if line.strip()]
    assert lines[-1].split()[0] == "fold_12"
    assert "260/250000" in lines[-1]
    assert "loss 0.395 | val WT 0.71" in lines[-1]
    assert len(lines[-1]) <= width
    assert ("25.0% waiting for data" in lines[-1]) == (width == 160)


def test_a_file_gets_a_line_at_each_validation():
    assert shown(200, is_terminal=False) == [
        f"{title}: epoch 1, step 250, val loss 0.400, pseudo-Dice WT 0.713 TC 0.250 | "
        "112 ms/step, 18 images/s, 25.0% waiting for data"
        for title in ("fold_0", "fold_12")
    ]
