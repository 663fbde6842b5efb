"""The format of a client's audio bytes."""

from dataclasses import dataclass
from enum import StrEnum

MIN_SAMPLE_RATE = 8_000
MAX_SAMPLE_RATE = 48_000
MAX_CHANNELS = 2


class Encoding(StrEnum):
    """The encoding of a sample, little-endian where it has more than one byte."""

    PCM_S16LE = "pcm_s16le"
    PCM_F32LE = "pcm_f32le"
    MULAW = "mulaw"
    ALAW = "alaw"


SAMPLE_BYTES = {Encoding.PCM_S16LE: 2, Encoding.PCM_F32LE: 4, Encoding.MULAW: 1, Encoding.ALAW: 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding, rate and channels of a stream."""

    encoding: Encoding = Encoding.PCM_S16LE
    sample_rate: int = 16_000
    """Sample frames per second."""
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample frame: a sample of every channel."""
        return SAMPLE_BYTES[self.encoding] * self.channels
