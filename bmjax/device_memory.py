"""Says in words what a device that runs out of memory needs (fault 51)."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


class DeviceMemoryError(RuntimeError):
    """The device has too little memory for what it is to compute."""


# XLA reports a convolution without room for its workspace as one without an algorithm
_SIGNS = ("RESOURCE_EXHAUSTED", "out of memory", "cudnn convolution algorithm")


@contextmanager
def memory_explained(what: str, remedy: str) -> Iterator[None]:
    """Turn XLA's error into one that says what to do.

    Args:
      what: is computed, such as `a training step`.
      remedy: in the imperative.

    Raises:
      DeviceMemoryError: in place of XLA's error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not any(sign.lower() in str(error).lower() for sign in _SIGNS):
            raise
        raise DeviceMemoryError(
            f"the device has too little memory for {what}; {remedy}, or see whether "
            "another process holds the device. The device said: "
            f"{str(error).splitlines()[0]}"
        ) from error
