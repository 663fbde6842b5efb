"""Two channels to one. Pure.

The mean of two channels is what both heard, unless they cancel each other out: a cable with one channel inverted, or a
stage microphone, leaves nothing of what was said. Then the louder channel is taken alone.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.audio.format import MAX_CHANNELS

_CANCELLED: Final = 0.1
"""The mean's power over the louder channel's, below which the channels cancel each other out; one channel alone in a
pair of silent and loud has 0.25."""
_AGREEING: Final = 0.2
"""...and above which they do not any more."""
_MUCH_LOUDER: Final = 4.0
"""How many times as powerful the other channel must become for it to be taken instead."""
_INAUDIBLE: Final = 1e-8
"""A power that decides nothing: 80 dB below full scale."""
_MEMORY_SECONDS: Final = 0.2
"""Time constant of the smoothed powers."""
_BLOCK_SECONDS: Final = 0.05
"""Audio that is judged, and mixed, as one."""
_FADE_SECONDS: Final = 0.01
"""From one mix to another, so that it does not click."""

_MEAN: Final = (0.5, 0.5)
_ALONE: Final = ((1.0, 0.0), (0.0, 1.0))

Frames = NDArray[np.float32]
"""Shape [frames, 2], full scale 1.0."""


class Downmix:
    """One stream's two channels, piece by piece."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._block = max(1, int(sample_rate * _BLOCK_SECONDS))
        self._fade_frames = max(1, int(sample_rate * _FADE_SECONDS))
        self._powers = np.zeros(3)  # of the first channel, of the second, of their mean
        self._alone: int | None = None
        self._from = self._to = np.array(_MEAN, np.float32)
        self._faded = self._fade_frames

    def push(self, frames: Frames) -> NDArray[np.float32]:
        """Mixes the next frames."""
        mixed = np.empty(len(frames), np.float32)
        for at in range(0, len(frames), self._block):
            mixed[at : at + self._block] = self._mix(frames[at : at + self._block])
        return mixed

    def _mix(self, frames: Frames) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = frames.mean(axis=1, dtype=np.float32)
        self._follow(frames, mean)
        if self._alone is None and self._faded >= self._fade_frames:
            return mean
        steps = np.minimum(self._faded + 1 + np.arange(len(frames)), self._fade_frames) / self._fade_frames
        self._faded = min(self._faded + len(frames), self._fade_frames)
        gains = self._from + (self._to - self._from) * steps.astype(np.float32)[:, np.newaxis]
        mixed: NDArray[np.float32] = (frames * gains).sum(axis=1, dtype=np.float32)
        return mixed

    def _follow(self, frames: Frames, mean: NDArray[np.float32]) -> None:
        kept = np.exp(-len(frames) / (_MEMORY_SECONDS * self._rate))
        now = np.array([*np.square(frames).mean(axis=0), np.square(mean).mean()], np.float64)
        self._powers = kept * self._powers + (1 - kept) * now
        if (alone := self._choice()) != self._alone:
            done = self._faded / self._fade_frames
            self._from = self._from + (self._to - self._from) * np.float32(done)
            self._to = np.array(_MEAN if alone is None else _ALONE[alone], np.float32)
            self._alone, self._faded = alone, 0

    def _choice(self) -> int | None:
        """Which channel to take alone; None for the mean of both."""
        channels, mean = self._powers[:MAX_CHANNELS], self._powers[MAX_CHANNELS]
        louder = int(channels.argmax())
        if channels[louder] < _INAUDIBLE:
            return self._alone
        if mean >= channels[louder] * (_CANCELLED if self._alone is None else _AGREEING):
            return None
        if self._alone is not None and channels[louder] < _MUCH_LOUDER * channels[self._alone]:
            return self._alone
        return louder
