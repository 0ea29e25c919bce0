"""What there is to run: benchmarks by name, their cases, and who can do them."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from benchmarks.timing import Work
from bmjax.__main__ import LARGE_PAGES

Size = Literal["quick", "full", "large"]
OURS = "bmjax"
NAMES = (
    *("blocks", "forward", "step", "sliding", "preprocess", "input", "augment"),
    *("metrics", "checkpoint", "scaling", "folds", "memory", "compile"),
)

# glibc gives large buffers back at once and fetches zeroed pages for the next; with
# these it keeps them, which makes PyTorch a quarter faster on a CPU.
KEEP_PAGES = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
}


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Someone else who does the same work, in `peers/<module>.py`.

    Attributes:
      module: its file, with one function for each benchmark it takes part in.
      packages: what has to be importable.
      settings: how it can be run, by name; the first is what a user gets.
      is_foreign: needs no package of ours, so may live in another Python.
    """

    module: str
    packages: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]]
    is_foreign: bool = True


def _pages(*names: str) -> dict[str, Mapping[str, str]]:
    """Each setting in a plain environment and in two that keep their pages."""
    plain = {name: {} for name in names}
    kept = {f"{name}+malloc": KEEP_PAGES for name in names}
    return plain | kept | {f"{name}+pages": KEEP_PAGES | LARGE_PAGES for name in names}


_NETS = ("torch", "dynamic_network_architectures", "monai", "nnunetv2")
PEERS = {
    "torch": Peer(
        module="torch", packages=_NETS, settings=_pages("contiguous", "channels_last")
    ),
    "torch-compile": Peer(module="torch", packages=_NETS, settings=_pages("compiled")),
    "flax": Peer(
        module="flax", packages=("flax",), settings={"stock": {}}, is_foreign=False
    ),
    "monai": Peer(module="monai", packages=_NETS, settings=_pages("default")),
    "nnunet": Peer(module="nnunet", packages=_NETS, settings=_pages("default")),
    "scipy": Peer(module="scipy", packages=("scipy",), settings={"default": {}}),
    "oracles": Peer(
        module="oracles",
        packages=("surface_distance", "brats_evaluation", "panoptica"),
        settings={"default": {}},
    ),
    "torch-save": Peer(module="torch_save", packages=_NETS, settings={"zip": {}}),
}


def bench(name: str) -> ModuleType:
    """The module of a benchmark."""
    return importlib.import_module(f"benchmarks.bench_{name}")


def cases(name: str, size: Size) -> dict[str, Any]:
    """The cases of a benchmark by name; few have large ones."""
    return getattr(bench(name), {"full": "CASES"}.get(size, size.upper()), {})


def peers(name: str, case: str, size: Size) -> tuple[str, ...]:
    """Who can do a case; most benchmarks have the same peers for all of theirs."""
    return getattr(cases(name, size)[case], "peers", bench(name).PEERS)


def builder(name: str, impl: str) -> Callable[..., Work]:
    """What makes the work of a benchmark for `bmjax` or for `peer:setting`."""
    if impl == OURS:
        return bench(name).ours
    peer, _, setting = impl.partition(":")
    module = importlib.import_module(f"benchmarks.peers.{PEERS[peer].module}")

    def build(case: Any, *, scratch: Any) -> Work:
        chosen = setting.partition("+")[0]
        return getattr(module, name)(case, setting=chosen, scratch=scratch)

    return build
