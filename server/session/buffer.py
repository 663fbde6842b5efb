"""The audio that utterances in progress are cut from."""

import numpy as np

from server.audio.decoder import Samples


class AudioBuffer:
    """A window onto a stream: grows at the end, is let go of at the start. Positions count from the stream's start."""

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
        """A copy of samples `start` to `end`, the latter excluded, clipped to what is held."""
        return self._samples[max(start - self._first, 0) : min(end - self._first, self._length)].copy()

    def discard_before(self, position: int) -> None:
        """Lets go of the samples before `position`."""
        # Moving the rest costs, so it is done when it frees at least half of what is held.
        reconciliation = min(position - self._first, self._length)
        if reconciliation < self._length // 2 or reconciliation <= 0:
            return
        rest = self._length - reconciliation
        self._samples[:rest] = self._samples[reconciliation : self._length].copy()
        self._first += reconciliation
        self._length = rest
