"""Samples of a recording by position.

A part of a recording has the same samples whatever was read before: it is decoded by itself, from a whole second
before its beginning on. At a whole second the sample frames of every rate and the samples of the model coincide. When
the part begins, the downmix and the resampler have forgotten their own beginning.
"""

from typing import Final, Protocol

import numpy as np

from server.audio.decoder import MODEL_RATE, Decoder, Samples
from server.audio.format import AudioFormat, Encoding

_LEAD_SECONDS: Final = 1
_LAG_SECONDS: Final = 1


class Frames(Protocol):
    """A recording in its own encoding. `persistence.worker_service.RecordingFile` is one."""

    @property
    def frames(self) -> int: ...

    async def read(self, first: int, last: int) -> bytes: ...


class SampleReader:
    """Reads a recording as mono 32-bit float at 16 kHz."""

    def __init__(self, file: Frames, audio_format: AudioFormat) -> None:
        self._file = file
        self._format = audio_format
        self.length = file.frames * MODEL_RATE // audio_format.sample_rate
        """Samples at 16 kHz."""

    async def read(self, first: int, last: int) -> Samples:
        """The samples from `first` to the one before `last`, as many as the recording has; shape [n].

        Raises:
            AudioDamaged: the stored audio ends before.
            StorageUnavailable: S3 is unavailable.
        """
        first, last = max(0, first), min(last, self.length)
        if first >= last:
            return np.zeros(0, np.float32)
        if self._is_exact:
            return Decoder(self._format).push(await self._file.read(first, last))
        rate = self._format.sample_rate
        second = max(0, first // MODEL_RATE - _LEAD_SECONDS)
        end = min(self._file.frames, (last // MODEL_RATE + 1 + _LAG_SECONDS) * rate)
        decoder = Decoder(self._format)
        data = await self._file.read(second * rate, end)
        samples = np.concatenate((decoder.push(data), decoder.finish()))
        begin = first - second * MODEL_RATE
        wanted = samples[begin : begin + last - first]
        # The resampler may round the length down.
        return np.pad(wanted, (0, last - first - len(wanted)))

    @property
    def _is_exact(self) -> bool:
        """Whether each sample depends on one sample frame only."""
        return self._format.channels == 1 and self._format.sample_rate == MODEL_RATE


def format_of(encoding: str, sample_rate: int, channels: int) -> AudioFormat:
    """The format of a stored recording."""
    return AudioFormat(Encoding(encoding), sample_rate, channels)
