"""A trained model, one network or several folds, from run folders or a bundle."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmjax.bundle import SUFFIX, read_bundle
from bmjax.experiment import Experiment, load
from bmjax.planning import Plan
from bmjax.runs import read_run
from bmjax.variables import require_fit

_FOLD = re.compile(r"fold_(\d+)")


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Networks of one experiment and plan, trained on other cases each.

    Attributes:
      experiment: of the first fold.
      plan: how images are prepared.
      folds: parameters and model statistics by number of the fold, numpy.
      steps: the checkpoint of each fold.
      runs: the run folder of each fold; empty for a bundle.
    """

    experiment: Experiment
    plan: Plan
    folds: dict[int, dict[str, Any]]
    steps: dict[int, int]
    runs: dict[int, Path]


def read_ensemble(
    model: Path,
    *,
    folds: Sequence[int] | None = None,
    checkpoint: str = "best",
    allow: tuple[str, ...] = (),
) -> Ensemble:
    """Read a model from a run folder, a folder of `fold_N` runs, or a bundle.

    Args:
      model: where it is.
      folds: which to take; None: all. A run folder has the fold that it was trained on.
      checkpoint: `best` or `last` of each run; a bundle has one.
      allow: packages outside bmjax whose classes the experiment may name.

    Raises:
      FileNotFoundError: there is no such model.
      ValueError: a fold is missing, folds do not belong together, or a bundle is
        damaged.
    """
    if model.is_file():
        if model.suffix != SUFFIX:
            raise ValueError(
                f"{model}: a file where a run folder or a {SUFFIX} bundle is expected; "
                "weight files are read by `bmjax graft --from-torch`"
            )
        bundle = read_bundle(model, folds=folds)
        try:
            experiment = Experiment.from_json(bundle.experiment, allow=allow)
        except ValueError as error:
            raise ValueError(f"{model}: {error}") from error
        for variables in bundle.folds.values():
            require_fit(model, experiment, bundle.plan, variables)
        return Ensemble(
            experiment=experiment,
            plan=bundle.plan,
            folds=bundle.folds,
            steps=bundle.steps,
            runs={},
        )
    found = _run_folders(model, allow)
    wanted = list(found) if folds is None else sorted(set(folds))
    absent = [number for number in wanted if number not in found]
    if absent:
        raise ValueError(
            f"{model}: folds {absent} wanted, it holds {sorted(found)}; name some of "
            "them (--folds)"
        )
    runs = {n: read_run(found[n], checkpoint=checkpoint, allow=allow) for n in wanted}
    first, *others = runs.values()
    for number, run in runs.items():
        if run.plan != first.plan or run.experiment.model != first.experiment.model:
            raise ValueError(
                f"{found[number]}: has another network or plan than "
                f"{found[wanted[0]]}, so their outputs cannot be averaged; give folds "
                "of one experiment"
            )
    return Ensemble(
        experiment=first.experiment,
        plan=first.plan,
        folds={number: run.variables for number, run in runs.items()},
        steps={number: run.step for number, run in runs.items()},
        runs={number: found[number] for number in wanted},
    )


def _run_folders(model: Path, allow: tuple[str, ...]) -> dict[int, Path]:
    """Runs by number of the fold; a run folder is its own only one."""
    folds = {
        int(match[1]): folder
        for folder in (model.iterdir() if model.is_dir() else ())
        if (match := _FOLD.fullmatch(folder.name))
        and (folder / "experiment.json").is_file()
    }
    if folds and not (model / "experiment.json").is_file():
        return dict(sorted(folds.items()))
    text = model / "experiment.json"
    if not text.is_file():
        raise FileNotFoundError(
            f"{text}: no such config; expected a run folder, a folder of fold_0, "
            f"fold_1, ... or a {SUFFIX} bundle"
        )
    experiment = load(text, allow=allow)
    return {experiment.data.fold or 0: model}
