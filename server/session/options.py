"""The validated parameters of a session."""

import math
from dataclasses import dataclass, field

from server.audio.format import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFormat
from server.session.errors import InvalidParameter

AUTO = "auto"
"""The language is detected for each utterance."""

MAX_UTTERANCE_SECONDS = 28.0
"""Whisper's window is 30 s; the rest is room for the silence around an utterance."""


@dataclass(frozen=True, slots=True)
class VadOptions:
    """What counts as speech, and as the end of an utterance."""

    threshold: float = 0.5
    """Probability from which a window counts as speech."""
    min_speech_ms: int = 250
    min_silence_ms: int = 500
    max_utterance_seconds: float = MAX_UTTERANCE_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:  # False for NaN too
            raise InvalidParameter("vad_threshold", "must be between 0 and 1, both excluded")
        _check_range("min_speech_duration_ms", self.min_speech_ms, 50, 2000)
        _check_range("min_silence_duration_ms", self.min_silence_ms, 50, 2000)
        _check_range("max_utterance_duration", self.max_utterance_seconds, 1, MAX_UTTERANCE_SECONDS)
        if self.max_utterance_seconds * 1000 <= self.min_speech_ms:
            raise InvalidParameter("max_utterance_duration", "must be longer than min_speech_duration_ms")


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Everything that determines how a stream is transcribed.

    Raises:
        InvalidParameter: a value is out of its range.
    """

    language: str = AUTO
    model: str = "fast"
    audio: AudioFormat = field(default_factory=AudioFormat)
    vad: VadOptions = field(default_factory=VadOptions)
    bias_terms: tuple[str, ...] = ()
    """Words that the client expects, the most important first (the parameter `vocabulary`)."""
    words: bool = False
    """Whether finals carry their words."""
    vad_events: bool = True
    partials: bool = True
    """Whether the session sends partials before the final of an utterance."""
    acks: bool = False
    """Whether the session regularly acknowledges its progress."""

    def __post_init__(self) -> None:
        _check_range("sample_rate", self.audio.sample_rate, MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
        _check_range("channels", self.audio.channels, 1, MAX_CHANNELS)


def _check_range(parameter: str, value: float, low: float, high: float) -> None:
    if math.isnan(value) or not low <= value <= high:
        raise InvalidParameter(parameter, f"must be from {low:g} to {high:g}, is {value:g}")
