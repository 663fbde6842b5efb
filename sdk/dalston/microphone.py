"""The microphone as a source of audio."""

from __future__ import annotations


class Microphone:
    """The default input device, or another. Needs the extra `microphone` of the distribution.

    Args:
        device: number or part of the name of an input device. Default: the system's.
        sample_rate: samples per second. Default 16000.
        channels: 1 or 2. Default 1.
    """

    def __init__(self, device: int | str | None = None, *, sample_rate: int = 16_000, channels: int = 1) -> None:
        self.device = device
        self.sample_rate = sample_rate
        self.channels = channels
