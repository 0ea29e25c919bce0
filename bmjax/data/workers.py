"""A process that reads patches: it ends with its parent, and leaves signals to it."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def begin_worker(index: int, count: int) -> None:
    """Called by grain in each new worker process.

    A scheduler, or Ctrl-C, signals every process of a job; the parent then saves and
    ends its workers itself. A parent that was killed cannot do that, so each worker
    watches it: otherwise it would wait, with its memory, for ever.

    Args:
      index: of this worker.
      count: how many there are.
    """
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        watch = threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True)
        watch.start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
