"""The command `bmjax`, and `python -m bmjax`: large pages first, then the verb."""

import os
import sys
from pathlib import Path

_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLE = "glibc.malloc.hugetlb"
LARGE_PAGES = {"GLIBC_TUNABLES": f"{_TUNABLE}=1"}


def main() -> None:
    """Run one verb and exit with its code."""
    _use_large_pages()
    from bmjax.cli import main as run

    run()


def _use_large_pages() -> None:
    """Start again with glibc's large pages, where Linux gives them only on request.

    A training step on a CPU touches gigabytes of fresh memory, and each page of it
    costs a fault; pages of 2 MiB are few. glibc reads the wish only when a process
    starts. Whoever sets it, even to 0, is left alone.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _TUNABLE in tunables or not _KERNEL_SETTING.is_file():
        return
    if "[madvise]" not in _KERNEL_SETTING.read_text():
        return
    both = filter(None, [tunables, LARGE_PAGES["GLIBC_TUNABLES"]])
    os.environ["GLIBC_TUNABLES"] = ":".join(both)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
