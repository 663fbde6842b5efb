"""What the service keeps: sessions, transcripts, batch jobs and keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dalston.events import Word


class _OpenEnum(StrEnum):
    """A value that a newer service made up is `UNKNOWN` here, instead of an error."""

    @classmethod
    def _missing_(cls, _value: object) -> _OpenEnum | None:
        return cls.__members__.get("UNKNOWN")


class SessionStatus(_OpenEnum):
    """How a session is doing."""

    ACTIVE = "active"
    COMPLETED = "completed"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


class EnhancementStatus(_OpenEnum):
    """How a batch job is doing."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class ChangeType(_OpenEnum):
    """What happened to a session that is watched."""

    SNAPSHOT = "snapshot"
    """A session as it is: the watch begins, or begins anew after it was interrupted for long."""
    READY = "ready"
    """The snapshot, or what was missed, is complete."""
    CHANGED = "changed"
    DELETED = "deleted"
    """The session is gone, or no longer of the status asked for."""
    UNKNOWN = "unknown"


class ExportFormat(StrEnum):
    """What a transcript can be rendered as."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"


class Scope(_OpenEnum):
    """What a key allows."""

    REALTIME = "realtime"
    SESSIONS_READ = "sessions:read"
    SESSIONS_WRITE = "sessions:write"
    ADMIN = "admin"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Session:
    """A session as recorded; `session.proto` says what each field means."""

    id: str
    status: SessionStatus
    language: str
    model: str
    encoding: str
    sample_rate: int
    channels: int
    store_audio: bool
    store_transcript: bool
    enhance_on_end: bool
    audio_duration_seconds: float
    utterance_count: int
    word_count: int
    started_at: datetime | None
    """In UTC."""
    ended_at: datetime | None
    """In UTC; None while the session is active."""
    audio_uri: str | None = None
    audio_url: str | None = None
    transcript_uri: str | None = None
    transcript_url: str | None = None
    previous_session_id: str | None = None
    next_session_id: str | None = None
    resume_from_seconds: float | None = None
    enhancement_job_id: str | None = None
    enhancement_status: EnhancementStatus | None = None
    worker_id: str | None = None
    client_ip: str | None = None
    error: str | None = None
    segment_count: int = 0
    """The same as `utterance_count`, by the name that other Dalston services use."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """A page of the list of sessions, newest first."""

    sessions: tuple[Session, ...]
    total: int
    """How many sessions the filter matches, counted up to a bound."""
    next_cursor: str | None
    """For the next page; None on the last."""
    total_is_exact: bool = True
    """Whether `total` is all; False: there are more."""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """One change of one session."""

    type: ChangeType
    session: Session | None
    """The session after the change, None in `ready`. In `deleted` only its `id` says anything."""
    resume_token: str
    """To go on from here later."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What was said between two silences."""

    start: float
    end: float
    text: str
    confidence: float
    """0 to 1."""
    words: tuple[Word, ...] = ()
    language: str | None = None
    """ISO 639-1 code; None in a stored transcript that does not say it for each utterance."""
    index: int | None = None
    """0 is the session's first; None in a stored transcript."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a session. Times are seconds from the first byte of its audio."""

    session_id: str
    language: str
    duration: float
    text: str
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True, slots=True)
class Enhancement:
    """A batch job over a session's stored audio."""

    job_id: str
    session_id: str
    status: EnhancementStatus
    created_at: datetime | None
    ended_at: datetime | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """An API key, without its secret."""

    id: str
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime | None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    created_by: str | None = None
    """The key that made it; None for one that the operator made."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. The secret is never shown again."""

    key: Key
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """What opens one live session, once."""

    token: str = field(repr=False)
    expires_at: datetime | None
