"""The audio that speech segments are cut from."""

import numpy as np

from server.audio.decoder import Samples


class AudioBuffer:
    """The most recent audio of a stream: appended at the end, discarded at the start. Positions count samples from the
    start of the stream."""

    def __init__(self) -> None:
        self._samples: Samples = np.zeros(1 << 14, np.float32)
        self._first = 0
        self._length = 0

    @property
    def end(self) -> int:
        """The position after the last sample."""
        return self._first + self._length

    def append(self, samples: Samples) -> None:
        needed = self._length + len(samples)
        if needed > len(self._samples):
            grown = np.zeros(max(needed, 2 * len(self._samples)), np.float32)
            grown[: self._length] = self._samples[: self._length]
            self._samples = grown
        self._samples[self._length : needed] = samples
        self._length = needed

    def slice(self, start: int, end: int) -> Samples:
        """A copy of samples `start` to `end`, the latter excluded, clipped to what the buffer holds."""
        return self._samples[max(start - self._first, 0) : min(end - self._first, self._length)].copy()

    def discard_before(self, position: int) -> None:
        """Discards the samples before `position`."""
        # Moving the rest is expensive, so it is done when it frees at least half of the buffer.
        discarded = min(position - self._first, self._length)
        if discarded < self._length // 2 or discarded <= 0:
            return
        rest = self._length - discarded
        self._samples[:rest] = self._samples[discarded : self._length].copy()
        self._first += discarded
        self._length = rest
