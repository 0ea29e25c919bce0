"""Memory of each config on paper: `python -m benchmarks.budget [--plan PLAN]`.

A liveness estimate, see `bmjax.training.memory`.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import bmjax
from bmjax import models
from bmjax.experiment import Experiment
from bmjax.planning import Plan, make_plan
from bmjax.training.memory import StepMemory, estimate_step

CONFIGS = Path(__file__).parents[1] / "configs"
GPUS_GIB = (8, 11, 16, 24, 32, 48, 80)
RESERVE = 0.9  # share of a GPU's memory that is left for arrays
CHANNELS = ("t1c", "t1n", "t2f", "t2w")


def estimate(experiment: Experiment, plan: Plan) -> StepMemory:
    """The memory of a resolved experiment's step.

    Args:
      experiment: patch, batch, model and loss are set.
      plan: its regions and channels.
    """
    data = experiment.data
    assert data.patch_size is not None and data.batch_size is not None
    return estimate_step(
        model=experiment.model,
        loss=experiment.loss,
        optimizer=experiment.optimizer.transformation(),
        regions=plan.regions,
        size=(data.batch_size, *data.patch_size),
        num_channels=len(plan.channels),
    )


def gpu_gib(memory: StepMemory) -> int | None:
    """Smallest usual GPU that holds it [GiB]; None if none does."""
    return next((g for g in GPUS_GIB if memory.total <= RESERVE * g * 2**30), None)


def brats_plan(*, is_2d: bool = False) -> Plan:
    """nnU-Net's plan for cases like those of BraTS: 1 mm, cropped to the brain."""
    fingerprint = {
        "channels": CHANNELS,
        "spacings_mm": [(1.0, 1.0, 1.0)] * 1000,
        "sizes_after_crop": [(140, 171, 136)] * 1000,
        "relative_size_after_crop": [0.36] * 1000,
    }
    return make_plan(fingerprint, configuration="2d" if is_2d else "3d_fullres")


def table(paths: Iterable[Path], plan: Plan | None) -> str:
    """Markdown, one line per config."""
    lines = [
        "| config | patch | batch | params | gradients | optimizer | activations "
        "| total GiB | with remat | bfloat16 | GPU GiB |",
        "|" + " --- |" * 11,
    ]
    for path in paths:
        raw = bmjax.load(path)
        is_2d = isinstance(raw.model, models.UNet2D | models.ConvNet | models.FCN)
        its_plan = plan or brats_plan(is_2d=is_2d)
        experiment = raw.replace({"data.held_out": ()}).resolve(its_plan)
        budget = estimate(experiment, its_plan)
        savers = [
            estimate(experiment.replace({f"model.{name}": value}), its_plan)
            if hasattr(experiment.model, name)
            else None
            for name, value in (("use_remat", True), ("dtype", "bfloat16"))
        ]
        cells = [
            path.stem,
            "x".join(map(str, experiment.data.patch_size)),
            str(experiment.data.batch_size),
            *map(_gib, (budget.params, budget.grads, budget.optimizer)),
            *map(_gib, (budget.activations, budget.total)),
            *(_gib(saver.total) if saver else "" for saver in savers),
            str(gpu_gib(budget) or f"above {GPUS_GIB[-1]}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget")
    parser.add_argument("configs", nargs="*", type=Path)
    parser.add_argument("--plan", type=Path, help="plan.json of a store")
    args = parser.parse_args(argv)
    plan = args.plan and Plan.from_dict(json.loads(args.plan.read_text()))
    print(table(args.configs or sorted(CONFIGS.glob("*.py")), plan))


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"


if __name__ == "__main__":
    main()
