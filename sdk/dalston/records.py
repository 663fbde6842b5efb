"""The records of the service: sessions, transcripts, batch jobs and keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dalston.events import Word


class _OpenEnum(StrEnum):
    """Maps a value that only a newer service defines to `UNKNOWN` instead of raising an error."""

    @classmethod
    def _missing_(cls, _value: object) -> _OpenEnum | None:
        return cls.__members__.get("UNKNOWN")


class SessionStatus(_OpenEnum):
    """The status of a session."""

    ACTIVE = "active"
    COMPLETED = "completed"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"


class JobStatus(_OpenEnum):
    """The status of a batch job."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"


class ChangeType(_OpenEnum):
    """The kinds of changes that a watch reports."""

    SNAPSHOT = "snapshot"
    """The current state of a session: the watch starts, or restarts after a long outage."""
    READY = "ready"
    """The snapshot, or the replay of missed changes, is complete."""
    CHANGED = "changed"
    DELETED = "deleted"
    """The session was deleted, or no longer matches the requested status."""
    UNKNOWN = "unknown"


class ExportFormat(StrEnum):
    """The export formats of a transcript."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"


class Scope(_OpenEnum):
    """The scopes of a key."""

    REALTIME = "realtime"
    SESSIONS_READ = "sessions:read"
    SESSIONS_WRITE = "sessions:write"
    ADMIN = "admin"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Session:
    """The record of a session; session.proto documents the fields."""

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
    enhancement_status: JobStatus | None = None
    worker_id: str | None = None
    client_ip: str | None = None
    error: str | None = None
    segment_count: int = 0
    """The same as `utterance_count`, under the name that other Dalston services use."""
    source: str = "live"
    """`live`: a stream. `upload`: a file."""
    transcript_version: int | None = None
    """The current version, which `utterance_count` and `word_count` count; None until a transcript is stored."""
    transcript_count: int = 0
    """How many versions of the transcript are stored."""
    enhancement_progress: float | None = None
    """The share of the audio that the newest batch job has transcribed, 0 to 1."""
    enhancement_step: str | None = None
    """What that job does or waits for: `Job.step`."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """A page of the list of sessions, newest first."""

    sessions: tuple[Session, ...]
    total: int
    """The number of sessions that match the filter, counted up to a limit."""
    next_cursor: str | None
    """Cursor of the next page; None on the last."""
    total_is_exact: bool = True
    """Whether `total` counts all of them; False if there are more."""


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A change of a session."""

    type: ChangeType
    session: Session | None
    """The session after the change; None in `ready`. In `deleted` only its `id` is set."""
    resume_token: str
    """Continues a watch after this change."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A segment of speech with its text."""

    start: float
    end: float
    text: str
    confidence: float
    """0 to 1."""
    words: tuple[Word, ...] = ()
    language: str | None = None
    """ISO 639-1 code; None in a stored transcript without languages of utterances."""
    index: int | None = None
    """Counted from 0 within the session; None in a stored transcript."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """The transcript of a session. Times are seconds from the first byte of its audio."""

    session_id: str
    language: str
    duration: float
    text: str
    utterances: tuple[Utterance, ...]
    version: int | None = None
    """Of a transcript that a batch job made; None for a live one, and for a join of several versions."""
    model: str | None = None
    """That made this version; None with `version`."""
    kind: str | None = None
    """`enhanced` or `upload`; None with `version`."""


@dataclass(frozen=True, slots=True)
class TranscriptVersion:
    """A version of a session's transcript. It never changes."""

    version: int
    """1 is the live transcript, or the first one of an uploaded file."""
    kind: str
    """`live`, `enhanced` or `upload`."""
    model: str
    language: str
    created_at: datetime | None
    """In UTC."""
    utterance_count: int
    word_count: int
    is_current: bool
    """Whether it is read where no version is asked for."""
    linked: bool
    """Whether it is of the joined recording of the session and those that it continues."""
    verdict: str
    """`accepted` or `doubtful`."""
    verdict_reason: str | None = None
    job_id: str | None = None
    uri: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A batch job: the transcription of a recording or of an uploaded file after the fact."""

    id: str
    session_id: str
    kind: str
    """`enhance` or `upload`."""
    status: JobStatus
    step: str
    """What a running job does, or what a queued one waits for."""
    progress: float
    """The share of the audio that is transcribed, 0 to 1."""
    model: str
    language: str
    """The language asked for: ISO 639-1, or `auto`."""
    vocabulary: tuple[str, ...]
    linked: bool
    audio_duration_seconds: float
    created_at: datetime | None
    """In UTC, as all its times."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: int = 0
    version: int | None = None
    """The version of the transcript that it has made."""
    verdict: str | None = None
    """`accepted`, or `doubtful`: the version did not become the current one by itself."""
    verdict_reason: str | None = None
    error: str | None = None
    error_code: str | None = None
    queue_position: int | None = None
    """How many jobs are before it, counted up to 1000; None unless it is queued."""
    eta_seconds: float | None = None
    """An estimate of the time to its end; None while the rate is unknown."""
    cancel_requested: bool = False
    file_name: str | None = None
    """The name of the uploaded file; None where there is none."""

    @property
    def has_ended(self) -> bool:
        """Whether it is completed, failed or canceled."""
        return self.ended_at is not None


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of the list of jobs, newest first."""

    jobs: tuple[Job, ...]
    next_cursor: str | None
    """Cursor of the next page; None on the last."""


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How far the transcription of a file is."""

    sent_bytes: int
    total_bytes: int | None
    """None if the size of the file is unknown."""
    job: Job | None = None
    """None until the service has the whole file."""


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
    """The key that created this one; None if an operator created it."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login of a browser, made with a key, whose scopes it has."""

    id: str
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None = None
    user_agent: str = ""
    """What the browser called itself: any text, at most 200 characters."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key. The secret is never shown again."""

    key: Key
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A token that opens one live session, once."""

    token: str = field(repr=False)
    expires_at: datetime | None
