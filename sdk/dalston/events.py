"""What a live transcription says.

Times are seconds from the first byte of the caller's audio, silence included, however often the connection was lost and
the session resumed in between.
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
    """The service takes the audio. Comes once; after a lost connection comes `Resumed`."""

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
    """Where in the audio of that session this one starts; times of events do not count from there, but from 0."""
    idle_timeout_seconds: float = 0.0
    """Longest time without a message to the service; the SDK sends keep-alives while the audio pauses."""
    max_message_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Speech ended; the final of this utterance follows, or the warning `speech_suppressed`."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class PartialResult:
    """What an unfinished utterance sounds like so far. Replaces the partial before it.

    The final replaces it. An utterance that proves to be no speech has no final, and what its partials said is void.
    """

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class FinalResult:
    """What an utterance said. Never changes, comes once, and in the order of the utterances."""

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
    """How likely the language is, 0 to 1, where it was detected; None where it was told."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """All audio sent before a `flush()` is transcribed; its finals have come."""

    timestamp: float


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """How far the service has come with the audio. None of the three ever decreases."""

    received: float
    processed: float
    stored: float
    """0 without `store_audio`."""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something to know that does not end the transcription.

    Codes of the service are those of `Warning` in transcription.proto; times in the details of `speech_suppressed` are
    those of the caller's audio, as everywhere. The SDK's own:

    * `audio_dropped`: a microphone was not read in time; silence stands where `seconds` of audio are missing.
    * `damaged_audio`: the file is damaged, and a part of its audio is missing.
    * `no_audio`: the file has no audio in it.
    * `partial_sample`: the audio ended within a sample; the last `bytes` were left out.
    * `session_replaced`: session `session_id` could not be resumed, and a new one goes on without it.
    * `terminating`: the server stops; the session moves to another.
    * `truncated_audio`: the file is shorter than its header says, by `missing_seconds`.
    * `unprotected`: audio that is not in the object store yet had to be let go, because memory is bounded.
    """

    code: str
    message: str
    details: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """There is no connection; another attempt is made in `delay` seconds. At first only with `wait`."""

    attempt: int
    """1 is the first since the last progress."""
    delay: float
    reason: str
    """What went wrong, for a person."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """A new session goes on in the place of the lost one."""

    session_id: str
    previous_session_id: str
    position: float
    """Where in the caller's audio it starts."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a transcription that ended well. Always the last event."""

    session_id: str
    session_ids: tuple[str, ...]
    """All sessions it took, in their order; `session_id` is the last."""
    duration: float
    text: str
    """The texts of all finals, joined by spaces."""
    enhancement_job_id: str | None = None
    audio_uri: str | None = None
    """Where the last session's audio is stored; set when it is safely there."""
    transcript_uri: str | None = None
    speech_duration: float = 0.0
    """How much of the audio was speech."""
    finals: tuple[FinalResult, ...] = field(default=(), repr=False)
    """All of them, in their order."""


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
