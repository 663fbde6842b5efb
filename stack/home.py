"""The folder in which a stack keeps everything, and the lock that lets one stack use it at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.errors import CannotStart

_LEAST_FREE_BYTES = 500 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Home:
    """Places below DALSTON_HOME."""

    path: Path

    @property
    def spool(self) -> Path:
        """Audio on its way to S3."""
        return self.path / "spool"

    def data(self, part: str) -> Path:
        """What a part keeps for the next time."""
        return self.path / part

    def log(self, part: str) -> Path:
        """What a part says; that of the start before is beside it, ending in `.1`."""
        return self.path / "logs" / f"{part}.log"


@contextmanager
def occupied(path: Path) -> Iterator[Home]:
    """Makes the folder if need be and keeps other stacks out of it while the block runs.

    Raises:
        CannotStart: it cannot be written to, is full, or another stack uses it.
    """
    path = path.expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(
            f"cannot write to {path}: {error.strerror}. Set DALSTON_HOME to a folder that can be written to."
        ) from error
    try:
        _lock(handle, path)
        _check_space(path)
        _set_logs_aside(path / "logs")
        yield Home(path)
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 20, 0).decode().strip() or "unknown"
        raise CannotStart(
            f"another stack (process {owner}) is running on {path}. Stop it, or set DALSTON_HOME to another folder."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)


def _check_space(path: Path) -> None:
    free = shutil.disk_usage(path).free
    if free < _LEAST_FREE_BYTES:
        raise CannotStart(
            f"only {free // 2**20} MiB are free on the disk of {path}, and {_LEAST_FREE_BYTES // 2**20} are needed. "
            "Free some, or set DALSTON_HOME to a folder on another disk."
        )


def _set_logs_aside(logs: Path) -> None:
    for log in logs.glob("*.log"):
        log.rename(log.with_name(log.name + ".1"))
