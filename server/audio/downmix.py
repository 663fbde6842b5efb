"""Mixes two channels down to one. Pure.

The mean of two channels has the sound of both, unless they cancel each other out: with an inverted channel, as of a
miswired cable or a stage microphone, nothing of the speech is left. Then the louder channel is used alone.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.audio.format import MAX_CHANNELS

_CANCELLED: Final = 0.1
"""The power of the mean over that of the louder channel below which the channels cancel each other out; if one channel
is silent the ratio is 0.25."""
_AGREEING: Final = 0.2
"""...and above which they no longer do."""
_SWITCH_RATIO: Final = 4.0
"""How many times as powerful the other channel must become to be selected instead."""
_SILENT: Final = 1e-8
"""Power below which the selection stays as it is: 80 dB below full scale."""
_MEMORY_SECONDS: Final = 0.2
"""Time constant of the smoothed powers."""
_BLOCK_SECONDS: Final = 0.05
"""Length of the blocks for which a mix is selected."""
_FADE_SECONDS: Final = 0.01
"""Length of the cross-fade between two mixes, which avoids a click."""

_MEAN: Final = (0.5, 0.5)
_ALONE: Final = ((1.0, 0.0), (0.0, 1.0))

SampleFrames = NDArray[np.float32]
"""Shape [sample frames, 2], full scale 1.0."""


class Downmix:
    """Mixes the two channels of one stream, piece by piece."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._block = max(1, int(sample_rate * _BLOCK_SECONDS))
        self._fade_length = max(1, int(sample_rate * _FADE_SECONDS))
        self._powers = np.zeros(3)  # of the first channel, of the second, of their mean
        self._alone: int | None = None
        self._from = self._to = np.array(_MEAN, np.float32)
        self._faded = self._fade_length

    def push(self, sample_frames: SampleFrames) -> NDArray[np.float32]:
        """Mixes the next sample frames."""
        mixed = np.empty(len(sample_frames), np.float32)
        for at in range(0, len(sample_frames), self._block):
            mixed[at : at + self._block] = self._mix(sample_frames[at : at + self._block])
        return mixed

    def _mix(self, sample_frames: SampleFrames) -> NDArray[np.float32]:
        # Reductions over an axis of length two would take five times as long.
        mean: NDArray[np.float32] = (sample_frames[:, 0] + sample_frames[:, 1]) * np.float32(0.5)
        self._update(sample_frames, mean)
        if self._alone is None and self._faded >= self._fade_length:
            return mean
        steps = np.minimum(self._faded + 1 + np.arange(len(sample_frames)), self._fade_length) / self._fade_length
        self._faded = min(self._faded + len(sample_frames), self._fade_length)
        gains = self._from + (self._to - self._from) * steps.astype(np.float32)[:, np.newaxis]
        mixed: NDArray[np.float32] = sample_frames[:, 0] * gains[:, 0] + sample_frames[:, 1] * gains[:, 1]
        return mixed

    def _update(self, sample_frames: SampleFrames, mean: NDArray[np.float32]) -> None:
        kept = np.exp(-len(sample_frames) / (_MEMORY_SECONDS * self._rate))
        now = np.array([_power(sample_frames[:, 0]), _power(sample_frames[:, 1]), _power(mean)], np.float64)
        self._powers = kept * self._powers + (1 - kept) * now
        if (alone := self._select()) != self._alone:
            done = self._faded / self._fade_length
            self._from = self._from + (self._to - self._from) * np.float32(done)
            self._to = np.array(_MEAN if alone is None else _ALONE[alone], np.float32)
            self._alone, self._faded = alone, 0

    def _select(self) -> int | None:
        """The channel to use alone; None for the mean of both."""
        channels, mean = self._powers[:MAX_CHANNELS], self._powers[MAX_CHANNELS]
        louder = int(channels.argmax())
        if channels[louder] < _SILENT:
            return self._alone
        if mean >= channels[louder] * (_CANCELLED if self._alone is None else _AGREEING):
            return None
        if self._alone is not None and channels[louder] < _SWITCH_RATIO * channels[self._alone]:
            return self._alone
        return louder


def _power(samples: NDArray[np.float32]) -> float:
    return float(np.dot(samples, samples)) / len(samples)
