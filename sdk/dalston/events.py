"""The events of a live transcription.

Times are seconds from the first byte of the caller's audio, silence included. Lost connections and resumed sessions do
not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Word:
    """A word of an utterance."""

    word: str
    start: float
    end: float
    confidence: float
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class SessionBegan:
    """The service has accepted the transcription. Sent once; after a lost connection `Resumed` is sent."""

    session_id: str
    language: str
    model: str
    encoding: str
    sample_rate: int
    channels: int
    max_session_seconds: float
    resumed_from: str | None = None
    """The session that `resume_session_id` asked to continue."""
    resume_from_seconds: float | None = None
    """The point in the audio of that session at which this one starts. The times of events still count from 0."""
    idle_timeout_seconds: float = 0.0
    """Longest time without a message to the service. The SDK sends keep-alives while the audio pauses."""
    max_message_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Speech ended. The final of this utterance follows, or the warning `speech_suppressed`."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class PartialResult:
    """The text of an utterance in progress. It replaces the previous partial, and the final replaces it.

    An utterance that turns out not to be speech has no final, and its partials are void.
    """

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class FinalResult:
    """The text of an utterance. Finals are sent once, in the order of the utterances, and never change."""

    text: str
    start: float
    end: float
    confidence: float
    """0 to 1."""
    language: str
    """ISO 639-1 code."""
    words: tuple[Word, ...] = ()
    """Only with `word_timestamps`."""
    language_probability: float | None = None
    """Probability of the detected language, 0 to 1; None if the language was requested."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """All audio sent before a `flush()` is transcribed, and its finals have been sent."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Seconds of audio that the service has received, processed and stored. None of the three ever decreases."""

    received: float
    processed: float
    stored: float
    """0 without `store_audio`."""


@dataclass(frozen=True, slots=True)
class Warned:
    """A condition that does not end the transcription.

    The codes of the service are those of `Warning` in transcription.proto. The times in the details of
    `speech_suppressed` refer to the caller's audio, like all others. The codes of the SDK are:

    * `audio_dropped`: the microphone was not read in time; silence replaces the missing `seconds` of audio.
    * `damaged_audio`: the file is damaged, and a part of its audio is missing.
    * `no_audio`: the file contains no audio.
    * `partial_sample`: the audio ended within a sample; the last `bytes` were omitted.
    * `session_replaced`: session `session_id` could not be resumed; a new session continues without it.
    * `terminating`: the server is stopping; the session moves to another.
    * `truncated_audio`: the file is `missing_seconds` shorter than its header states.
    * `unprotected`: the buffer was full, and audio that is not stored yet was discarded.
    """

    code: str
    message: str
    details: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """There is no connection; the next attempt follows in `delay` seconds. At first only with `wait`."""

    attempt: int
    """Counted from 1 since the last progress."""
    delay: float
    reason: str
    """The error, as a sentence for users."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A new session continues the lost one."""

    session_id: str
    previous_session_id: str
    position: float
    """The point in the caller's audio at which it starts, in seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The transcription is complete. Always the last event."""

    session_id: str
    session_ids: tuple[str, ...]
    """All sessions of the transcription in order; `session_id` is the last."""
    duration: float
    text: str
    """The texts of all finals, joined by spaces."""
    enhancement_job_id: str | None = None
    audio_uri: str | None = None
    """The location of the last session's audio, set once it is stored."""
    transcript_uri: str | None = None
    speech_duration: float = 0.0
    """Seconds of speech in the audio."""
    finals: tuple[FinalResult, ...] = field(default=(), repr=False)
    """All finals, in order."""


Event: TypeAlias = (
    SessionBegan
    | SpeechStarted
    | SpeechEnded
    | PartialResult
    | FinalResult
    | Flushed
    | Acknowledged
    | Warned
    | Reconnecting
    | Resumed
    | Ended
)
