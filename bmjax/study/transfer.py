"""The transfer study of Luu et al. (2024) as a graph of stages.

WORKDIR/data/            which cases of the target are trained and tested on
WORKDIR/store/           both data sets, prepared
WORKDIR/pretrain/MODEL/  fold_0 .. : runs on the source, and their cross-validation
WORKDIR/finetune/MODEL/  fold_0 .. : runs on the target that begin with those
WORKDIR/scratch/MODEL/   fold_0 .. : runs on the target that begin with nothing
WORKDIR/predict/         the test cases, by each fold and by all folds together
WORKDIR/evaluate/        the same against their labels
WORKDIR/scores/          one table for each model and start, in BrainMetaSeg's form
WORKDIR/statistics/      what they say; published/ says it as the paper would
WORKDIR/report.html      all of it
WORKDIR/stages/          what is done, and of which inputs
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from bmjax.data.cases import Case
from bmjax.data.description import RawData
from bmjax.data.plan_files import load_plan
from bmjax.data.store import Store
from bmjax.data.store_check import is_store
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.study import transfer_stages as do
from bmjax.study.cohorts import Held, hold_out, read_cases, require_apart
from bmjax.study.recipes import RECIPES, find_recipes
from bmjax.study.scores import STARTS
from bmjax.study.stages import Stage
from bmjax.surgery import Surgery

Seeds = Literal["matched", "first", "all"]
Alignment = Literal["target", "source", "native"]
_RUN = ("checkpoints/**/*", "experiment.json", "plan.json")
_STORE = ("store.json", "plan.json", "cases/*/case.json")
_NNUNET = Surgery(heads="nnunet")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What is studied; the defaults are the paper's.

    Attributes:
      source: the data to pre-train on: raw, or a store.
      target: the data to fine-tune on, raw; or a store of its training cases, with
        `test` beside it.
      test: raw data to test on; none: cases of the target.
      test_cases: ids of those cases; none: drawn by patient.
      num_test: how many are drawn.
      models: default, tverskybce, segresnet, or config files.
      folds: of the cross-validations on source and target.
      pretrain_epochs: on the source.
      finetune_epochs: on the target, from scratch as well.
      seeds: which pre-trained fold begins which fine-tuned fold: fold k fold k
        (`matched`), fold 0 every one (`first`), or a run on all of the source but its
        last patient, who is left to look at (`all`).
      plan: both data sets by the target's plan, as in the paper; both by the source's;
        or each by its own (`native`), where kernels of other sizes need --surgery.
      keep_source_normalization: normalise the source by its own rules in spite of the
        target's plan.
      checkpoint: which one of a run is handed on and predicts (nnU-Net: the last).
      surgery: how pre-trained parameters are made to fit; by default as nnU-Net's
        -pretrained_weights, which leaves heads out, but not SegResNet's.
      source_data: what the names of the raw source do not say.
      target_data: likewise of the target.
      spacing_mm: of the plan, instead of what is planned, z y x.
      patch_size: likewise.
      batch_size: likewise.
      by: column of the target's manifest to group results by; none: `primary`, where
        the test cases have it.
      seed: of the networks, their patches, and the bootstrap.
    """

    source: Path
    target: Path
    test: Path | None = None
    test_cases: tuple[str, ...] = ()
    num_test: int = 10
    models: tuple[str, ...] = tuple(RECIPES)
    folds: int = 5
    pretrain_epochs: int = 200
    finetune_epochs: int = 100
    seeds: Seeds = "matched"
    plan: Alignment = "target"
    keep_source_normalization: bool = False
    checkpoint: Literal["last", "best"] = "last"
    surgery: Surgery = _NNUNET
    source_data: RawData = field(default_factory=RawData)
    target_data: RawData = field(default_factory=RawData)
    spacing_mm: tuple[float, float, float] | None = None
    patch_size: tuple[int, int, int] | None = None
    batch_size: int | None = None
    by: str = ""
    seed: int = 0


class Study:
    """The stages of a transfer study in a folder.

    Args:
      what: is studied.
      workdir: folder of everything.

    Raises:
      ValueError: cases, models or plans do not fit.
    """

    def __init__(self, what: Transfer, workdir: Path) -> None:
        self.what = what
        self.workdir = workdir
        self.recipes = find_recipes(what.models)
        if what.folds < 2:
            raise ValueError(f"folds: {what.folds}; a cross-validation takes 2 or more")
        if is_store(what.target) and what.test is None:
            raise ValueError(
                f"{what.target}: a store has no test cases; give them with --test RAW"
            )
        if is_store(what.target) and what.plan == "source":
            raise ValueError(
                f"{what.target}: a store has its plan already; give raw data to "
                "prepare it by the source's, or --plan target"
            )
        source = self.source_cases
        if source:
            require_apart(source, self.held.test, "the source's cases")

    @cached_property
    def held(self) -> Held:
        """The target's cases to train and to test on."""
        what = self.what
        if is_store(what.target) and what.test is not None:
            store = Store(what.target)
            train = tuple(store.case(case).source for case in store.ids)
            test = tuple(read_cases(what.test, what.target_data))
            require_apart(train, test, "the target's training cases")
            return Held(train=train, test=test)
        return hold_out(
            what.target,
            data=what.target_data,
            test=what.test,
            test_cases=what.test_cases,
            num_test=what.num_test,
        )

    @cached_property
    def source_cases(self) -> Sequence[Case]:
        """The source's cases."""
        if is_store(self.what.source):
            store = Store(self.what.source)
            return [store.case(case).source for case in store.ids]
        return read_cases(self.what.source, self.what.source_data)

    @property
    def by(self) -> str:
        """Column to group results by; empty for none."""
        if self.what.by:
            return self.what.by
        is_known = all("primary" in case.columns for case in self.held.test)
        return "primary" if is_known else ""

    def store(self, name: str) -> Path:
        """Where `source` or `target` is prepared."""
        given = getattr(self.what, name)
        return given if is_store(given) else self.workdir / "store" / name

    def run(self, part: str, model: str, fold: int | str) -> Path:
        """The run folder of a training."""
        name = f"fold_{fold}" if isinstance(fold, int) else fold
        return self.workdir / part / model / name

    def known_plan(self) -> Plan | None:
        """The target's plan, once it is prepared."""
        folder = self.store("target")
        return load_plan(folder) if (folder / "plan.json").is_file() else None

    def experiment(self, part: str, model: str, fold: int | str) -> Experiment:
        """What a training runs."""
        is_source = part == "pretrain"
        what, spec = self.what, self.recipes[model].optimizer
        epochs = what.pretrain_epochs if is_source else what.finetune_epochs
        changes: dict[str, Any] = {
            "data.store": str(self.store("source" if is_source else "target")),
            "data.num_folds": what.folds,
            "data.fold": fold if isinstance(fold, int) else 0,
            "optimizer.num_steps": None,
            "optimizer.num_epochs": epochs,
            "seed": what.seed,
        }
        if not isinstance(fold, int):
            last = max(case.patient for case in self.source_cases)
            ids = (case.id for case in self.source_cases if case.patient == last)
            changes["data.held_out"] = tuple(sorted(ids))
        total = epochs * spec.epoch_steps
        recipe = self.recipes[model].replace(changes)
        every = min(recipe.fit.validate_every, total)
        return recipe.replace({"fit.validate_every": every})

    def pretrained(self) -> tuple[int | str, ...]:
        """The pre-trainings of each model."""
        folds: tuple[int | str, ...] = tuple(range(self.what.folds))
        return (*folds, "all") if self.what.seeds == "all" else folds

    def seed_of(self, fold: int) -> int | str:
        """The pre-training that a fine-tuned fold begins with."""
        return {"matched": fold, "first": 0, "all": "all"}[self.what.seeds]

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, each after those that it needs."""
        folds = range(self.what.folds)
        made = [*self._preparations()]
        for model in self.recipes:
            made += [self._pretraining(model, fold) for fold in self.pretrained()]
        made.append(self._cross_validation())
        for model in self.recipes:
            made += [self._training("finetune", model, fold) for fold in folds]
            made += [self._training("scratch", model, fold) for fold in folds]
        for model in self.recipes:
            for start in STARTS:
                for fold in (*folds, "ensemble"):
                    made += self._test(model, start, fold)
        return (*made, *self._conclusions())

    def _preparations(self) -> list[Stage]:
        what, stores = self.what, {n: self.store(n) for n in ("source", "target")}
        wanted = {
            "source": {"plan": what.plan, "keep": what.keep_source_normalization},
            "target": {"plan": what.plan == "source"},
        }
        cases = {"source": self.source_cases, "target": self.held.train}
        leads = "source" if what.plan == "source" else "target"
        order = ("source", "target") if leads == "source" else ("target", "source")
        made = []
        for name in order:
            if is_store(getattr(what, name)):
                continue
            follows = name != leads and what.plan != "native"
            own = None if follows else (what.spacing_mm, what.patch_size)
            is_led = follows and not is_store(getattr(what, leads))
            plans = () if not follows or is_led else (stores[leads] / "plan.json",)
            made.append(
                Stage(
                    name=f"prepare/{name}",
                    run=partial(do.prepare_store, self, name, follows),
                    outputs=(stores[name],),
                    results=_STORE,
                    needs=(f"prepare/{leads}",) if is_led else (),
                    settings={
                        **wanted[name],
                        "own": own,
                        "batch_size": what.batch_size,
                        "data": getattr(what, f"{name}_data"),
                    },
                    inputs=(*plans, *_files(cases[name])),
                )
            )
        return made

    def _of_store(self, name: str) -> dict[str, Any]:
        """How a stage depends on a store."""
        given = getattr(self.what, name)
        if is_store(given):
            return {"inputs": tuple(sorted(given.glob("cases/*/case.json")))}
        return {"needs": (f"prepare/{name}",)}

    def _pretraining(self, model: str, fold: int | str) -> Stage:
        depends = self._of_store("source")
        if self.what.plan != "native":  # the plans are compared before it
            both = (
                *depends.get("needs", ()),
                *self._of_store("target").get("needs", ()),
            )
            depends = {**depends, "needs": both}
        return self._trained("pretrain", model, fold, depends)

    def _training(self, part: str, model: str, fold: int) -> Stage:
        depends = self._of_store("target")
        if part == "finetune":
            seed = self.run("pretrain", model, self.seed_of(fold)).name
            needs = (*depends.get("needs", ()), f"pretrain/{model}/{seed}")
            depends = {**depends, "needs": needs}
        return self._trained(part, model, fold, depends)

    def _trained(
        self, part: str, model: str, fold: int | str, depends: dict[str, Any]
    ) -> Stage:
        experiment = self.experiment(part, model, fold)
        settings: dict[str, Any] = {
            "experiment": experiment.replace({"data.store": None}).to_json()
        }
        if part == "finetune":
            settings |= {"surgery": self.what.surgery, "from": self.what.checkpoint}
        run = self.run(part, model, fold)
        return Stage(
            name=f"{part}/{model}/{run.name}",
            run=partial(do.train_run, self, part, model, fold),
            outputs=(run,),
            results=(*_RUN, "validation/cases.csv"),
            settings=settings,
            num_steps=experiment.optimizer.total_steps,
            **depends,
        )

    def _cross_validation(self) -> Stage:
        runs = [
            f"pretrain/{model}/fold_{fold}"
            for model in self.recipes
            for fold in range(self.what.folds)
        ]
        return Stage(
            name="crossvalidation",
            run=partial(do.write_cross_validation, self),
            outputs=(self.workdir / "crossvalidation",),
            results=("*.csv",),
            needs=tuple(runs),
        )

    def _test(self, model: str, start: str, fold: int | str) -> list[Stage]:
        folds = range(self.what.folds) if isinstance(fold, str) else [fold]
        runs = [self.run(start, model, k) for k in folds]
        name = "ensemble" if isinstance(fold, str) else f"fold_{fold}"
        where = f"{model}/{start}/{name}"
        predicted = self.workdir / "predict" / where
        scored = self.workdir / "evaluate" / where
        return [
            Stage(
                name=f"predict/{where}",
                run=partial(do.predict_test, self, runs, predicted),
                outputs=(predicted,),
                results=("*.nii.gz",),
                needs=tuple(f"{start}/{model}/{run.name}" for run in runs),
                settings={"checkpoint": self.what.checkpoint},
                inputs=_files(self.held.test),
            ),
            Stage(
                name=f"evaluate/{where}",
                run=partial(do.evaluate_test, self, predicted, scored),
                outputs=(scored,),
                results=("cases.csv", "lesions.csv"),
                needs=(f"predict/{where}",),
                settings={"by": self.by},
            ),
        ]

    def _conclusions(self) -> list[Stage]:
        scored = tuple(
            f"evaluate/{model}/{start}/ensemble"
            for model in self.recipes
            for start in STARTS
        )
        statistics = self.workdir / "statistics"
        return [
            Stage(
                name="scores",
                run=partial(do.write_scores, self),
                outputs=(self.workdir / "scores",),
                results=("*.csv",),
                needs=scored,
            ),
            Stage(
                name="statistics",
                run=partial(do.write_both_statistics, self),
                outputs=(statistics, self.workdir / "published"),
                results=("*.csv",),
                needs=("scores",),
                settings={"by": self.by, "seed": self.what.seed},
            ),
            Stage(
                name="report",
                run=partial(do.write_report, self),
                outputs=(self.workdir / "report.html",),
                results=("report.html",),
                needs=("statistics", "crossvalidation"),
            ),
        ]


def _files(cases: Sequence[Case]) -> tuple[Path, ...]:
    """All files of these cases."""
    return tuple(
        path
        for case in cases
        for path in (*case.images.values(), case.labels)
        if path is not None
    )
