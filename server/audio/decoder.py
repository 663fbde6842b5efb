"""Decodes wire bytes to the format of the models: mono 32-bit float at 16 kHz."""

import numpy as np
import soxr
from numpy.typing import NDArray

from server.audio.downmix import Downmix
from server.audio.format import AudioFormat, Encoding
from server.audio.g711 import ALAW_TO_PCM, MULAW_TO_PCM

MODEL_RATE = 16_000

Samples = NDArray[np.float32]
"""Mono audio at 16 kHz, shape [n], full scale 1.0."""


class Decoder:
    """Decodes one stream, chunk by chunk.

    The output is aligned with the input: sample n of the output is the sound at n / 16000 seconds of the input,
    whatever the input's rate. The resampler holds back a few milliseconds until more audio or `finish` follows.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._downmix = None if audio_format.channels == 1 else Downmix(audio_format.sample_rate)
        self._resampler = (
            None
            if audio_format.sample_rate == MODEL_RATE
            else soxr.ResampleStream(audio_format.sample_rate, MODEL_RATE, 1, dtype="float32", quality="HQ")
        )

    def push(self, data: bytes) -> Samples:
        """Decodes whole sample frames: the caller has checked that the length is a multiple of `frame_bytes`."""
        return self._resample(self._mono(data), last=False)

    def finish(self) -> Samples:
        """The samples that the resampler held back."""
        return self._resample(np.zeros(0, np.float32), last=True)

    def _mono(self, data: bytes) -> Samples:
        samples = _TO_FLOAT[self._format.encoding](data)
        return samples if self._downmix is None else self._downmix.push(samples.reshape(-1, self._format.channels))

    def _resample(self, samples: Samples, *, last: bool) -> Samples:
        if self._resampler is None:
            return samples
        resampled: Samples = self._resampler.resample_chunk(samples, last=last)
        return resampled


def _from_s16(data: bytes) -> Samples:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def _from_f32(data: bytes) -> Samples:
    # A client's floats may be anything, and a NaN would corrupt the resampler and the models permanently.
    samples = np.nan_to_num(np.frombuffer(data, "<f4").astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    return np.clip(samples, -1.0, 1.0)


def _from_mulaw(data: bytes) -> Samples:
    return MULAW_TO_PCM[np.frombuffer(data, np.uint8)]


def _from_alaw(data: bytes) -> Samples:
    return ALAW_TO_PCM[np.frombuffer(data, np.uint8)]


_TO_FLOAT = {
    Encoding.PCM_S16LE: _from_s16,
    Encoding.PCM_F32LE: _from_f32,
    Encoding.MULAW: _from_mulaw,
    Encoding.ALAW: _from_alaw,
}
