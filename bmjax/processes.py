"""Several processes as one program: joining, agreeing, and noticing that one is gone.

SLURM or a shell starts the processes; JAX's own runtime (jax.distributed) connects
them: NCCL between GPUs, gloo between CPUs. A process that is not heard of for
`HEARTBEAT_S` counts as dead, and ends the others.
"""

import atexit
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT_S = 20
# the first process may predict the held-out cases while the others wait to leave
_LEAVE_S = 24 * 3600
# waits for a line that never comes if the process is ended from outside of Python,
# as the runtime does where it hears of a loss before the work itself fails
_LAST_WORDS = 'read -r line || printf "%s\\n" "$0" >&2'


class PeerLostError(RuntimeError):
    """Another process of the run is gone."""


def join(
    coordinator: str, *, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Make this process one of several that train together.

    Args:
      coordinator: `HOST:PORT` of the first process, or `auto` where SLURM, MPI or
        Kubernetes tells JAX who is who.
      num_processes: how many there are; not with `auto`.
      process_id: which of them this is, from 0; not with `auto`.

    Raises:
      ValueError: too little or too much is given.
    """
    is_auto = coordinator == "auto"
    given = [number is not None for number in (num_processes, process_id)]
    if any(given) if is_auto else not all(given):
        raise ValueError(
            "--coordinator HOST:PORT needs --num-processes and --process-id; "
            "--coordinator auto takes neither"
        )
    jax.distributed.initialize(
        None if is_auto else coordinator,
        num_processes=num_processes,
        process_id=process_id,
        heartbeat_timeout_seconds=HEARTBEAT_S,
        shutdown_timeout_seconds=_LEAVE_S,
    )
    _leave_last_words()


def _leave_last_words() -> None:
    """Have somebody else speak if the runtime ends this process without asking."""
    speaker = subprocess.Popen(
        ["sh", "-c", _LAST_WORDS, f"bmjax: {_lost()}"], stdin=subprocess.PIPE
    )

    def take_back() -> None:
        speaker.communicate(b"well\n")

    atexit.register(take_back)


def _lost() -> str:
    return (
        f"process {jax.process_index()} of {jax.process_count()} lost another one, or "
        "was itself ended: see what that one said last; the same command goes on from "
        "the last checkpoint, with any number of processes."
    )


def leave() -> None:
    """Wait for the other processes and part from them."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this is the process that writes and speaks."""
    return jax.process_index() == 0


def is_any(flag: bool) -> bool:
    """Whether the flag is set in any process; every process must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def all_values(value: int) -> list[int]:
    """The value of each process; every process must ask."""
    if jax.process_count() == 1:
        return [value]
    found = multihost_utils.process_allgather(np.asarray(value))
    return [int(each) for each in np.ravel(found)]


@contextmanager
def loss_explained() -> Iterator[None]:
    """Say in words that another process broke off what all do together.

    Raises:
      PeerLostError: the runtime failed while several processes were at work.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).splitlines()[0]
        raise PeerLostError(f"{_lost()} The runtime said: {reason}") from error
