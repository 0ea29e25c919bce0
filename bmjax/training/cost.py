"""What training costs: time of a step, of it the wait for data, and memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax


class Meter:
    """Times steps since the last record.

    Args:
      batch_size: samples of a batch, over all devices and processes [images].
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.restart()

    def restart(self) -> None:
        """Forget what was timed."""
        self._begin, self._waited, self._num_steps = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what happens within as waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def step(self) -> None:
        """Count one step."""
        self._num_steps += 1

    def read(self) -> dict[str, float]:
        """Means per step since the last restart, and the memory; then restart."""
        count = max(self._num_steps, 1)
        step_ms = 1e3 * (time.perf_counter() - self._begin) / count
        found = {
            "step_ms": step_ms,
            "wait_ms": 1e3 * self._waited / count,
            "images_per_s": 1e3 * self._batch_size / step_ms,
            **memory(),
        }
        self.restart()
        return found


def memory() -> dict[str, float]:
    """Largest memory so far [MiB]: of this process, and of its fullest device.

    The device's is absent where JAX does not tell it, as on a CPU.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts in KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {"host_mib": peak * unit / 2**20}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    if peaks:
        found["device_mib"] = max(peaks) / 2**20
    return found
