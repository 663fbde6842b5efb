"""The disk space that temporary files of this process may use."""

import os
from pathlib import Path
from typing import Final

from worker.media.errors import NoDiskSpace

_MIN_FREE_BYTES: Final = 256 * 1024 * 1024


class Scratch:
    """A folder for temporary files, and what they may occupy together. Used by one event loop.

    Args:
        folder: exists, and is empty or contains only files of this object.
        max_bytes: limit of all files together.
        min_free_bytes: what must stay free on the file system.
    """

    def __init__(self, folder: Path, max_bytes: int, min_free_bytes: int = _MIN_FREE_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._reserved = 0

    @property
    def reserved_bytes(self) -> int:
        """What the files occupy."""
        return self._reserved

    @property
    def available_bytes(self) -> int:
        """What may be written now."""
        state = os.statvfs(self.folder)
        free = state.f_bavail * state.f_frsize - self._min_free_bytes
        return max(0, min(free, self._max_bytes - self._reserved))

    def reserve(self, size: int) -> None:
        """Counts bytes that are about to be written.

        Raises:
            NoDiskSpace: the limit or the disk does not allow them.
        """
        if size > self.available_bytes:
            raise NoDiskSpace("there is not enough disk space for temporary files")
        self._reserved += size

    def count(self, size: int) -> None:
        """Counts bytes that have been written; see `check`."""
        self._reserved += size

    def release(self, size: int) -> None:
        """Counts bytes that have been deleted."""
        self._reserved -= size

    def check(self) -> None:
        """Raises NoDiskSpace if the limit or what must stay free has been exceeded."""
        state = os.statvfs(self.folder)
        if self._reserved > self._max_bytes or state.f_bavail * state.f_frsize < self._min_free_bytes:
            raise NoDiskSpace("there is not enough disk space for temporary files")
