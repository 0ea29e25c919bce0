"""One thing after the other on a CPU, where a condition then decides what is computed
and what is between stays in the cache; all at once on an accelerator.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax


def each(function: Callable[..., Any], *arrays: Array) -> Any:
    """`function` of each element along the first axis of all arrays, stacked."""
    return lax.platform_dependent(
        *arrays,
        cpu=lambda *arrays: lax.map(lambda own: function(*own), arrays),
        default=jax.vmap(function),
    )
