"""What compilation leaves: a cache of programs, private to the user, and no memory.

Whoever can write to the cache can run code as its reader, so a folder that another user
owns or may write to is refused. Programs for a CPU use its features, so each kind of
CPU has a folder of its own.
"""

import ctypes
import hashlib
import os
import stat
from pathlib import Path

import jax

MIN_COMPILE_S = 0.5
_COMPILED = "/jax/core/compile/backend_compile_duration"


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/bmjax/xla-<hash of the CPU's features>`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "bmjax" / f"xla-{_cpu_digest()}"


def use_cache(folder: Path | None = None) -> Path | None:
    """Keep compiled programs in a folder from now on; None where that is impossible.

    Args:
      folder: made if absent; `cache_folder()` if None.

    Raises:
      ValueError: another user owns the folder or may write to it.
    """
    folder = folder or cache_folder()
    try:
        # the folder above, too: who can write there can put another one in its place
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return None  # a read-only home costs compile time, nothing else
    facts = folder.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValueError(
            f"{folder}: the cache of compiled programs is owned by user {facts.st_uid} "
            f"with mode {stat.S_IMODE(facts.st_mode):o}; expected user {os.getuid()} "
            f"and mode 700, since its files are run. Remove it, or `chmod 700 {folder}`"
        )
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_S)
    return folder


def return_memory() -> None:
    """Give the compiler's memory back to the system after each compilation.

    Compiling a training step takes a gigabyte in many small pieces, which glibc would
    keep while the step itself needs room. Elsewhere than under glibc nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def after(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED and duration_secs > MIN_COMPILE_S:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)


def cpu_features() -> tuple[str, tuple[str, ...]]:
    """The CPU's name, and those of its features that XLA compiles for."""
    facts = dict(line.split(":", 1) for line in _cpu_kinds())
    by_name = {name.strip(): value.strip() for name, value in facts.items()}
    wanted = ("sse4_2", "avx", "fma", "f16c", "amx", "asimd", "sve", "bf16")
    flags = by_name.get("flags", by_name.get("Features", "")).split()
    return (
        by_name.get("model name", ""),
        tuple(sorted(flag for flag in flags if flag.startswith(wanted))),
    )


def _cpu_digest() -> str:
    kinds = _cpu_kinds()
    return hashlib.blake2b("\n".join(sorted(kinds)).encode(), digest_size=6).hexdigest()


def _cpu_kinds() -> set[str]:
    """What the system says about its processors, each different line once."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    return {line for line in lines if line.startswith(("model name", "flags", "Feat"))}
