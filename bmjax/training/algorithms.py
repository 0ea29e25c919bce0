"""The fastest algorithm of each convolution of a network on this CPU, by timing."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from bmjax import sharding
from bmjax.ops import choices, convolution
from bmjax.ops.choices import ALGORITHMS, PARTS, Call, Choices, Part

_NUM_CALLS = 5
# of the rule's time: below, the clock decides
_WORTHWHILE = 0.95


def time_convolutions(
    model: Any,
    image_shape: Sequence[int],
    mesh: Mesh,
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> Choices:
    """Time each algorithm for each stride-1 convolution of a training step.

    It takes some minutes, and what it finds differs from call to call where two
    algorithms are as fast: keep the result (`Experiment.convolutions`).

    Args:
      model: network.
      image_shape: batch as it passes through the network, space, channels.
      mesh: parts of a CPU that share the batch.
      tell: gets a line for each convolution for which another algorithm than the
        static rule's is faster.

    Raises:
      ValueError: the mesh is no CPU, or has devices of other processes.

    Returns:
      Those convolutions and their algorithms, sorted by name.
    """
    if not sharding.is_cpu(mesh) or mesh.is_multi_process:
        raise ValueError(
            "--time-convolutions chooses among the algorithms of one process on a CPU; "
            "elsewhere the vendor's convolutions are used: leave it out"
        )
    image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    with choices.noting() as calls:
        jax.eval_shape(model.init, jax.random.key(0), image)
    found = []
    for call in sorted(calls):
        for part in PARTS:
            name = call.name(part)
            seconds = _seconds_by_algorithm(call, part, mesh)
            best = min(ALGORITHMS, key=seconds.__getitem__)
            if seconds[best] < _WORTHWHILE * seconds[None]:
                found.append((name, best))
                tell(f"{name}: {best}, {seconds[best] / seconds[None]:.2f} of the rule")
    return tuple(sorted(found))


def _seconds_by_algorithm(
    call: Call, part: Part, mesh: Mesh
) -> dict[str | None, float]:
    """The shortest of some calls of each; None is the static rule."""
    keys = jax.random.split(jax.random.key(0), 3)
    image = jax.random.normal(keys[0], call.image)
    kernel = jax.random.normal(keys[1], call.kernel)
    grads = jax.random.normal(keys[2], (*call.image[:-1], call.kernel[-1]))
    image, grads = sharding.put_batch((image, grads), mesh)
    kernel = sharding.replicate(kernel, mesh)
    work = {
        algorithm: _compiled(call, part, algorithm, (image, kernel, grads))
        for algorithm in (None, *ALGORITHMS)
    }
    seconds = dict.fromkeys(work, float("inf"))
    for _ in range(_NUM_CALLS):  # in turn, since machines slow down and speed up
        for algorithm, run in work.items():
            begin = perf_counter()
            jax.block_until_ready(run(image, kernel, grads))
            seconds[algorithm] = min(seconds[algorithm], perf_counter() - begin)
    return seconds


def _compiled(
    call: Call,
    part: Part,
    algorithm: str | None,
    operands: tuple[Array, Array, Array],
) -> Callable[..., Array]:
    def compute(image: Array, kernel: Array, grads: Array) -> Array:
        if part == "forward":
            return convolution(image, kernel)
        _, gradients = jax.vjp(convolution, image, kernel)
        return gradients(grads)[PARTS.index(part) - 1]

    chosen = () if algorithm is None else ((call.name(part), algorithm),)
    with choices.using(chosen):
        return jax.jit(compute).lower(*operands).compile()
