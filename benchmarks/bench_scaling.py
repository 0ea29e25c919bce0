"""How the training step grows with patch, batch, width, cores and virtual devices.

Virtual devices share the cores of one CPU: two keep them busier than one does, more
show what spreading a batch costs, not what it gains.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

from benchmarks import nets
from benchmarks.timing import Work, num_threads

PEERS = ()


@dataclass(frozen=True, kw_only=True)
class Point:
    """One size of a series.

    Attributes:
      series: what grows.
      x: how large it is.
      net: the network of this size.
      threads: cores; None takes those of the run.
      num_devices: virtual devices that share the batch.
      environment: of the process.
    """

    series: str
    x: int
    net: nets.Net
    threads: int | None = None
    num_devices: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


_BASE = replace(nets.PLAIN, batch_size=1, features=(16, 32, 64, 128))


def _points() -> dict[str, Point]:
    points = []
    for n in (32, 48, 64, 96, 128):
        net = replace(_BASE, patch_size=(n,) * 3)
        points.append(Point(series="voxels", x=prod(net.patch_size), net=net))
    small = replace(_BASE, patch_size=(32,) * 3)
    for n in (1, 2, 4, 8):
        points.append(Point(series="batch", x=n, net=replace(small, batch_size=n)))
        net = replace(small, batch_size=2, features=(8 * n, 16 * n, 32 * n))
        points.append(Point(series="width", x=8 * n, net=net))
        points.append(_spread("devices", n, replace(small, batch_size=8)))
    points += [_spread("devices, 64x64x64 b2", n, nets.PLAIN) for n in (1, 2)]
    cores = {1 << i for i in range(num_threads().bit_length())} | {num_threads()}
    points += [
        Point(series="threads", x=n, net=replace(_BASE, batch_size=2), threads=n)
        for n in sorted(cores)
    ]
    return {f"{p.series} {p.x}": p for p in points}


def _spread(series: str, num_devices: int, net: nets.Net) -> Point:
    flag = f"--xla_force_host_platform_device_count={num_devices}"
    return Point(
        series=series,
        x=num_devices,
        net=net,
        num_devices=num_devices,
        environment={"XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu"},
    )


CASES = _points()
QUICK = {"devices 2": _spread("devices", 2, nets.TINY)}


def ours(point: Point, *, scratch: Path) -> Work:
    from benchmarks.programs import train_step

    work = train_step(point.net, num_devices=point.num_devices)
    facts = {**work.facts, "series": point.series, "x": point.x}
    return replace(work, facts=facts)
