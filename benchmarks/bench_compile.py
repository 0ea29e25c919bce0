"""Compiling the training step: from nothing, and with the executable in the cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import nets
from benchmarks.timing import Work

PEERS = ("flax",)


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A network, and the state of the cache.

    Attributes:
      net: the network.
      environment: of the process: whether there is a cache.
    """

    net: nets.Net
    environment: Mapping[str, str]


STATES = {
    "cold": {"JAX_ENABLE_COMPILATION_CACHE": "false"},
    "warm": {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
}


def _cases(found: Mapping[str, nets.Net]) -> dict[str, Compiled]:
    return {
        f"{net.name} {state}": Compiled(net=net, environment=environment)
        for net in found.values()
        for state, environment in STATES.items()
    }


CASES, LARGE = _cases(nets.ALL), _cases(nets.LARGE)
QUICK = {"tiny": Compiled(net=nets.TINY, environment={})}


def ours(case: Compiled, *, scratch: Path) -> Work:
    from benchmarks.programs import model_of

    return compiling(case, model_of(case.net))


def compiling(case: Compiled, model: Any, *, num_devices: int | None = None) -> Work:
    """Trace, lower and compile; the call that warms up also fills the cache."""
    import jax

    from benchmarks.programs import count, placed_step

    step, state, batch = placed_step(case.net, model, num_devices=num_devices)
    return Work(
        before=jax.clear_caches,
        call=lambda: step.lower(state, batch).compile(),
        facts={"num_params": count(state.variables["params"])},
    )
