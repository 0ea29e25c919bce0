"""Augmentation in pure JAX, on the device, by explicit key."""

from bmjax.augment.policy import AugmentPolicy

__all__ = ["AugmentPolicy"]
