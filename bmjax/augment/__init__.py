"""Augmentation in pure JAX, on the device, by explicit key.

Its doors are loaded when first touched: the workers that cut patches need `geometry`
alone, which knows no JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bmjax.augment.geometry import Spatial
    from bmjax.augment.lesion import NewLesions
    from bmjax.augment.policy import AugmentPolicy

_DOORS = {
    "AugmentPolicy": "policy",
    "NewLesions": "lesion",
    "Spatial": "geometry",
}
__all__ = ["AugmentPolicy", "NewLesions", "Spatial"]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'bmjax.augment' has no attribute '{name}'")
    return getattr(import_module(f"bmjax.augment.{_DOORS[name]}"), name)
