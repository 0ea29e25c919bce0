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
from bmjax.ops import choices
from bmjax.ops.choices import Choices
from bmjax.training.state import TrainState

Regions = tuple[tuple[str, tuple[int, ...]], ...]
Batch = Mapping[str, Array]

# What the backward pass finds as it was; the rest it computes again from these.
_KEPT = jax.checkpoint_policies.save_only_these_names("conv", "moments", "mask")


def make_train_step(
    *,
    model: Any,
    loss: Any,
    augment: Callable[..., tuple[Array, Array]],
    optimizer: optax.GradientTransformation,
    regions: Regions,
    seed: int,
    accumulate: int = 1,
    ema_decay: float | None = None,
    recompute_norms: bool = False,
    convolutions: Choices = (),
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Build `step(state, batch, *, axis_name)`, for `sharding.parallelise` to compile.

    Args:
      model: network; called as `apply(variables, image, is_training=True)`.
      loss: loss of one resolution, or a `DeepSupervision` of one.
      augment: `(image, labels, keys=...)` to the same.
      optimizer: from `Optimizer.transformation`.
      regions: name and labels of each output channel.
      seed: with `state.step`, the origin of all random numbers on the device.
      accumulate: parts of the batch that pass through the network one after the other.
      ema_decay: of the running mean of the parameters, for a state that keeps one.
      recompute_norms: keep the outputs of convolutions only, and normalise them again
        in the backward pass. That saves a third of the memory; on a CPU it costs no
        time.
      convolutions: algorithms of single convolutions on a CPU; the static rule for all
        others.
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
        params = state.variables["params"]
        fixed = {k: v for k, v in state.variables.items() if k != "params"}
        apply = partial(network.apply, is_training=True, mutable=list(fixed))
        if recompute_norms:
            apply = jax.checkpoint(apply, policy=_KEPT)

        def objective(
            params: Any, fixed: Any, image: Array, labels: Array, key: Array
        ) -> tuple[Array, Any]:
            with choices.using(convolutions):
                outputs, new = apply(
                    {"params": params, **fixed}, image, rngs={"dropout": key}
                )
            value = supervise(
                outputs,
                labels,
                lambda x: region_targets(x, regions),
                axis_name=axis_name,
            )
            return value, new

        gradient = jax.value_and_grad(objective, has_aux=True)
        if accumulate == 1:
            (value, new), grads = gradient(params, fixed, image, labels, dropout_key)
        else:
            keys = jax.random.split(dropout_key, accumulate)
            (value, new), grads = _over_parts(
                gradient, params, fixed, _parts((image, labels), accumulate), keys
            )
        grads = sharding.mean_over_devices(grads, axis_name=axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, params)
        updates = jax.tree.map(lambda update: state.lr_factor * update, updates)
        params = optax.apply_updates(params, updates)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        new_state = TrainState(
            state.step + 1,
            {"params": params, **new},
            opt_state,
            state.lr_factor,
            _averaged(state, params, ema_decay),
        )
        return new_state, metrics

    return step


def make_validation_step(
    *, model: Any, loss: Any, regions: Regions
) -> Callable[[Any, Batch], dict[str, Array]]:
    """Build `validate(variables, batch)`: loss, voxel counts per region, one picture.

    It returns `loss`, `tp`, `fp` and `fn` of the batch, and what was `predicted` in its
    first sample; `sharding.compile_for` makes it a program.

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
            "predicted": predicted[0],
        }

    return validate


def _across(model: Any, axis_name: str | None) -> Any:
    """The model with its cross-sample statistics taken over `axis_name`."""
    fields = {field.name for field in dataclasses.fields(model)}
    if axis_name is not None and "axis_name" in fields:
        return dataclasses.replace(model, axis_name=axis_name)
    return model


def _parts(tree: Any, num_parts: int) -> Any:
    """An axis of parts in front; each device keeps the samples that it holds."""

    def split(x: Array) -> Array:
        return x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, tree)


def _over_parts(
    gradient: Callable[..., Any], params: Any, fixed: Any, parts: Any, keys: Array
) -> tuple[tuple[Array, Any], Any]:
    """Mean loss and gradient over the parts of a batch, the last model statistics."""

    def add(carried: Any, part: Any) -> tuple[Any, None]:
        total, fixed, sums = carried
        (image, labels), key = part
        (value, fixed), grads = gradient(params, fixed, image, labels, key)
        return (total + value, fixed, jax.tree.map(jnp.add, sums, grads)), None

    start = (jnp.zeros(()), fixed, jax.tree.map(jnp.zeros_like, params))
    (total, fixed, sums), _ = jax.lax.scan(add, start, (parts, keys))
    count = keys.shape[0]
    return (total / count, fixed), jax.tree.map(lambda x: x / count, sums)


def _averaged(state: TrainState, params: Any, decay: float | None) -> Any:
    """The running mean after an update; the first ones weigh more."""
    if decay is None or state.ema is None:
        return state.ema
    # TensorFlow's ExponentialMovingAverage with num_updates
    keep = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    return jax.tree.map(lambda m, p: keep * m + (1 - keep) * p, state.ema, params)
