"""The waveform of a recording, for drawing it: its least and its greatest sample in every tenth of a second. Pure.

The file has version 2 of the binary format that audiowaveform of the BBC writes and that players read
(https://github.com/bbc/audiowaveform/blob/master/doc/DataFormat.md): a header, then pairs of bytes. One channel has
the extremes of all channels: unlike those of their mean, they do not vanish where one channel is the inverse of
another.
"""

import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.audio.format import AudioFormat, Encoding
from server.audio.g711 import ALAW_TO_PCM, MULAW_TO_PCM

PAIRS_PER_SECOND: Final = 10
_VERSION: Final = 2
_EIGHT_BITS: Final = 1
"""The flag of pairs of bytes."""
_HEADER: Final = struct.Struct("<iIiiIi")
_FULL_SCALE: Final = 128

Extremes = NDArray[np.float32]
"""Of samples, full scale 1.0."""


def frames_per_pair(sample_rate: int) -> int:
    """The sample frames that a pair has the extremes of: a tenth of a second, rounded."""
    return max(1, round(sample_rate / PAIRS_PER_SECOND))


class WaveformBuilder:
    """Makes the waveform of one recording, piece by piece. It keeps two bytes for every tenth of a second."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._frames = frames_per_pair(audio_format.sample_rate)
        self._pair_bytes = self._frames * audio_format.frame_bytes
        self._pairs = bytearray()
        self._rest = b""

    def push(self, data: bytes) -> None:
        """Takes the next bytes of the audio, without the header of its file; any number of them."""
        data = self._rest + data
        whole = len(data) - len(data) % self._pair_bytes
        self._rest = data[whole:]
        if whole:
            self._add(np.frombuffer(data[:whole], _TYPES[self._format.encoding]).reshape(whole // self._pair_bytes, -1))

    def finish(self) -> bytes:
        """The file. A last pair is of less audio than the others."""
        size = len(self._rest) - len(self._rest) % self._format.frame_bytes
        if size:
            self._add(np.frombuffer(self._rest[:size], _TYPES[self._format.encoding]).reshape(1, -1))
        self._rest = b""
        return (
            _HEADER.pack(_VERSION, _EIGHT_BITS, self._format.sample_rate, self._frames, len(self._pairs) // 2, 1)
            + self._pairs
        )

    def _add(self, samples: NDArray[Any]) -> None:
        """Adds the extremes of each row."""
        least, greatest = _EXTREMES[self._format.encoding](samples)
        pairs = np.stack((least, greatest), axis=1) * np.float32(_FULL_SCALE)
        # Truncated, so that the noise of silence is drawn as silence.
        self._pairs += np.clip(np.trunc(pairs), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int8).tobytes()


def _of_s16(samples: NDArray[np.int16]) -> tuple[Extremes, Extremes]:
    scale = np.float32(32768)
    return samples.min(axis=1).astype(np.float32) / scale, samples.max(axis=1).astype(np.float32) / scale


def _of_f32(samples: NDArray[np.float32]) -> tuple[Extremes, Extremes]:
    # A client's floats may be anything.
    known = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    return known.min(axis=1), known.max(axis=1)


def _of_mulaw(samples: NDArray[np.uint8]) -> tuple[Extremes, Extremes]:
    known = MULAW_TO_PCM[samples]
    return known.min(axis=1), known.max(axis=1)


def _of_alaw(samples: NDArray[np.uint8]) -> tuple[Extremes, Extremes]:
    known = ALAW_TO_PCM[samples]
    return known.min(axis=1), known.max(axis=1)


_TYPES: Final = {
    Encoding.PCM_S16LE: "<i2",
    Encoding.PCM_F32LE: "<f4",
    Encoding.MULAW: "u1",
    Encoding.ALAW: "u1",
}
_EXTREMES: Final[dict[Encoding, Callable[[NDArray[Any]], tuple[Extremes, Extremes]]]] = {
    Encoding.PCM_S16LE: _of_s16,
    Encoding.PCM_F32LE: _of_f32,
    Encoding.MULAW: _of_mulaw,
    Encoding.ALAW: _of_alaw,
}
