"""How much of the disk the spool of this process may take."""

import errno
import threading
from typing import Final

from prometheus_client import Gauge

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk says that has no room now and may have some later."""

_spooled = Gauge("dalston_spooled_audio_bytes", "Audio in the spool: the backlog, and what stays to the session's end")


class SpoolBudget:
    """Counts the audio in the spool. Safe to use from any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        """Audio in the spool now."""
        return self._used_bytes

    def take(self, size: int) -> None:
        """Asks for room.

        Raises:
            OSError: there is none, in the words of a full disk.
        """
        with self._lock:
            if self._used_bytes + size > self._limit_bytes:
                raise OSError(errno.EDQUOT, "the spool has taken the room it may take")
            self._add(size)

    def adopt(self, size: int) -> None:
        """Counts what is there already, whether it fits or not."""
        with self._lock:
            self._add(size)

    def give(self, size: int) -> None:
        """Gives room back."""
        with self._lock:
            self._add(-size)

    def _add(self, size: int) -> None:
        self._used_bytes += size
        _spooled.inc(size)
