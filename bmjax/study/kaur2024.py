"""The first paper's 2-D study in one command: slices, three networks, Table 4, a page.

Kaur and Singh 2024. What the paper leaves open is decided by fields whose defaults are
those of the notebooks that its code goes back to.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from bmjax import models, report
from bmjax.console import ticking
from bmjax.data import phantom, streams
from bmjax.data.cases import Case, sort_cases
from bmjax.study import table4
from bmjax.study.fit2d import Program, Schedule, write_rows
from bmjax.study.holdout import By, ThreeWay, split_three_ways
from bmjax.study.networks2d import slice_plan, write_network
from bmjax.study.overfit2d import Overfit, overfit_once
from bmjax.study.slices2d import CHANNELS, SliceStore, Slicing, write_slices
from bmjax.study.training2d import Trained, read_run, read_variables, train_one

Scale = Literal["full", "reduced", "quick"]


@dataclass(frozen=True, kw_only=True)
class Kaur2024:
    """The whole study as one value.

    Attributes:
      slicing: how exams become slices.
      schedule: how a network is trained.
      features: channels of each level of the networks and of the bottleneck.
      p_drop: dropout after each pool.
      skip: what the U-Net's decoder concatenates, see `models.UNet2D`.
      num_seeds: trainings of each network.
      overfit_steps: most updates to learn eight slices by heart, before anything else.
      split_by: `patient`, or `exam` as in the published code.
      split_seed: of the split; the same for every training.
      num_phantoms: synthetic exams, where no data are given.
      phantom_spacing_mm: of their voxels, z y x.
    """

    slicing: Slicing = Slicing()
    schedule: Schedule = Schedule()
    features: tuple[int, ...] = (32, 64, 128, 256, 512)
    p_drop: float = 0.2
    skip: Literal["before_pool", "after_pool"] = "before_pool"
    num_seeds: int = 3
    overfit_steps: int = 3000
    split_by: By = "patient"
    split_seed: int = 0
    num_phantoms: int = 48
    phantom_spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        if self.num_seeds < 1:
            raise ValueError(f"{self.num_seeds} seeds; give at least 1")

    def networks(self, num_classes: int) -> dict[str, Any]:
        """The three networks by name; `num_classes` counts the background."""
        common = {"num_classes": num_classes, "features": self.features}
        common |= {"p_drop": self.p_drop}
        return {
            "unet2d": models.UNet2D(**common, skip=self.skip),
            "convnet": models.ConvNet(**common),
            "fcn": models.FCN(**common),
        }


SCALES: dict[Scale, Kaur2024] = {
    "full": Kaur2024(),
    # for a CPU: a quarter of the side, of the slices and of the channels
    "reduced": Kaur2024(
        slicing=Slicing(size=64, every=4),
        schedule=Schedule(epochs=12),
        features=(8, 16, 32, 64, 128),
    ),
    "quick": Kaur2024(
        slicing=Slicing(size=32, every=4),
        schedule=Schedule(epochs=2, batch_size=4),
        features=(4, 8, 8),
        num_seeds=1,
        overfit_steps=20,
        num_phantoms=4,
        phantom_spacing_mm=(5.0, 5.0, 5.0),
    ),
}


@dataclass(frozen=True)
class Exams:
    """The exams of the study, and what was left out.

    Attributes:
      cases: exams with four channels and labels.
      left_out: why others are not used, in words.
      is_synthetic: whether they are phantoms.
    """

    cases: list[Case]
    left_out: tuple[str, ...] = ()
    is_synthetic: bool = False


@dataclass(frozen=True)
class Outcome:
    """Everything that the page shows.

    Attributes:
      study: the settings.
      exams: the data.
      store: their slices.
      split: the three sets.
      runs: what each training left, by network and seed.
      overfits: how each network learned eight slices.
      rows: of Table 4.
    """

    study: Kaur2024
    exams: Exams
    store: SliceStore
    split: ThreeWay
    runs: dict[str, dict[int, Trained]]
    overfits: dict[str, Overfit]
    rows: list[dict[str, Any]] = field(default_factory=list)


def find_exams(raw: Path, *, binary: bool) -> Exams:
    """The exams of a data set that the study can use.

    Of UCSF-BMSR those with a `_BraTS-seg`, in three classes of tumour; where no exam
    has one, or with `binary`, each exam's `_seg` as one class.

    Raises:
      ValueError: an exam is incomplete in its channels, or none has labels.
    """
    cases, problems, _ = sort_cases(
        raw, channels=CHANNELS, label_name="seg" if binary else ""
    )
    if problems:
        raise ValueError("\n".join(str(problem) for problem in problems))
    kept = [case for case in cases if case.labels is not None]
    if not kept:
        raise ValueError(f"{raw}: none of its {len(cases)} exams has labels")
    left_out = tuple(f"{c.id}: no labels of this kind" for c in cases if not c.labels)
    return Exams(kept, left_out)


def run_study(
    workdir: Path, *, study: Kaur2024, data: Path | None = None, console: Console
) -> Path:
    """Run every step that is not done yet, and write tables, figures and the page.

    Args:
      workdir: folder for everything.
      study: the settings.
      data: folder of exams; None draws phantoms.
      console: where progress is shown.

    Returns:
      The page.

    Raises:
      ValueError: the folder holds a study with other settings, or the data are unfit.
    """
    from bmjax.study.kaur2024_page import write_page

    if not report.can_draw():
        raise ModuleNotFoundError(
            "the study draws figures; install what they need with: "
            "pip install 'bmjax[report]'"
        )
    streams.remove_unfinished(workdir, within="tree")
    _require_same(workdir / "study.json", study, data)
    exams = _exams(workdir, study, data, console)
    with ticking(console, "cutting slices") as tick:
        store = write_slices(
            exams.cases, workdir / "slices", study.slicing, progress=tick
        )
    for reason in exams.left_out:
        console.print(f"left out: {reason}")
    split = split_three_ways(store.patients, by=study.split_by, seed=study.split_seed)
    shared = split.shared_patients(store.patients)
    _write_json(
        workdir / "split.json", {**split.sets(), "patients_on_two_sides": shared}
    )
    console.print(
        "split: "
        + ", ".join(f"{len(ids)} {name}" for name, ids in split.sets().items())
        + f" exams; patients on two sides: {len(shared)}"
    )
    networks = study.networks(len(store.classes) + 1)
    programs = {
        name: Program(net, store.classes, study.schedule)
        for name, net in networks.items()
    }
    overfits: dict[str, Overfit] = {}
    for name, program in programs.items():
        overfits[name] = overfit_once(
            program,
            store,
            split.train,
            max_steps=study.overfit_steps,
            path=workdir / "overfit" / f"{name}.json",
        )
        console.print(f"{name}: {table4.told(overfits[name])}")
    runs: dict[str, dict[int, Trained]] = {name: {} for name in networks}
    # seed by seed, so that what is cut short is a study of fewer seeds
    for seed, name in product(range(study.num_seeds), networks):
        folder = workdir / "runs" / f"{name}-{seed}"
        if not (folder / "scores.json").is_file():
            console.print(f"[bold]training {name}, seed {seed}")
            train_one(
                programs[name], store, split, seed=seed, folder=folder, console=console
            )
        runs[name][seed] = read_run(folder)
        _keep_network(
            workdir,
            name,
            seed,
            net=networks[name],
            study=study,
            exams=exams,
            store=store,
            split=split,
        )
    results = {
        name: {seed: run.scores for seed, run in by_seed.items()}
        for name, by_seed in runs.items()
    }
    rows = table4.rows(results, classes=store.classes, overfits=overfits)
    write_rows(workdir / "table4.csv", rows)
    text = table4.markdown(rows, overfits)
    streams.write_pieces(workdir / "table4.md", [text.encode()])
    outcome = Outcome(study, exams, store, split, runs, overfits, rows)
    return write_page(outcome, workdir=workdir)


def _keep_network(
    workdir: Path,
    name: str,
    seed: int,
    *,
    net: Any,
    study: Kaur2024,
    exams: Exams,
    store: SliceStore,
    split: ThreeWay,
) -> None:
    """Write a training's network as a run folder for `bmjax predict`."""
    if study.slicing.scaling != "unit":
        return  # see `slice_plan`
    folder = workdir / "runs" / f"{name}-{seed}"
    batch_size = study.schedule.batch_size
    plan = slice_plan(
        [case for case in exams.cases if case.id in split.train],
        study.slicing,
        classes=store.classes,
        features=study.features,
        batch_size=batch_size,
    )
    write_network(
        workdir / "networks" / f"{name}-{seed}",
        net=net,
        variables=read_variables(folder),
        schedule=study.schedule,
        plan=plan,
        split=split,
        epochs=read_run(folder).epochs,
        steps_per_epoch=len(store.pairs(split.train)) // batch_size,
        seed=seed,
    )


def _exams(
    workdir: Path, study: Kaur2024, data: Path | None, console: Console
) -> Exams:
    if data is not None:
        return find_exams(data, binary=study.slicing.binary)
    raw = workdir / "raw"
    if not (raw / "manifest.csv").is_file():
        cohort = replace(
            phantom.SOURCE,
            num_cases=study.num_phantoms,
            spacing_mm=study.phantom_spacing_mm,
        )
        with ticking(console, "drawing synthetic exams") as tick:
            phantom.write_cohort(cohort, raw, progress=tick, num_workers=2)
    return replace(find_exams(raw, binary=study.slicing.binary), is_synthetic=True)


def _require_same(path: Path, study: Kaur2024, data: Path | None) -> None:
    """Refuse a folder that holds a study with other settings; else leave ours there."""
    # through JSON, which has no tuples
    own = json.loads(
        json.dumps({**asdict(study), "data": None if data is None else str(data)})
    )
    if not path.is_file():
        _write_json(path, own)
        return
    known = json.loads(path.read_text())
    # a folder of an earlier version knows fewer settings; seeds are independent
    changed = sorted(
        name
        for name in own
        if name != "num_seeds" and own[name] != known.get(name, own[name])
    )
    if changed:
        raise ValueError(
            f"{path.parent}: holds a study with another {', '.join(changed)} "
            f"(see {path}); choose another --workdir, or give the same settings"
        )
    _write_json(path, own)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    streams.write_pieces(path, [json.dumps(value, indent=1).encode()])
