"""Folds of a small set: one after the other, in one vmapped step, or on a mesh.

Each call updates every fold once. `bmjax train` trains folds apart, and with `--folds`
on the rows of a mesh, here on half of a CPU each; the vmapped step would have to be 1.2
times as fast to be worth a third way.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks import nets
from benchmarks.timing import Work

PEERS = ()
NUM_FOLDS = 5
NUM_ROWS = 2  # as many as a CPU has halves


@dataclass(frozen=True, kw_only=True)
class Folds:
    """One way to train the folds.

    Attributes:
      net: of each fold.
      way: how they share the devices.
      num_folds: how many.
    """

    net: nets.Net
    way: Literal["apart", "vmapped", "on a mesh"]
    num_folds: int


_SMALL = replace(
    nets.PLAIN, patch_size=(32,) * 3, batch_size=2, features=(8, 16, 32, 64)
)


def _ways(net: nets.Net) -> dict[str, Folds]:
    width = net.features[0]
    five = {
        f"{width} features, {net.name}, {way}": Folds(
            net=net, way=way, num_folds=NUM_FOLDS
        )
        for way in ("apart", "vmapped")
    }
    two = {
        f"{width} features, {net.name}, two {way}": Folds(
            net=net, way=way, num_folds=NUM_ROWS
        )
        for way in ("apart", "on a mesh")
    }
    return five | two


CASES = {
    name: folds
    for features in (8, 16, 32)
    for name, folds in _ways(
        replace(_SMALL, features=tuple(features << i for i in range(4)))
    ).items()
}
QUICK = _ways(nets.TINY)


def ours(folds: Folds, *, scratch: Path) -> Work:
    from benchmarks import programs

    if folds.way == "vmapped":
        return programs.vmapped_train_step(folds.net, folds.num_folds)
    if folds.way == "on a mesh":
        return programs.side_by_side_train_step(folds.net, folds.num_folds)
    work = programs.train_step(folds.net)

    def call() -> None:
        for _ in range(folds.num_folds):
            work.call()

    gflop = None if work.gflop is None else folds.num_folds * work.gflop
    return replace(work, call=call, gflop=gflop)
