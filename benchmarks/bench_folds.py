"""Five folds of a small set: one after the other, or all in one vmapped step.

Each call updates every fold once. `bmjax` trains folds apart; the vmapped step would
have to be 1.2 times as fast to be worth a second way of training.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import nets
from benchmarks.timing import Work

PEERS = ()
NUM_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Folds:
    """One way to train the folds.

    Attributes:
      net: of each fold.
      is_vmapped: all folds in one program.
    """

    net: nets.Net
    is_vmapped: bool


_SMALL = replace(
    nets.PLAIN, patch_size=(32,) * 3, batch_size=2, features=(8, 16, 32, 64)
)


def _both(net: nets.Net) -> dict[str, Folds]:
    width = net.features[0]
    return {
        f"{width} features, {net.name}, {way}": Folds(net=net, is_vmapped=is_vmapped)
        for way, is_vmapped in (("apart", False), ("vmapped", True))
    }


CASES = {
    name: folds
    for features in (8, 16, 32)
    for name, folds in _both(
        replace(_SMALL, features=tuple(features << i for i in range(4)))
    ).items()
}
QUICK = _both(nets.TINY)


def ours(folds: Folds, *, scratch: Path) -> Work:
    from benchmarks.programs import train_step, vmapped_train_step

    if folds.is_vmapped:
        return vmapped_train_step(folds.net, NUM_FOLDS)
    work = train_step(folds.net)

    def call() -> None:
        for _ in range(NUM_FOLDS):
            work.call()

    gflop = None if work.gflop is None else NUM_FOLDS * work.gflop
    return replace(work, call=call, gflop=gflop)
