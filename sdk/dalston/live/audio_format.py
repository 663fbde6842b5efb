"""What bytes of audio are, and how long they last."""

from __future__ import annotations

from dataclasses import dataclass

_SAMPLE_BYTES = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding, rate and channels.

    Raises:
        ValueError: there is no such encoding, or no sound of this rate and so many channels.
    """

    encoding: str = "pcm_s16le"
    sample_rate: int = 16_000
    """Frames per second."""
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in _SAMPLE_BYTES:
            raise ValueError(f"encoding must be one of {', '.join(_SAMPLE_BYTES)}, is {self.encoding!r}")
        if not 8_000 <= self.sample_rate <= 48_000:
            raise ValueError(f"sample_rate must be 8000 to 48000, is {self.sample_rate}")
        if self.channels not in (1, 2):
            raise ValueError(f"channels must be 1 or 2, is {self.channels}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame: a sample of every channel."""
        return _SAMPLE_BYTES[self.encoding] * self.channels

    def seconds(self, size: int) -> float:
        """How long so many bytes last."""
        return size / self.frame_bytes / self.sample_rate

    def size(self, seconds: float) -> int:
        """How many bytes last so long, to the nearest frame."""
        return round(seconds * self.sample_rate) * self.frame_bytes

    def silence(self, size: int) -> bytes:
        """So many bytes of silence."""
        quiet = {"mulaw": b"\xff", "alaw": b"\xd5"}.get(self.encoding, b"\x00")
        return quiet * size
