"""The directory of one process in the spool, and those that dead processes left.

    {spool_dir}/{worker_id}/lock         held by the process that owns the directory, as long as it lives
    {spool_dir}/{worker_id}/sess_...     its sessions

The kernel drops the lock with the process, however it dies, so a directory whose lock is free belongs to nobody and is
taken over; a live process's sessions are never touched by another.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from persistence.errors import SpoolInUse
from persistence.records import SessionStart
from persistence.spool.budget import SpoolBudget
from persistence.spool.session_spool import SessionSpool

_LOCK = "lock"


class SpoolHome:
    """A process's directory, locked."""

    def __init__(self, directory: Path, lock: int, budget: SpoolBudget) -> None:
        self._directory = directory
        self._lock = lock
        self.budget = budget
        """Counts the audio of all homes that this process has."""

    @property
    def worker_id(self) -> str:
        """The process that made the directory."""
        return self._directory.name

    @classmethod
    def open(cls, spool_dir: Path, worker_id: str, budget: SpoolBudget | None = None) -> "SpoolHome":
        """Makes or takes over the directory of `worker_id`. Waits for the disk.

        Raises:
            SpoolInUse: a living process has it.
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
        """The directories of processes that are gone, each locked from here on. Waits for the disk."""
        for directory in sorted(spool_dir.iterdir()):
            lock = _lock(directory) if directory.is_dir() else None
            if lock is not None:
                yield cls(directory, lock, budget or SpoolBudget(sys.maxsize))

    @classmethod
    def claim(cls, spool_dir: Path, worker_id: str, budget: SpoolBudget) -> "SpoolHome | None":
        """The directory of a process that is gone, or None where it has none here or lives. Waits for the disk."""
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
        """Where its sessions are."""
        return sorted(path for path in self._directory.iterdir() if path.is_dir())

    def release(self, *, delete: bool) -> None:
        """Gives the lock back, and removes the directory if asked to and it holds no session."""
        if self._lock < 0:
            return
        if delete and not self.session_directories():
            (self._directory / _LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # a process of the same name has just begun to use it
                self._directory.rmdir()
        os.close(self._lock)
        self._lock = -1


def _lock(directory: Path) -> int | None:
    """The lock of a directory, or None if another process has it or the directory is gone."""
    path = directory / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have removed the file between the two calls: a lock on that guards nothing.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
