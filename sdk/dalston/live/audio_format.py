"""The format of raw audio."""

from __future__ import annotations

from dataclasses import dataclass

_SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding, sample rate and channels.

    Raises:
        ValueError: the service does not support the encoding, the rate or the number of channels.
    """

    encoding: str = "pcm_s16le"
    sample_rate: int = 16_000
    """Sample frames per second."""
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in _SAMPLE_BYTES:
            raise ValueError(f"encoding must be one of {', '.join(_SAMPLE_BYTES)}, not {self.encoding!r}")
        if not 8_000 <= self.sample_rate <= 48_000:
            raise ValueError(f"sample_rate must be between 8000 and 48000, not {self.sample_rate}")
        if self.channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, not {self.channels}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of a sample frame: one sample of every channel."""
        return _SAMPLE_BYTES[self.encoding] * self.channels

    def seconds(self, size: int) -> float:
        """The duration of `size` bytes in seconds."""
        return size / self.frame_bytes / self.sample_rate

    def size(self, seconds: float) -> int:
        """The bytes of `seconds` of audio, rounded to whole sample frames."""
        return round(seconds * self.sample_rate) * self.frame_bytes

    def silence(self, size: int) -> bytes:
        """`size` bytes of silence."""
        quiet = {"mulaw": b"\xff", "alaw": b"\xd5"}.get(self.encoding, b"\x00")
        return quiet * size
