"""The limit of disk space for the spool of a process."""

import errno
import threading
from typing import Final

from prometheus_client import Gauge

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The errors of a full disk, which may have space again later."""

_spooled = Gauge(
    "dalston_spooled_audio_bytes",
    "Audio in the spool: the backlog, and what is kept until the end of its session",
)


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

    def reserve(self, size: int) -> None:
        """Reserves space.

        Raises:
            OSError: with an error number of FULL, because the limit would be exceeded.
        """
        with self._lock:
            if self._used_bytes + size > self._limit_bytes:
                raise OSError(errno.EDQUOT, "the spool has reached its limit of disk space")
            self._add(size)

    def adopt(self, size: int) -> None:
        """Counts existing audio, even beyond the limit."""
        with self._lock:
            self._add(size)

    def release(self, size: int) -> None:
        """Releases space."""
        with self._lock:
            self._add(-size)

    def _add(self, size: int) -> None:
        self._used_bytes += size
        _spooled.inc(size)
