"""Memory of the training step: what the compiler plans beside what is measured."""

from dataclasses import replace
from pathlib import Path

from benchmarks import nets
from benchmarks.timing import Work

PEERS = ()
_SAVERS = ({}, {"use_remat": True}, {"dtype": "bfloat16"})
CASES = nets.named(
    *(
        replace(net, **savers)
        for net in (nets.PLAIN, nets.RESENC, nets.SEGRESNET)
        for savers in (*_SAVERS, {"use_remat": True, "dtype": "bfloat16"})
    )
)
QUICK = nets.QUICK
LARGE = {
    net.name: net
    for large in nets.LARGE.values()
    if large.kind != "UNet2D"
    for net in (large, replace(large, use_remat=True))
}


def ours(net: nets.Net, *, scratch: Path) -> Work:
    from benchmarks.programs import train_step

    return train_step(net)
