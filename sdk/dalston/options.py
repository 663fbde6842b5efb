"""What a live transcription can be asked for."""

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
"""Bytes are audio, a string or path names a file, a file is read from where it stands. These are raw if `encoding` is
given, and else say themselves what they are: WAV of any kind, or what an installed decoder reads (PyAV, soundfile or
ffmpeg). What an iterable gives is raw always, in pieces of any size."""

Transport: TypeAlias = Literal["grpc", "websocket"]


class TranscribeOptions(TypedDict, total=False):
    """Keyword arguments of `transcribe`.

    Those of the service mean what `TranscribeConfig` in transcription.proto says; one that is left out has the
    service's default. Rate, encoding and channels of a file that is not raw are read from it.
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
    """How many times as fast as speech the audio is sent: 1 is real time. Default: as fast as the service takes it."""
    transport: Transport
    """`grpc` (the default), or `websocket` for networks that let nothing else through."""
    wait: float
    """Seconds to go on trying when the service has no room or cannot be reached at first. Default 0: raise at once."""
    give_up_after: float
    """Seconds without any progress after which a lost connection is given up. Default 300."""
    max_kept_seconds: float
    """Audio kept in memory to be sent again after a lost connection, in seconds. Default 900, at least 60."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The options that are the SDK's own."""

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
            raise ValueError("max_kept_seconds must be at least 60: twice the longest utterance is needed to resume")

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The SDK's own options, and the service's.

        Raises:
            TypeError: there is no such option.
            ValueError: a value is out of range.
        """
        unknown = sorted(options.keys() - TranscribeOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"transcribe() has no option {unknown[0]!r}")
        names = {field.name for field in fields(cls)}
        own = {name: value for name, value in options.items() if name in names}
        return cls(**own), {name: value for name, value in options.items() if name not in names and value is not None}
