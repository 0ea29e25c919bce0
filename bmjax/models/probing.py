"""Reads and shifts the output of one module in a network, to differentiate by it."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jax import Array

from bmjax.typing import Image, Logits

_ENCODER_STAGE = re.compile(r"encoder/stage_(\d+)")


def layers(
    model: nn.Module, variables: Mapping[str, Any], image: Any
) -> dict[str, tuple[int, ...]]:
    """Modules that return one array, by path, and the shape of it.

    Args:
      model: the network.
      variables: its parameters and statistics, arrays or their shapes.
      image: a batch, array or its shape.
    """
    found: dict[str, tuple[int, ...]] = {}

    def look(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = next_call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(result, "shape"):
            found["/".join(context.module.path)] = tuple(result.shape)
        return result

    with nn.intercept_methods(look):
        jax.eval_shape(model.apply, variables, image)
    return found


def deepest_encoder_stage(
    model: nn.Module, variables: Mapping[str, Any], image: Any
) -> str:
    """Path of the last stage of the encoder.

    Raises:
      ValueError: the network has no `encoder/stage_N`; its layers are listed.
    """
    names = layers(model, variables, image)
    stages = {
        int(m[1]): name for name in names if (m := _ENCODER_STAGE.fullmatch(name))
    }
    if not stages:
        raise ValueError(
            f"{type(model).__name__} has no encoder/stage_N; name one of its layers: "
            f"{', '.join(names)}"
        )
    return stages[max(stages)]


def apply_shifted(
    model: nn.Module,
    variables: Mapping[str, Any],
    image: Image,
    *,
    layer: str,
    shift: Array,
) -> tuple[Logits, Array]:
    """Logits with a shift added to the output of a layer, and that output before it.

    The gradient by a shift of zero is the gradient by the layer's output.

    Args:
      model: the network.
      variables: its parameters and statistics.
      image: a batch.
      layer: path of a module, see `layers`.
      shift: of the shape of its output.

    Raises:
      ValueError: there is no such layer, or it is called more than once.
    """
    seen: list[Array] = []

    def add(next_call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result = next_call(*args, **kwargs)
        path = "/".join(context.module.path)
        if context.method_name != "__call__" or path != layer:
            return result
        seen.append(result)
        return result + shift

    with nn.intercept_methods(add):
        outputs: Any = model.apply(variables, image, is_training=False)
    if len(seen) != 1:
        raise ValueError(f"layer {layer!r} was called {len(seen)} times, expected once")
    return outputs[0], seen[0]
