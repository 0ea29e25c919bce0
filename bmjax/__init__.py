"""Brain-metastasis segmentation on multi-modal MRI, in JAX.

Importing this package is cheap: each door and each room is loaded when first touched.
"""

import sys
from importlib import import_module
from multiprocessing import current_process
from typing import Any

__version__ = "0.1.0"

# grain looks for orbax when it is imported; its worker processes have no use for it
if current_process().name.startswith("grain-process"):
    sys.modules.setdefault("orbax", None)  # pyright: ignore[reportArgumentType]

_DOORS = {
    "Experiment": "experiment",
    "load": "experiment",
    "check": "data.check",
    "plan": "preparation",
    "prepare": "preparation",
    "train": "workflow",
    "train_folds": "workflow",
    "preview": "workflow",
    "predict": "prediction",
    "explain": "explanation",
    "evaluate": "evaluation",
    "track": "tracking",
    "graft": "surgery.graft",
}
_ROOMS = (
    *("ops", "models", "losses", "augment", "metrics", "surgery", "planning"),
    *("data", "training", "inference", "tracking", "report", "study"),
)
__all__ = [*_DOORS, *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return getattr(import_module(f"bmjax.{_DOORS[name]}"), name)
    if name in _ROOMS:
        return import_module(f"bmjax.{name}")
    raise AttributeError(f"module 'bmjax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
