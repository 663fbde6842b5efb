"""Audio in memory: what is still to be sent, and what may have to be sent again. Pure."""

from __future__ import annotations


class RetransmissionBuffer:
    """A piece of the caller's audio, from `start` to `end`: positions are bytes from the first of all."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.start = 0
        """What is before is gone."""

    @property
    def end(self) -> int:
        """How much has come so far."""
        return self.start + len(self._bytes)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self._bytes)

    def append(self, audio: bytes) -> None:
        """Takes what comes next."""
        self._bytes += audio

    def read(self, position: int, most: int) -> bytes:
        """At most so many bytes from `position` on; none at the end.

        Raises:
            ValueError: they are not there any more, or were never.
        """
        if not self.start <= position <= self.end:
            raise ValueError(f"position {position} is not between {self.start} and {self.end}")
        first = position - self.start
        return bytes(memoryview(self._bytes)[first : first + most])

    def release(self, before: int) -> None:
        """Lets go of what is before a position; of nothing where that is gone already."""
        size = min(before, self.end) - self.start
        if size > 0:
            del self._bytes[:size]
            self.start += size
