"""The five commands that are tortured, at their smallest, and what is their result."""

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from bmjax.checkpoint import digest
from bmjax.data.phantom import SOURCE, write_cohort
from bmjax.runs import read_run
from bmjax.study.phantoms import draw_cohorts

SPACING_MM = (6.0, 6.0, 6.0)
CONFIG = '''"""A training of a dozen steps that looks and saves all the time."""

from bmjax import Experiment, models
from bmjax.augment import AugmentPolicy
from bmjax.data.pipeline import Loader
from bmjax.training import Fit, Optimizer


def experiment():
    off = dict.fromkeys(("p_blur", "p_contrast", "p_gamma", "p_gamma_inverted"), 0.0)
    return Experiment(
        model=models.PlainUNet(
            features=(4, 8),
            strides=((1, 1, 1), (2, 2, 2)),
            kernel_sizes=((3, 3, 3),) * 2,
        ),
        data=Loader(p_lesion=0.5, patch_size=(16, 16, 16), batch_size=2, num_folds=4),
        augment=AugmentPolicy(**off, p_low_resolution=0.0),
        optimizer=Optimizer(num_steps=12, epoch_steps=4, momentum=0.9),
        fit=Fit(log_every=1, validate_every=6, num_val_batches=1, checkpoint_every=2),
    )
'''
STUDY_CONFIG = CONFIG.replace("num_steps=12, ", "").replace(
    ", patch_size=(16, 16, 16), batch_size=2, num_folds=4", ""
)


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes:
      name: of the job.
      words: of its command, in a working folder, of what the base folder holds.
      longest_s: latest moment of a kill after the first file was written [s]; about
        as long as the command takes from there.
      needs: other jobs whose result the command reads.
    """

    name: str
    words: Callable[[Path, Path], list[str]]
    longest_s: float
    needs: tuple[str, ...] = ()

    def command(self, base: Path, work: Path) -> list[str]:
        """How a user would call it."""
        return [sys.executable, "-m", "bmjax", *self.words(base, work)]


def _train(base: Path, work: Path) -> list[str]:
    store = base / "whole" / "prepare" / "store"
    flags = ["--data.store", str(store), "--num-devices", "1"]
    return ["train", str(base / "config.py"), "--workdir", str(work / "run"), *flags]


def _prepare(base: Path, work: Path) -> list[str]:
    size = ["--patch-size", "16", "16", "16", "--num-workers", "2"]
    return ["prepare", str(base / "raw"), str(work / "store"), *size]


def _predict(base: Path, work: Path) -> list[str]:
    run = base / "whole" / "train" / "run"
    more = ["--maps", "probability", "entropy", "--lesions", "csv", "--tta", "flips"]
    paths = ["--images", str(base / "raw"), "--out", str(work / "out")]
    return ["predict", str(run), *paths, *more]


def _transfer(base: Path, work: Path) -> list[str]:
    return [
        *("study", "transfer", "--workdir", str(work / "study")),
        *("--models", str(base / "small.py")),
        *("--source", str(base / "source"), "--target", str(base / "target")),
        *("--folds", "2", "--num-test", "3"),
        *("--pretrain-epochs", "2", "--finetune-epochs", "1"),
        *("--spacing-mm", *map(str, SPACING_MM), "--patch-size", "16", "16", "16"),
        *("--batch-size", "2"),
    ]


def _kaur2024(base: Path, work: Path) -> list[str]:
    paths = ["--workdir", str(work / "study"), "--data", str(base / "raw")]
    return ["study", "kaur2024", *paths, "--quick"]


JOBS = {
    job.name: job
    for job in (
        Job("prepare", _prepare, 4.0),
        Job("train", _train, 10.0, needs=("prepare",)),
        Job("predict", _predict, 1.5, needs=("prepare", "train")),
        Job("transfer", _transfer, 15.0),
        Job("kaur2024", _kaur2024, 15.0),
    )
}


def environment(base: Path) -> dict[str, str]:
    """Of a command: a compile cache of its own, and no colours or bars."""
    own = {"XDG_CACHE_HOME": str(base / "cache"), "JAX_PLATFORMS": "cpu"}
    flags = os.environ.get("XLA_FLAGS", "")
    # pytest's eight devices are not a user's
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
    own["XLA_FLAGS"] = flags.strip()  # XLA takes blanks for the name of a file
    return {**os.environ, **own}


def make_base(base: Path) -> None:
    """Cohorts and configs that the commands read; kept where they are there."""
    if (base / "small.py").is_file():
        return
    base.mkdir(parents=True, exist_ok=True)
    cohort = replace(SOURCE, num_cases=4, spacing_mm=SPACING_MM)
    write_cohort(cohort, base / "raw")
    quiet = Console(quiet=True)
    draw_cohorts(base, num_source=4, num_target=7, spacing_mm=SPACING_MM, console=quiet)
    (base / "config.py").write_text(CONFIG)
    (base / "small.py").write_text(STUDY_CONFIG)


def undisturbed(job: Job, base: Path) -> dict[str, str]:
    """The result of a command that nobody kills, run once for each base folder."""
    make_base(base)
    for name in job.needs:
        undisturbed(JOBS[name], base)
    work = base / "whole" / job.name
    if not (work / "done").is_file():
        subprocess.run(
            job.command(base, work),
            env=environment(base),
            check=True,
            capture_output=True,
        )
        (work / "done").touch()
    return {name: d for name, d in result(work).items() if name != "done"}


_COSTS = re.compile(r"seconds|took_s|inputs|.*_ms|.*_mib|.*_per_s")
_UNCOMPARED = ("tensorboard", "stages", "checkpoints", "cache")
_PICTURES = (".html", ".png", ".pdf")


def result(work: Path) -> dict[str, str]:
    """Every file by its path, with a hash of what a user gets from it.

    Times, memory and paths of the working folder are left out of it; of a checkpoint
    the arrays count, which are read and compared with their stored hashes; pages and
    pictures, drawn from the other files, have to be there. TensorBoard's files and the
    study's ledger are looked at by `faults_of`.
    """
    found = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work)
        if path.is_dir() and path.name == "checkpoints":
            run = read_run(path.parent, checkpoint="last")
            found[str(name)] = f"step {run.step} {digest(run.variables)}"
        if not path.is_file() or set(name.parts) & {*_UNCOMPARED}:
            continue
        if path.suffix != ".lock" and path.name != ".lock":
            found[str(name)] = _fingerprint(path, work)
    return found


def _fingerprint(path: Path, work: Path) -> str:
    if path.suffix in _PICTURES:
        return "there"
    content = path.read_bytes()
    if path.suffix in (".json", ".jsonl", ".csv", ".txt"):
        text = content.decode().replace(str(work), "WORK")
        if path.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(text))
            text = json.dumps([_timeless(row) for row in rows])
        elif path.suffix != ".txt":
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            text = json.dumps([_timeless(json.loads(line)) for line in lines])
        content = text.encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        items = value.items()
        return {k: _timeless(v) for k, v in items if not _COSTS.fullmatch(str(k))}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def faults_of(work: Path) -> list[str]:
    """What is wrong in a finished folder, whatever the result should have been."""
    faults = [
        f"temporary left: {path.relative_to(work)}"
        for path in work.rglob("*")
        if re.search(r"\.part$|\.tmp|^\.tmp|orbax-checkpoint-tmp", path.name)
    ]
    for log in work.rglob("metrics.jsonl"):
        records = [json.loads(line) for line in log.read_text().splitlines()]
        steps = [record["step"] for record in records if record["kind"] == "train"]
        is_2d = log.parent.parent.name == "networks"  # whose log has each epoch's last
        every = steps[0] if is_2d and steps else 1
        if steps != [every * i for i in range(1, len(steps) + 1)]:
            faults.append(f"log not continuous: {log.relative_to(work)} has {steps}")
    for log in work.rglob("log.csv"):
        with log.open(newline="") as file:
            epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
        if epochs != [*range(1, len(epochs) + 1)]:
            faults.append(f"log not continuous: {log.relative_to(work)} has {epochs}")
    for record in work.rglob("stages/*.json"):
        state = json.loads(record.read_text()).get("state", "done")
        if state != "done":
            faults.append(f"stage not done: {record.name} is {state}")
    for record in work.rglob("predict.json"):
        entries = json.loads(record.read_text())["cases"]
        names = [entry["case"] for entry in entries]
        written = {p.name for p in record.parent.glob("*.nii.gz") if "_" not in p.name}
        if sorted(f"{n}.nii.gz" for n in names) != sorted(written):
            faults.append(f"cases {names} recorded, {sorted(written)} written")
        faults += [f"failed: {e['case']}" for e in entries if e["status"] != "done"]
    for index in work.rglob("store.json"):
        cases = sorted(json.loads(index.read_text())["cases"])
        folders = sorted(path.name for path in (index.parent / "cases").iterdir())
        if cases != folders:
            faults.append(f"store lists {cases}, holds {folders}")
    return faults


def versions() -> str:
    """Of what ran."""
    import jax

    from bmjax import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    return (
        f"bmjax {__version__}, Python {python}, jax {jax.__version__}, "
        f"numpy {np.__version__}"
    )
