"""The built wheel, installed elsewhere, runs the quick demo from an empty folder."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_wheel_runs_the_quick_demo_from_an_empty_folder(tmp_path):
    wheels, home, empty = (tmp_path / name for name in ("dist", "venv", "empty"))
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", wheels, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("*.whl")
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"{wheel}[report]"], check=True
    )
    empty.mkdir()
    done = subprocess.run(
        [home / "bin" / "bmjax", "demo", "--quick", "--workdir", "demo"],
        cwd=empty,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith("demo/report.html")
    page = (empty / "demo" / "report.html").read_text()
    assert "fine-tuned" in page
    assert "http" not in page.split("<body")[0]
