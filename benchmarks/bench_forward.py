"""Inference of each network on one batch of patches."""

from pathlib import Path

from benchmarks import nets
from benchmarks.timing import Work

PEERS = ("torch", "torch-compile", "flax")
CASES, QUICK, LARGE = nets.ALL, nets.QUICK, nets.LARGE


def ours(net: nets.Net, *, scratch: Path) -> Work:
    from benchmarks.programs import forward

    return forward(net)
