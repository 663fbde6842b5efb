"""Audio in memory that is not sent yet, or may have to be sent again. Pure."""

from __future__ import annotations


class RetransmissionBuffer:
    """The caller's audio from `start` to `end`. Positions are bytes from the start of the caller's audio."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.start = 0
        """Audio before this position is discarded."""

    @property
    def end(self) -> int:
        """The number of bytes appended so far."""
        return self.start + len(self._bytes)

    @property
    def size(self) -> int:
        """The number of bytes in memory."""
        return len(self._bytes)

    def append(self, audio: bytes) -> None:
        """Appends audio."""
        self._bytes += audio

    def read(self, position: int, most: int) -> bytes:
        """Returns at most `most` bytes from `position` on; none at the end.

        Raises:
            ValueError: the position is discarded or not reached yet.
        """
        if not self.start <= position <= self.end:
            raise ValueError(f"position {position} is not between {self.start} and {self.end}")
        first = position - self.start
        return bytes(memoryview(self._bytes)[first : first + most])

    def discard_before(self, position: int) -> None:
        """Discards the audio before a position."""
        size = min(position, self.end) - self.start
        if size > 0:
            del self._bytes[:size]
            self.start += size
