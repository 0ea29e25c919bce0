"""Does choosing lesions alike find more small ones than nnU-Net's rule? On phantoms.

Trains the demo's network on one cohort by each rule and seed, and compares sensitivity
for small lesions on the same held-out cases at the same rates of false positives: each
network gets the threshold that has the rate.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from bmjax.data import nifti, phantom
from bmjax.data.patches import Centring
from bmjax.data.store import Store
from bmjax.inference import Outputs
from bmjax.metrics.detection import FROC_RATES, confidences, froc
from bmjax.metrics.lesions import components
from bmjax.prediction import predict
from bmjax.preparation import prepare
from bmjax.study import demo
from bmjax.workflow import train

RULES: tuple[Centring, ...] = ("lesion", "class")
SMALL_MM3 = 100.0
REGION = "TC"  # what a metastasis is without its oedema


@dataclass(frozen=True, kw_only=True)
class Found:
    """Detection on the held-out cases of one run.

    Attributes:
      small: highest probability of a candidate that touches each small lesion, 0 where
        there is none.
      others: of each larger lesion.
      false_positives: of each candidate that touches no lesion.
      num_cases: held-out cases.
    """

    small: Float[np.ndarray, " l"]
    others: Float[np.ndarray, " m"]
    false_positives: Float[np.ndarray, " f"]
    num_cases: int

    def sensitivity(self, rate: float) -> float:
        """Fraction of the small lesions found at a rate of false positives per case.

        NaN where there are none.
        """
        if not len(self.small):
            return float("nan")
        lesions = np.concatenate([self.small, self.others])
        curve = froc(lesions, self.false_positives, num_cases=self.num_cases)
        is_within = curve.false_positives_per_case <= rate
        return float(np.mean(self.small >= curve.threshold[is_within].min()))


def detect(run: Path, store: Store, held_out: Sequence[str]) -> Found:
    """Predict the held-out cases of a run and match their candidates with lesions."""
    cases = [store.case(case_id).source for case_id in held_out]
    maps = run / "maps"
    results = predict(
        run, images=cases, out=maps, outputs=Outputs(maps=("probability",))
    )
    failed = [str(result.error) for result in results if result.error]
    if failed:
        raise ValueError("\n".join(failed))
    values = dict(store.plan.regions)[REGION]
    small, others, false = [], [], []
    for case in cases:
        if case.labels is None:
            raise ValueError(f"{case.id}: has no labels to compare with")
        scan = nifti.read_labels(case.labels)
        reference = np.isin(scan.array, values)
        probs = nifti.read(maps / f"{case.id}_prob_{REGION}.nii.gz").array
        found = confidences(probs, reference)
        sizes_vox = np.bincount(components(reference).ravel())[1:]
        is_small = sizes_vox * float(np.prod(scan.spacing_mm)) < SMALL_MM3
        small.append(found.lesions[is_small])
        others.append(found.lesions[~is_small])
        false.append(found.false_positives)
    return Found(
        small=np.concatenate(small),
        others=np.concatenate(others),
        false_positives=np.concatenate(false),
        num_cases=len(cases),
    )


def run_study(
    workdir: Path,
    *,
    scale: demo.Scale = demo.SCALES["full"],
    seeds: Sequence[int] = (0, 1, 2),
    console: Console,
) -> dict[Centring, list[Found]]:
    """Train by each rule with each seed; runs that are there are kept.

    Args:
      workdir: folder for cohort, store and runs.
      scale: of the demo; its source cohort is used.
      seeds: of the networks and their patches; the cohort is the same.
      console: where progress is shown.
    """
    cohort = replace(phantom.SOURCE, num_cases=scale.num_source)
    raw, store = workdir / "raw", workdir / "store"
    if not (raw / "manifest.csv").is_file():
        phantom.write_cohort(cohort, raw, num_workers=2)
    prepare(
        raw,
        store,
        spacing_mm=scale.spacing_mm,
        patch_size=scale.patch_size,
        batch_size=2,
    )
    held_out = tuple(cohort.case_id(i) for i in range(scale.num_source))
    held_out = held_out[-scale.num_held_out :]
    found: dict[Centring, list[Found]] = {rule: [] for rule in RULES}
    for seed in seeds:
        for rule in RULES:
            recipe = demo.experiment(scale).replace(
                {
                    "seed": seed,
                    "data.store": str(store),
                    "data.held_out": held_out,
                    "data.centring": rule,
                }
            )
            run = workdir / "runs" / f"{rule}-{seed}"
            train(recipe, workdir=run, console=console)
            found[rule].append(detect(run, Store(store), held_out))
    return found


def summary(
    found: Mapping[Centring, Sequence[Found]], *, rates: Sequence[float] = FROC_RATES
) -> Table:
    """Sensitivity for small lesions by rate and rule, over the seeds."""
    num_small = len(next(iter(found.values()))[0].small)
    table = Table(
        title=f"sensitivity for {num_small} lesions of {REGION} below {SMALL_MM3:g} mm3"
    )
    for name in ("false positives per case", *found):
        table.add_column(name)
    for rate in rates:
        row = [_spread([r.sensitivity(rate) for r in runs]) for runs in found.values()]
        table.add_row(f"{rate:g}", *row)
    return table


def _spread(values: Sequence[float]) -> str:
    own = " ".join(f"{value:.3f}" for value in values)
    sd = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):.3f} (sd {sd:.3f}; {own})"
