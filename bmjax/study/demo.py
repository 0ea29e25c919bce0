"""The whole job on synthetic patients: raw NIfTI, transfer between cohorts, report.

Two phantom cohorts stand in for the paper's: many cases as BraTS-METS has them, and a
small private set with other contrast, spacing, noise and lesions. A network is trained
on the first, fine-tuned on the second, and compared with the same network trained from
scratch for as many steps, and with the best threshold of FLAIR.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from bmjax import __version__, losses, models, report
from bmjax.console import ticking
from bmjax.data import nifti, phantom
from bmjax.data.cases import Case, find_cases
from bmjax.data.pipeline import Loader
from bmjax.data.store import Store
from bmjax.experiment import Experiment
from bmjax.preparation import prepare
from bmjax.surgery import Surgery
from bmjax.training import Fit, Optimizer
from bmjax.transplant import Origin
from bmjax.workflow import Trained, train

Size = Literal["quick", "full"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """How much the demo does.

    Attributes:
      num_source: cases of the source cohort.
      num_target: cases of the target cohort.
      num_held_out: target cases that no network trains on.
      spacing_mm: grid on which the networks work.
      patch_size: training patch [vox].
      features: channels of the network's stages.
      source_steps: length of the training on the source.
      target_steps: length of the fine-tuning, and of the training from scratch.
    """

    num_source: int
    num_target: int
    num_held_out: int
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    features: tuple[int, ...]
    source_steps: int
    target_steps: int


SCALES: dict[Size, Scale] = {
    "full": Scale(
        num_source=24,
        num_target=16,
        num_held_out=6,
        spacing_mm=(2.0, 2.0, 2.0),
        patch_size=(48, 48, 48),
        features=(16, 32, 64, 96),
        source_steps=400,
        target_steps=160,
    ),
    "quick": Scale(
        num_source=3,
        num_target=4,
        num_held_out=1,
        spacing_mm=(4.0, 4.0, 4.0),
        patch_size=(16, 16, 16),
        features=(4, 8, 8),
        source_steps=4,
        target_steps=4,
    ),
}


def experiment(scale: Scale = SCALES["full"]) -> Experiment:
    """The recipe of all three trainings; `data.store` is still to be set."""
    num_stages = len(scale.features)
    return Experiment(
        model=models.ResEncUNet(
            features=scale.features,
            strides=((1, 1, 1), *((2, 2, 2),) * (num_stages - 1)),
            kernel_sizes=((3, 3, 3),) * num_stages,
            num_blocks=(1,) * num_stages,
        ),
        loss=losses.DiceBCE(batch_dice=True),
        data=Loader(patch_size=scale.patch_size, batch_size=2, p_lesion=0.67),
        optimizer=Optimizer(name="adam", peak_lr=2e-3, num_steps=scale.source_steps),
        fit=Fit(
            validate_every=max(scale.target_steps // 3, 1),
            num_val_batches=4,
            checkpoint_every=max(scale.target_steps // 2, 1),
            keep_last=1,
            score_decay=0.0,
        ),
    )


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The best segmentation by one threshold of z-scored FLAIR.

    Attributes:
      z: the threshold, chosen with the truth in hand.
      dice: Dice of the whole tumour of each case.
    """

    z: float
    dice: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean Dice over the cases."""
        return float(np.mean(list(self.dice.values())))


def best_threshold(cases: Sequence[Case]) -> Threshold:
    """The threshold with the largest mean whole-tumour Dice over these very cases."""
    candidates = np.arange(0.5, 5.01, 0.1)
    dice = np.stack([_threshold_dice(case, candidates) for case in cases])  # n t
    best = int(dice.mean(0).argmax())
    by_case = {case.id: float(d) for case, d in zip(cases, dice[:, best], strict=True)}
    return Threshold(float(candidates[best]), by_case)


def _threshold_dice(case: Case, candidates: np.ndarray) -> np.ndarray:
    flair = nifti.read(case.images["t2f"]).array
    if case.labels is None:
        raise ValueError(f"{case.id}: has no labels to choose a threshold by")
    truth = nifti.read_labels(case.labels).array > 0
    brain = flair != 0
    z = (flair - flair[brain].mean()) / flair[brain].std()
    found = []
    for candidate in candidates:
        bright = brain & (z > candidate)
        total = bright.sum() + truth.sum()
        found.append(2 * (bright & truth).sum() / total if total else 1.0)
    return np.asarray(found)


def run_demo(
    workdir: Path, *, size: Size = "full", seed: int = 0, console: Console
) -> Path:
    """Run every step that is not done yet, and write the report.

    Args:
      workdir: folder for cohorts, stores, runs and report.
      size: `full`, or `quick` to see in a minute that everything works.
      seed: of cohorts and networks.
      console: where progress is shown.

    Returns:
      The page.
    """
    scale = SCALES[size]
    cohorts = {
        "source": dataclasses.replace(
            phantom.SOURCE,
            num_cases=scale.num_source,
            seed=phantom.SOURCE.seed + 1000 * seed,
        ),
        "target": dataclasses.replace(
            phantom.TARGET,
            num_cases=scale.num_target,
            seed=phantom.TARGET.seed + 1000 * seed,
        ),
    }
    raw = {name: workdir / "raw" / name for name in cohorts}
    store = {name: workdir / "store" / name for name in cohorts}
    for name, cohort in cohorts.items():
        if not (raw[name] / "manifest.csv").is_file():
            with ticking(console, f"1/5 drawing the {name} cohort") as tick:
                phantom.write_cohort(cohort, raw[name], progress=tick, num_workers=2)
    with ticking(console, "2/5 preparing the source cohort") as tick:
        plan = prepare(
            raw["source"],
            store["source"],
            spacing_mm=scale.spacing_mm,
            patch_size=scale.patch_size,
            batch_size=2,
            progress=tick,
        )
    with ticking(console, "2/5 preparing the target cohort, by the source's plan") as t:
        prepare(raw["target"], store["target"], plan=plan, progress=t)

    recipe = experiment(scale).replace({"seed": seed})
    held_out = {
        name: tuple(case.id for case in find_cases(raw[name]))[-scale.num_held_out :]
        for name in raw
    }
    on_source = recipe.replace(
        {"data.store": str(store["source"]), "data.held_out": held_out["source"]}
    )
    on_target = recipe.replace(
        {
            "data.store": str(store["target"]),
            "data.held_out": held_out["target"],
            "optimizer.num_steps": scale.target_steps,
            "optimizer.peak_lr": recipe.optimizer.peak_lr / 2,
        }
    )
    runs = {
        name: workdir / "runs" / name for name in ("source", "finetuned", "scratch")
    }
    console.print("[bold]3/5 training on the source cohort")
    _finish(train(on_source, workdir=runs["source"], console=console))
    console.print("[bold]4/5 fine-tuning on the target cohort")
    # both cohorts have the same regions
    origin = Origin(run=runs["source"], surgery=Surgery(heads="keep"))
    _finish(train(on_target, workdir=runs["finetuned"], origin=origin, console=console))
    console.print("[bold]4/5 training from scratch on the target cohort")
    _finish(train(on_target, workdir=runs["scratch"], console=console))
    console.print("[bold]5/5 comparing on the held-out cases")
    cases = find_cases(raw["target"], need_labels=True, ids=held_out["target"])
    threshold = best_threshold(cases)
    _print_summary(console, runs, threshold)
    return _report(
        workdir / "report.html",
        stores=store,
        runs=runs,
        cases=cases,
        threshold=threshold,
        facts=(
            ("seed", str(seed)),
            ("size", size),
            ("steps on the source", str(scale.source_steps)),
            ("steps on the target", str(scale.target_steps)),
            ("version", f"bmjax {__version__}"),
        ),
    )


def _print_summary(
    console: Console, runs: dict[str, Path], threshold: Threshold
) -> None:
    for name in ("finetuned", "scratch"):
        summary = json.loads((runs[name] / "validation" / "summary.json").read_text())
        dice = {r: scores["dice"]["mean"] for r, scores in summary["regions"].items()}
        text = " ".join(f"{region} {value:.3f}" for region, value in dice.items())
        console.print(f"{name}: held-out Dice {text}")
    console.print(
        f"best threshold of FLAIR ({threshold.z:.1f} sd): "
        f"held-out Dice WT {threshold.mean:.3f}"
    )


def _finish(done: Trained) -> None:
    if not done.is_finished:
        raise KeyboardInterrupt


def _report(
    out: Path,
    *,
    stores: dict[str, Path],
    runs: dict[str, Path],
    cases: Sequence[Case],
    threshold: Threshold,
    facts: Sequence[tuple[str, str]],
) -> Path:
    predicted = {
        "fine-tuned": runs["finetuned"] / "validation",
        "from scratch": runs["scratch"] / "validation",
    }
    name = f"FLAIR > {threshold.z:.1f} sd"
    return report.write_comparison_report(
        out,
        title="bmjax demo",
        subtitle="Transfer between two synthetic cohorts of brain metastases",
        texts=(
            "A network trained on the source cohort and fine-tuned on the target, next "
            "to the same network trained from scratch on the target for as many steps, "
            "and to the best threshold of FLAIR. The threshold is chosen on these very "
            "cases, so its score is an upper bound.",
        ),
        facts=facts,
        cohorts=[_introduce(cohort, path) for cohort, path in stores.items()],
        runs={
            "source": runs["source"],
            "fine-tuned": runs["finetuned"],
            "from scratch": runs["scratch"],
        },
        evaluations=predicted,
        baselines={name: {case: {"WT": d} for case, d in threshold.dice.items()}},
        cases=[
            report.CaseSources(
                case=case.id,
                images=case.images,
                reference=case.labels,
                predictions={
                    method: folder / f"{case.id}.nii.gz"
                    for method, folder in predicted.items()
                },
                facts=tuple(case.columns.items()),
            )
            for case in cases
        ],
    )


def _introduce(name: str, folder: Path) -> report.Cohort:
    """Facts and three slices of a cohort, from its store."""
    store = Store(folder)
    cases = [store.case(case_id) for case_id in store.ids]
    volumes = [lesion["volume_mm3"] for case in cases for lesion in case.lesions]
    spacing = " x ".join(f"{mm:g}" for mm in cases[0].geometry.spacing_mm)
    return report.Cohort(
        name=name,
        facts=(
            ("cases", str(len(cases))),
            ("lesions", str(len(volumes))),
            ("median lesion with oedema", f"{np.median(volumes):.0f} mm3"),
            ("voxels as stored (z x y x x)", f"{spacing} mm"),
        ),
        examples=tuple(
            report.CaseSources(
                case=case.id, images=case.source.images, reference=case.source.labels
            )
            for case in cases[:3]
        ),
    )
