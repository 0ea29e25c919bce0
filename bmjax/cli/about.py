"""What a bug report needs: versions, machine, devices, and what changes their work."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import bmjax
from bmjax.compilation import cache_folder, cpu_features
from bmjax.data.estimate import free_memory_bytes
from bmjax.data.parallel import default_workers
from bmjax.sharding import require_platform

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy"),
    *("nibabel", "tyro", "jax-cuda12-plugin", "jax-cuda13-plugin"),
)
# they change what JAX and XLA do
_VARIABLES = ("JAX_", "XLA_", "CUDA_VISIBLE_DEVICES", "NCCL_", "NVIDIA_TF32_OVERRIDE")


def about(*, has_devices: bool) -> str:
    """The version, and with devices all of the above; asking for them starts JAX.

    Args:
      has_devices: whether more than the version is wanted.
    """
    own = f"bmjax {bmjax.__version__}"
    if not has_devices:
        return own
    free = free_memory_bytes()
    memory = "unknown" if free is None else f"{free / 2**30:.1f} GiB free"
    name, features = cpu_features()
    lines = [own, f"python {platform.python_version()} at {sys.executable}"]
    lines += [f"{package} {_version(package)}" for package in PACKAGES]
    lines += [
        f"platform {platform.platform()} {platform.machine()}",
        f"cpu {name or 'unknown'}: {' '.join(features) or 'features unknown'}",
        f"processors {default_workers(sys.maxsize)} usable of {os.cpu_count()}",
        f"memory {memory}",
        *_devices(),
        f"compile cache {_cache()}",
    ]
    lines += [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES)
    ]
    return "\n".join(lines)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    """One line for each device, or why there is none."""
    try:
        devices = require_platform()
    except RuntimeError as error:
        return [f"devices none: {error}"]
    return [
        f"device {device.id}: {device.platform} {device.device_kind}{_limit(device)}"
        for device in devices
    ]


def _limit(device: object) -> str:
    facts = getattr(device, "memory_stats", dict)() or {}
    limit = facts.get("bytes_limit")
    return f", {limit / 2**30:.1f} GiB" if limit else ""


def _cache() -> str:
    folder = cache_folder()
    if not folder.is_dir():
        return f"{folder} (not there yet)"
    files = [path for path in folder.iterdir() if path.is_file()]
    used = sum(path.stat().st_size for path in files)
    return f"{folder} ({len(files)} files, {used / 2**20:.0f} MiB)"
