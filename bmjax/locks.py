"""One process at a time in a folder, and by name the one that is in it.

The system frees the lock of a process that ends, however it ends; what such a process
wrote into the lock's file is then only a leftover. Some cluster file systems know no
locks. There the file itself is the lock, and is a leftover once its process is gone,
which can be seen on the same host alone.
"""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

NAME = ".lock"
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class HeldError(ValueError):
    """Another process is at work in the folder."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who is in a folder.

    Attributes:
      doing: what for, such as `training`.
      pid: its process.
      host: the machine, or the container, that the pid is of.
      boot: changes when that machine starts again; empty where it is not known.
      born: when the process began, in the machine's own count, which tells it from a
        later one of the same pid; empty where it is not known.
      since: date and time with the zone.
    """

    doing: str
    pid: int
    host: str
    boot: str
    born: str
    since: str

    @classmethod
    def this(cls, doing: str) -> "Holder":
        """The process that calls."""
        return cls(
            doing=doing,
            pid=os.getpid(),
            host=socket.gethostname(),
            boot=_boot(),
            born=_born(os.getpid()),
            since=datetime.now(UTC).astimezone().isoformat(" ", "seconds"),
        )

    def is_gone(self) -> bool:
        """Whether it is known to have ended: of another host nothing is known."""
        if self.host != socket.gethostname():
            return False
        if self.boot != _boot():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's, and alive
        return _born(self.pid) != self.born

    def __str__(self) -> str:
        who = f"process {self.pid} on {self.host}"
        return f"{who} has been {self.doing} since {self.since}"


@contextmanager
def held(
    folder: Path, *, doing: str, otherwise: str, name: str = NAME
) -> Iterator[None]:
    """Keep every other process that asks for the same folder out of it.

    Args:
      folder: made if it is not there, and removed again if nothing came into it.
      doing: what for, to tell others.
      otherwise: what they can do beside waiting, such as `choose another --out`.
      name: of the lock's file, which is removed at the end.

    Raises:
      HeldError: names the process that holds it.
      OSError: the folder cannot be written to.
    """
    path, mine = folder / name, Holder.this(doing)
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(path, mine, otherwise)
    except OSError as error:
        raise OSError(
            f"{folder}: cannot be written to ({error.strerror or error}); {otherwise}, "
            "or permit writing"
        ) from error
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if is_new:
                with suppress(OSError):
                    folder.rmdir()  # where nothing was left in it


def _locked(path: Path, mine: Holder, otherwise: str) -> IO[str]:
    """The lock's file, open and ours, with our name in it."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise _refusal(path, _holder(path), otherwise) from error
        except OSError as error:
            file.close()
            if error.errno not in _UNKNOWN:
                raise
            return _created(path, mine, otherwise)
        if _is_at(file, path):
            file.truncate(0)
            file.write(_text(mine))
            file.flush()
            return file
        file.close()  # its holder removed it just before we had it


def _created(path: Path, mine: Holder, otherwise: str) -> IO[str]:
    """The lock's file where only its being there counts."""
    if _holder(path) is None:
        _remove(path, None)  # made by the attempt to lock it
    own = path.with_name(f"{path.name}.{mine.host}-{mine.pid}")
    own.write_text(_text(mine))
    try:
        while True:
            who = _holder(path)
            is_left = who is not None and who.is_gone()
            if is_left:
                _remove(path, who)
            try:
                os.link(own, path)  # of two, one succeeds
            except FileExistsError as error:
                if not is_left:
                    raise _refusal(path, who, otherwise) from error
            else:
                return path.open()
    finally:
        own.unlink()


def _remove(path: Path, left: Holder | None) -> None:
    """Remove a leftover, unless another process did so and has the lock by now."""
    aside = path.with_name(f"{path.name}.{os.getpid()}-left")
    with suppress(FileNotFoundError):
        os.replace(path, aside)
        if _holder(aside) != left:
            os.link(aside, path)
        aside.unlink()


def _refusal(path: Path, who: Holder | None, otherwise: str) -> HeldError:
    far = ""
    if who is None or who.host != socket.gethostname():
        far = f"; if it is no longer alive, remove {path}"
    return HeldError(
        f"{path.parent}: {who or 'another process is at work'} in this folder; wait "
        f"for its end, stop it, or {otherwise}{far}"
    )


def _holder(path: Path) -> Holder | None:
    """What the lock's file says; None where it says nothing."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _text(holder: Holder) -> str:
    return json.dumps(asdict(holder))


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.is_file() else ""


def _born(pid: int) -> str:
    """Clock ticks from the machine's start to the process's; empty if not known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # the second field is a name in brackets, which may hold anything
    return text.rpartition(")")[2].split()[19]
