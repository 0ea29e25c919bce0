"""Saving a training state so that it survives a crash, and reading it back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.nets import PLAIN, TINY, Net
from benchmarks.timing import Work

PEERS = ("torch-save",)


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A training state on its way to the disk, or back.

    Attributes:
      way: to the disk or from it.
      net: whose parameters and momentum it holds.
    """

    way: Literal["save", "restore"]
    net: Net


CASES = {f"{way} PlainUNet": Moved(way=way, net=PLAIN) for way in ("save", "restore")}
QUICK = {f"{way} tiny": Moved(way=way, net=TINY) for way in ("save", "restore")}


def ours(moved: Moved, *, scratch: Path) -> Work:
    import tempfile

    import jax

    from benchmarks.programs import count, draw_batch, model_of
    from bmjax.checkpoint import Checkpoints
    from bmjax.training import Optimizer, initial_state

    image = draw_batch(moved.net)["image"][:1]
    variables = jax.jit(model_of(moved.net).init)(jax.random.key(0), image)
    state = initial_state(variables, Optimizer().transformation())
    parts = {
        "variables": state.variables,
        "optimizer": {"step": state.step, "opt_state": state.opt_state},
    }
    folder = Path(tempfile.mkdtemp(dir=scratch))
    checkpoints = Checkpoints(folder / "checkpoints")
    steps = iter(range(1, 1_000_000))
    checkpoints.save(0, **parts, meta={})
    calls = {
        "save": lambda: checkpoints.save(next(steps), **parts, meta={}),
        "restore": lambda: checkpoints.restore(0, **parts),
    }
    facts = {"num_params": count(variables["params"])}
    return Work(call=calls[moved.way], facts=facts)
