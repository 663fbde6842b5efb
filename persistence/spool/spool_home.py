"""The directory of a process in the spool, and the directories of dead processes.

    {spool_dir}/{worker_id}/lock         held by the process that owns the directory, as long as it lives
    {spool_dir}/{worker_id}/sess_...     its sessions

The kernel releases the lock when the process ends, however it ends. A directory whose lock is free is taken over; a
process never touches the sessions of another that is alive.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from persistence.errors import SpoolInUse
from persistence.session_values import SessionStart
from persistence.spool.budget import SpoolBudget
from persistence.spool.session_spool import SessionSpool

_LOCK = "lock"


class SpoolHome:
    """The locked directory of a process."""

    def __init__(self, directory: Path, lock: int, budget: SpoolBudget) -> None:
        self._directory = directory
        self._lock = lock
        self.budget = budget
        """Counts the audio of all homes of this process."""

    @property
    def worker_id(self) -> str:
        """The process that created the directory."""
        return self._directory.name

    @classmethod
    def open(cls, spool_dir: Path, worker_id: str, budget: SpoolBudget | None = None) -> "SpoolHome":
        """Creates or takes over the directory of `worker_id`. Waits for the disk.

        Raises:
            SpoolInUse: another running process has it.
            OSError: the disk is full or broken.
        """
        directory = spool_dir / worker_id
        while True:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(directory)
            if lock is not None:
                return cls(directory, lock, budget or SpoolBudget(sys.maxsize))
            if directory.exists():
                raise SpoolInUse(worker_id, directory)

    @classmethod
    def take_over(cls, spool_dir: Path, budget: SpoolBudget | None = None) -> Iterator["SpoolHome"]:
        """The directories of dead processes, each locked. Waits for the disk."""
        for directory in sorted(spool_dir.iterdir()):
            lock = _lock(directory) if directory.is_dir() else None
            if lock is not None:
                yield cls(directory, lock, budget or SpoolBudget(sys.maxsize))

    @classmethod
    def claim(cls, spool_dir: Path, worker_id: str, budget: SpoolBudget) -> "SpoolHome | None":
        """The directory of a dead process, or None where there is none or the process is alive. Waits for the disk."""
        directory = spool_dir / worker_id
        lock = _lock(directory) if directory.is_dir() else None
        return None if lock is None else cls(directory, lock, budget)

    def create(self, start: SessionStart) -> SessionSpool:
        """A new session. Waits for the disk.

        Raises:
            OSError: the disk is full or broken.
        """
        return SessionSpool.create(self._directory, start, self.budget)

    def session_directories(self) -> list[Path]:
        """The directories of its sessions."""
        return sorted(path for path in self._directory.iterdir() if path.is_dir())

    def release(self, *, delete: bool) -> None:
        """Releases the lock, and with `delete` deletes the directory if it holds no session."""
        if self._lock < 0:
            return
        if delete and not self.session_directories():
            (self._directory / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # a process of the same worker id has just begun to use it
                self._directory.rmdir()
        os.close(self._lock)
        self._lock = -1


def _lock(directory: Path) -> int | None:
    """The lock of a directory, or None if another process has it or the directory does not exist."""
    path = directory / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have deleted the file between the two calls: a lock on a deleted file protects nothing.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
