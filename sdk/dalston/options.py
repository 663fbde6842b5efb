"""The options of transcriptions: live ones, and those of files."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self, TypeAlias, TypedDict

from dalston.microphone import Microphone

if TYPE_CHECKING:
    from dalston.events import Reconnecting
    from dalston.records import FileProgress

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

FileSource: TypeAlias = bytes | bytearray | memoryview | str | PathLike[str] | BinaryIO
"""A file in any format that the service takes, which recognises it by its content. A string or path names a file, bytes
are its content, and a file object is read from its current position."""

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


class FileOptions(TypedDict, total=False):
    """Keyword arguments of `transcribe_file`."""

    model: str | None
    """Default: the most accurate one of the service."""
    language: str | None
    """An ISO 639-1 code, or `auto` (the default)."""
    vocabulary: Sequence[str]
    """Words that are likely to be spoken."""
    store: bool
    """Whether the service keeps the file and its transcript. If not, both are deleted a day after the job has ended.
    Default True."""
    wait: float
    """Seconds to retry while the service has no capacity or cannot be reached at first. Default 0: raise at once."""
    give_up_after: float
    """Seconds after which a lost connection is given up. Default 300."""
    on_progress: Callable[[FileProgress], object] | None
    """Called while the file is sent, and at each change of its job that becomes known."""
    on_reconnect: Callable[[Reconnecting], object] | None
    """Called before each attempt to restore a lost connection."""


@dataclass(frozen=True, slots=True)
class FileSettings:
    """The options of `transcribe_file`, with their defaults.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: a value is out of range.
    """

    model: str | None = None
    language: str | None = None
    vocabulary: Sequence[str] = ()
    store: bool = True
    wait: float = 0.0
    give_up_after: float = 300.0
    on_progress: Callable[[FileProgress], object] | None = None
    on_reconnect: Callable[[Reconnecting], object] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.vocabulary, str):
            raise TypeError("vocabulary must be a sequence of terms, not a string")
        if not self.wait >= 0 or not self.give_up_after >= 0:
            raise ValueError("wait and give_up_after must not be negative")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """The settings with these options.

        Raises:
            TypeError: an option does not exist.
        """
        unknown = sorted(options.keys() - FileOptions.__annotations__.keys())
        if unknown:
            raise TypeError(f"transcribe_file() has no option {unknown[0]!r}")
        return cls(**options)
