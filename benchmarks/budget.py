"""Memory of each config on paper: `python -m benchmarks.budget [--plan PLAN]`.

Parameters, gradients and optimiser state are counted exactly; activations are the
arrays that differentiation keeps between forward and backward, found by tracing without
computing. The working set of the layer at hand is taken as three times the largest of
them. What the vendor's convolutions ask for on top is not in it.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import bmjax
from bmjax import losses, models
from bmjax.experiment import Experiment
from bmjax.planning import Plan, make_plan

CONFIGS = Path(__file__).parents[1] / "configs"
GPUS_GIB = (8, 11, 16, 24, 32, 48, 80)
RESERVE = 0.9  # share of a GPU's memory that is left for arrays
CHANNELS = ("t1c", "t1n", "t2f", "t2w")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Memory of a training step [bytes].

    Attributes:
      params: parameters and running moments.
      grads: gradients.
      optimizer: state of the optimiser.
      activations: kept from forward to backward.
      working: of the layer at hand.
    """

    params: int
    grads: int
    optimizer: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        parts = (self.params, self.grads, self.optimizer, self.activations)
        return sum(parts) + self.working

    @property
    def gpu_gib(self) -> int | None:
        """Smallest usual GPU that holds it; None if none does."""
        fits = (g for g in GPUS_GIB if self.total <= RESERVE * g * 2**30)
        return next(fits, None)


def estimate(experiment: Experiment, plan: Plan) -> Budget:
    """The budget of a resolved experiment.

    Args:
      experiment: patch, batch, model and loss are set.
      plan: its regions and channels.
    """
    data, model = experiment.data, experiment.model
    size = (data.batch_size, *data.patch_size)
    image = jax.ShapeDtypeStruct((*size, len(plan.channels)), jnp.float32)
    labels = jax.ShapeDtypeStruct(size, jnp.int8)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    params = variables["params"]
    fixed = {name: tree for name, tree in variables.items() if name != "params"}
    supervise = losses.DeepSupervision(loss=experiment.loss)

    def kept(params: Any, fixed: Any, image: Any, labels: Any) -> Any:
        def objective(params: Any) -> Any:
            outputs, _ = model.apply(
                {"params": params, **fixed},
                image,
                is_training=True,
                rngs={"dropout": jax.random.key(0)},
                mutable=list(fixed),
            )
            return supervise(
                outputs, labels, lambda x: losses.region_targets(x, plan.regions)
            )

        return jax.vjp(objective, params)[1]

    residuals = jax.tree.leaves(jax.eval_shape(kept, params, fixed, image, labels))
    # kernels are kept too, but they are there anyway
    known = {leaf.shape for leaf in jax.tree.leaves(params)}
    sizes = [_bytes(leaf) for leaf in residuals if leaf.shape not in known]
    optimizer = experiment.optimizer.transformation()
    return Budget(
        params=_sum(variables),
        grads=_sum(params),
        optimizer=_sum(jax.eval_shape(optimizer.init, params)),
        activations=sum(sizes),
        working=3 * max(sizes),
    )


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
            str(budget.gpu_gib or f"above {GPUS_GIB[-1]}"),
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


def _bytes(leaf: Any) -> int:
    return leaf.size * leaf.dtype.itemsize


def _sum(tree: Any) -> int:
    return sum(map(_bytes, jax.tree.leaves(tree)))


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"


if __name__ == "__main__":
    main()
