"""The options of a live transcription."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, BinaryIO, Literal, Self, TypeAlias, TypedDict

from dalston.microphone import Microphone

AudioSource: TypeAlias = (
    bytes
    | bytearray
    | memoryview
    | str
    | PathLike[str]
    | BinaryIO
    | Iterable[bytes]
    | AsyncIterable[bytes]
    | Microphone
)
"""Bytes are audio, a string or path names a file, and a file object is read from its current position. With `encoding`
they are raw samples; otherwise their content determines the format: WAV of any kind, or a format that an installed
decoder reads (PyAV, soundfile or ffmpeg). An iterable yields raw samples in pieces of any size."""

Transport: TypeAlias = Literal["grpc", "websocket"]


class TranscribeOptions(TypedDict, total=False):
    """Keyword arguments of `transcribe`.

    `TranscribeConfig` in transcription.proto documents the options of the service; the service's default applies to
    those that are omitted. The rate, encoding and channels of a file that is not raw are read from the file.
    """

    language: str
    model: str
    encoding: str
    sample_rate: int
    channels: int
    enable_vad: bool
    interim_results: bool
    word_timestamps: bool
    vocabulary: Sequence[str]
    vad_threshold: float
    min_speech_duration_ms: int
    min_silence_duration_ms: int
    max_utterance_duration: float
    store_audio: bool
    store_transcript: bool
    enhance_on_end: bool
    resume_session_id: str
    resume_from_seconds: float

    pace: float | None
    """Sending speed as a multiple of real time. Default: as fast as the service takes the audio."""
    transport: Transport
    """`grpc` (the default), or `websocket` for networks that block gRPC."""
    wait: float
    """Seconds to retry while the service has no capacity or cannot be reached at first. Default 0: raise at once."""
    give_up_after: float
    """Seconds without progress after which reconnecting is given up. Default 300."""
    max_kept_seconds: float
    """Seconds of audio kept in memory for retransmission after a lost connection. Default 900, at least 60."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The options that the SDK itself implements."""

    pace: float | None = None
    transport: Transport = "grpc"
    wait: float = 0.0
    give_up_after: float = 300.0
    max_kept_seconds: float = 900.0

    def __post_init__(self) -> None:
        if self.pace is not None and not self.pace > 0:
            raise ValueError("pace must be more than 0, or None for as fast as possible")
        if self.transport not in ("grpc", "websocket"):
            raise ValueError("transport must be grpc or websocket")
        if not self.wait >= 0 or not self.give_up_after >= 0:
            raise ValueError("wait and give_up_after must not be negative")
        if not self.max_kept_seconds >= 60:
            raise ValueError("max_kept_seconds must be at least 60: resuming needs twice the longest utterance")

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Separates the options of the SDK from those of the service.

        Raises:
            TypeError: an option does not exist.
            ValueError: a value is out of range.
        """
        unknown = sorted(options.keys() - TranscribeOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"transcribe() has no option {unknown[0]!r}")
        names = {field.name for field in fields(cls)}
        own = {name: value for name, value in options.items() if name in names}
        return cls(**own), {name: value for name, value in options.items() if name not in names and value is not None}
