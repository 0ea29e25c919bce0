"""Memory that a training step takes: measured where it compiles, else by liveness.

The estimate counts parameters, gradients and optimiser state exactly; activations are
the arrays that are alive between forward and backward, found by tracing without
computing. The working set of the layer at hand is taken as three times the largest of
them. What a vendor's convolutions ask for on top is not in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from bmjax.losses import DeepSupervision, region_targets
from bmjax.training.step import Regions


@dataclass(frozen=True, kw_only=True)
class StepMemory:
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


def estimate_step(
    *,
    model: Any,
    loss: Any,
    optimizer: optax.GradientTransformation,
    regions: Regions,
    size: tuple[int, ...],
    num_channels: int,
) -> StepMemory:
    """The liveness estimate of a step; nothing is computed.

    Args:
      model: network; called as `apply(variables, image, is_training=True)`.
      loss: loss of one resolution, or a `DeepSupervision` of one.
      optimizer: what updates the parameters.
      regions: name and labels of each output channel.
      size: batch and patch, b *s [vox].
      num_channels: of the image.
    """
    variables, image, labels = _abstract(model, size, num_channels)
    params = variables["params"]
    fixed = {name: tree for name, tree in variables.items() if name != "params"}
    objective = _objective(model, loss, regions)

    def kept(params: Any, fixed: Any, image: Any, labels: Any) -> Any:
        return jax.vjp(lambda p: objective(p, fixed, image, labels), params)[1]

    residuals = jax.tree.leaves(jax.eval_shape(kept, params, fixed, image, labels))
    # kernels are kept too, but they are there anyway
    known = {leaf.shape for leaf in jax.tree.leaves(params)}
    sizes = [_bytes(leaf) for leaf in residuals if leaf.shape not in known]
    return StepMemory(
        params=_sum(variables),
        grads=_sum(params),
        optimizer=_sum(jax.eval_shape(optimizer.init, params)),
        activations=sum(sizes),
        working=3 * max(sizes),
    )


def measure_step(
    *,
    model: Any,
    loss: Any,
    optimizer: optax.GradientTransformation,
    regions: Regions,
    size: tuple[int, ...],
    num_channels: int,
) -> int:
    """Memory of the step as it compiles for this device [bytes]; nothing is run.

    Arguments as for `estimate_step`. Augmentation, which is not in it, is done before.
    """
    variables, image, labels = _abstract(model, size, num_channels)
    params = variables["params"]
    fixed = {name: tree for name, tree in variables.items() if name != "params"}
    objective = _objective(model, loss, regions)

    def step(params: Any, state: Any, fixed: Any, image: Any, labels: Any) -> Any:
        grads = jax.grad(objective)(params, fixed, image, labels)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(optimizer.init, params)
    compiled = (
        jax.jit(step, donate_argnums=(0, 1))
        .lower(params, state, fixed, image, labels)
        .compile()
    )
    found = compiled.memory_analysis()
    if found is None:
        raise RuntimeError(
            f"{jax.default_backend()} does not say what memory a program takes"
        )
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )


def how_known() -> Literal["measured", "estimated"]:
    """Whether this process has the kind of device that networks train on."""
    return "estimated" if jax.default_backend() == "cpu" else "measured"


def _abstract(model: Any, size: tuple[int, ...], num_channels: int) -> Any:
    image = jax.ShapeDtypeStruct((*size, num_channels), jnp.float32)
    labels = jax.ShapeDtypeStruct(size, jnp.int8)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return variables, image, labels


def _objective(model: Any, loss: Any, regions: Regions) -> Callable[..., Any]:
    supervise = (
        loss if isinstance(loss, DeepSupervision) else DeepSupervision(loss=loss)
    )

    def objective(params: Any, fixed: Any, image: Any, labels: Any) -> Any:
        outputs, _ = model.apply(
            {"params": params, **fixed},
            image,
            is_training=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=list(fixed),
        )
        return supervise(outputs, labels, lambda x: region_targets(x, regions))

    return objective


def _bytes(leaf: Any) -> int:
    return leaf.size * leaf.dtype.itemsize


def _sum(tree: Any) -> int:
    return sum(map(_bytes, jax.tree.leaves(tree)))
