"""What a study will take before it is run: steps, floating-point operations, hours.

Hours are those of this machine where a run of the study has been timed; otherwise the
operations of the compiled step over a throughput that the reader gives.

python -m bmjax.study.forecast PLAN    the three recipes on a plan, without any data
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import jax
import jax.numpy as jnp

from bmjax.data.plan_files import load_plan
from bmjax.experiment import Experiment
from bmjax.planning import Plan
from bmjax.preparation import plan as make_plan
from bmjax.report.sources import read_records
from bmjax.study.cohorts import write_manifest
from bmjax.study.recipes import RECIPES
from bmjax.study.stages import Ledger, Stage, State
from bmjax.study.transfer import Study
from bmjax.training import initial_state, make_train_step
from bmjax.training.memory import StepMemory, estimate_step


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """One stage, before it is done.

    Attributes:
      name: of the stage.
      state: what became of it so far.
      num_steps: training steps in all.
      tflop: of all its steps; None where that is not known.
      hours: it will take, or took; None where that is not known.
      how: where the hours are from.
    """

    name: str
    state: State
    num_steps: int
    tflop: float | None
    hours: float | None
    how: str


def step_flop(experiment: Experiment, plan: Plan) -> float:
    """Floating-point operations of one training step, as XLA counts them for a GPU.

    A multiplication and an addition are two. The program is lowered, not compiled or
    run, without augmentation, which is a small part of it.

    Args:
      experiment: fields left None are taken from the plan.
      plan: of the store.
    """
    spec = experiment.resolve(plan)
    size = (spec.data.batch_size or plan.batch_size, *(spec.data.patch_size or ()))
    image = jax.ShapeDtypeStruct((*size, len(plan.channels)), jnp.float32)
    labels = jax.ShapeDtypeStruct(size, jnp.int8)
    variables = jax.eval_shape(spec.model.init, jax.random.key(0), image)
    optimizer = spec.optimizer.transformation()
    state = jax.eval_shape(partial(initial_state, optimizer=optimizer), variables)
    step = make_train_step(
        model=spec.model,
        loss=spec.loss,
        augment=_as_it_is,
        optimizer=optimizer,
        regions=plan.regions,
        seed=0,
    )
    traced = jax.jit(step).trace(state, {"image": image, "labels": labels})
    # a CPU's own convolutions hide their operations in loops
    cost: Any = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
    return float(cost["flops"])


def look_ahead(study: Study, ledger: Ledger, *, tflops: float | None) -> list[Ahead]:
    """Every stage with what it takes.

    Args:
      study: whose.
      ledger: of its stages.
      tflops: throughput to reckon with where nothing was timed [10^12 operations a
        second], as it is reached, not as it is advertised.
    """
    plan = study.known_plan() or _foreseen_plan(study)
    flop = {
        model: step_flop(study.experiment("scratch", model, 0), plan)
        for model in study.recipes
    }
    timed = {model: _timed_ms(study, model) for model in study.recipes}
    return [_ahead(stage, ledger, flop, timed, tflops) for stage in study.stages]


def step_memory(experiment: Experiment, plan: Plan) -> StepMemory:
    """The liveness estimate of the memory of one training step."""
    spec = experiment.resolve(plan)
    return estimate_step(
        model=spec.model,
        loss=spec.loss,
        optimizer=spec.optimizer.transformation(),
        regions=plan.regions,
        size=(spec.data.batch_size or plan.batch_size, *(spec.data.patch_size or ())),
        num_channels=len(plan.channels),
    )


def _foreseen_plan(study: Study) -> Plan:
    """The plan that preparing will make; nothing is kept of it."""
    what = study.what
    name: Literal["source", "target"] = "source" if what.plan == "source" else "target"
    cases = study.source_cases if name == "source" else study.held.train
    data = replace(getattr(what, f"{name}_data"), allow_outside=True)
    with TemporaryDirectory() as folder:
        raw = write_manifest(Path(folder), "train", cases, getattr(what, name))
        found = make_plan(raw, data=data).plan
    return replace(
        found,
        patch_size=what.patch_size or found.patch_size,
        batch_size=what.batch_size or found.batch_size,
    )


def _ahead(
    stage: Stage,
    ledger: Ledger,
    flop: dict[str, float],
    timed: dict[str, float | None],
    tflops: float | None,
) -> Ahead:
    state = ledger.state(stage)
    model = stage.name.split("/")[1] if stage.num_steps else ""
    each = flop.get(model)
    total = None if each is None else each * stage.num_steps / 1e12
    seconds, hours, how = ledger.seconds(stage), None, ""
    step_ms = timed.get(model)
    if state == "done" and seconds is not None:
        hours, how = seconds / 3600, "taken"
    elif stage.num_steps and step_ms is not None:
        hours, how = step_ms * stage.num_steps / 3.6e6, f"{step_ms:.0f} ms a step here"
    elif total is not None and tflops:
        hours, how = total / tflops / 3600, f"at {tflops:g} TFLOP/s"
    return Ahead(
        name=stage.name,
        state=state,
        num_steps=stage.num_steps,
        tflop=total,
        hours=hours,
        how=how,
    )


def _timed_ms(study: Study, model: str) -> float | None:
    """Median time of a step of any run of a model in the study [ms]."""
    found: list[float] = []
    for log in _logs(study, model):
        records = [r for r in read_records(log) if r.get("kind") == "train"]
        found += [r["step_ms"] for r in records[1:]]  # the first compiles
    return statistics.median(found) if found else None


def _logs(study: Study, model: str) -> Sequence[Path]:
    return sorted(study.workdir.glob(f"*/{model}/fold_*/metrics.jsonl"))


def _as_it_is(image: Any, labels: Any, *, keys: Any) -> tuple[Any, Any]:
    return image, labels


def main(argv: Sequence[str]) -> None:
    """Print operations and memory of a step of each recipe on a plan."""
    plan = load_plan(Path(argv[0]))
    for name, recipe in RECIPES.items():
        tflop = step_flop(recipe(), plan) / 1e12
        memory = step_memory(recipe(), plan).total / 2**30
        print(f"{name}: {tflop:.3f} TFLOP, {memory:.1f} GiB a step in float32")


if __name__ == "__main__":
    main(sys.argv[1:])
