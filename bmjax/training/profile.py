"""A trace of some steps, for TensorBoard's profiler and Perfetto."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

_WARM_UP = 2  # the first step compiles


def profiled(
    step: Callable[..., Any], *, folder: Path, num_steps: int
) -> Callable[..., Any]:
    """The same step, of which some calls after the first two are traced.

    Args:
      step: compiled.
      folder: where the trace goes.
      num_steps: how many calls.
    """
    calls = 0

    def traced(state: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == _WARM_UP + 1:
            jax.profiler.start_trace(str(folder))
        result = step(state, batch)
        if calls == _WARM_UP + num_steps:
            jax.block_until_ready(result)
            jax.profiler.stop_trace()
        return result

    return traced
