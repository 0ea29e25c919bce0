"""One update, and one look at validation patches: pure functions of state and batch."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bmjax import sharding
from bmjax.losses import DeepSupervision, region_targets
from bmjax.training.state import TrainState

Regions = tuple[tuple[str, tuple[int, ...]], ...]
Batch = Mapping[str, Array]

# What the backward pass finds as it was; the rest it computes again from these.
_KEPT = jax.checkpoint_policies.save_only_these_names("conv", "moments")


def make_train_step(
    *,
    model: Any,
    loss: Any,
    augment: Callable[..., tuple[Array, Array]],
    optimizer: optax.GradientTransformation,
    regions: Regions,
    seed: int,
    recompute_norms: bool = False,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Build `step(state, batch, *, axis_name)`, for `sharding.parallelise` to compile.

    Args:
      model: network; called as `apply(variables, image, is_training=True)`.
      loss: loss of one resolution, or a `DeepSupervision` of one.
      augment: `(image, labels, keys=...)` to the same.
      optimizer: from `Optimizer.transformation`.
      regions: name and labels of each output channel.
      seed: with `state.step`, the origin of all random numbers on the device.
      recompute_norms: keep the outputs of convolutions only, and normalise them again
        in the backward pass. That saves a third of the memory; on a CPU it costs no
        time.
    """
    supervise = (
        loss if isinstance(loss, DeepSupervision) else DeepSupervision(loss=loss)
    )

    def step(
        state: TrainState, batch: Batch, *, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        keys = sharding.sample_keys(
            augment_key, batch["labels"].shape[0], axis_name=axis_name
        )
        image, labels = augment(batch["image"], batch["labels"], keys=keys)
        network = _across(model, axis_name)
        fixed = {k: v for k, v in state.variables.items() if k != "params"}
        apply = partial(network.apply, is_training=True, mutable=list(fixed))
        if recompute_norms:
            apply = jax.checkpoint(apply, policy=_KEPT)

        def objective(params: Any) -> tuple[Array, Any]:
            outputs, new = apply(
                {"params": params, **fixed}, image, rngs={"dropout": dropout_key}
            )
            value = supervise(
                outputs,
                labels,
                lambda x: region_targets(x, regions),
                axis_name=axis_name,
            )
            return value, new

        (value, new), grads = jax.value_and_grad(objective, has_aux=True)(
            state.variables["params"]
        )
        grads = sharding.mean_over_devices(grads, axis_name=axis_name)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.variables["params"]
        )
        params = optax.apply_updates(state.variables["params"], updates)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        variables = {"params": params, **new}
        return TrainState(state.step + 1, variables, opt_state), metrics

    return step


def make_validation_step(
    *, model: Any, loss: Any, regions: Regions
) -> Callable[[Any, Batch], dict[str, Array]]:
    """Build `validate(variables, batch)`: loss, and voxel counts per region.

    Args:
      model: network; called as `apply(variables, image, is_training=False)`.
      loss: loss of one resolution, or a `DeepSupervision` of one.
      regions: name and labels of each output channel.
    """
    supervise = (
        loss if isinstance(loss, DeepSupervision) else DeepSupervision(loss=loss)
    )

    def validate(variables: Any, batch: Batch) -> dict[str, Array]:
        outputs = model.apply(variables, batch["image"], is_training=False)
        value = supervise(
            outputs, batch["labels"], lambda x: region_targets(x, regions)
        )
        targets = region_targets(batch["labels"], regions) > 0
        predicted = outputs[0] > 0
        axes = tuple(range(targets.ndim - 1))
        return {
            "loss": value,
            "tp": jnp.sum(predicted & targets, axes),
            "fp": jnp.sum(predicted & ~targets, axes),
            "fn": jnp.sum(~predicted & targets, axes),
        }

    return jax.jit(validate)


def _across(model: Any, axis_name: str | None) -> Any:
    """The model with its cross-sample statistics taken over `axis_name`."""
    fields = {field.name for field in dataclasses.fields(model)}
    if axis_name is not None and "axis_name" in fields:
        return dataclasses.replace(model, axis_name=axis_name)
    return model
