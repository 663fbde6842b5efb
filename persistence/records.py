"""What a session is to its readers and its writers: plain values, no SQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from persistence.session_id import format_session_id

SessionStatus = Literal["active", "completed", "error", "interrupted"]
STATUSES: tuple[SessionStatus, ...] = ("active", "completed", "error", "interrupted")


@dataclass(frozen=True, slots=True)
class SessionStart:
    """What is known of a session when it begins."""

    id: UUID
    tenant_id: UUID
    worker_id: str
    started_at: datetime
    language: str
    """ISO 639-1, or `auto`."""
    model: str
    encoding: str
    sample_rate: int
    channels: int
    store_audio: bool
    store_transcript: bool
    enhance_on_end: bool = False
    client_ip: str | None = None
    previous_session_id: UUID | None = None
    resume_from_seconds: float | None = None
    """Where in the audio of the previous session this one begins."""

    @property
    def session_id(self) -> str:
        """The public form of the id."""
        return format_session_id(self.id)

    @property
    def stores(self) -> bool:
        """Whether anything but the row is kept."""
        return self.store_audio or self.store_transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session has come."""

    audio_seconds: float = 0.0
    utterances: int = 0
    words: int = 0
    language: str = "auto"
    """The language asked for; under `auto`, the one most words were in as soon as there is one."""
    stored_bytes: int = 0
    """Audio that survives the loss of this machine: in parts of the upload or in tail objects."""
    processed_seconds: float = 0.0
    """What was said before it is in the finals counted here, and no utterance that might go on reaches past it."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a session's multipart upload that S3 has."""

    upload_id: str
    number: int
    """1 is the first."""
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended."""

    status: Literal["completed", "error", "interrupted"]
    error: str | None = None
    """Why, when it did not end well; shown to the tenant."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How and when a session ended, and how far it had come."""

    ending: Ending
    ended_at: datetime
    progress: Progress


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """Where a session's objects are, as `s3://bucket/key`; None for what was not asked for."""

    audio_uri: str | None = None
    transcript_uri: str | None = None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as its row has it."""

    id: str
    """Session ids are in their public form here."""
    tenant_id: UUID
    status: SessionStatus
    language: str
    model: str
    encoding: str
    sample_rate: int
    channels: int
    store_audio: bool
    store_transcript: bool
    enhance_on_end: bool
    audio_uri: str | None
    transcript_uri: str | None
    enhancement_job_id: str | None
    audio_duration_seconds: float
    utterance_count: int
    word_count: int
    worker_id: str
    client_ip: str | None
    previous_session_id: str | None
    resume_from_seconds: float | None
    """Where in the audio of the previous session this one begins; None where it continues none."""
    started_at: datetime
    ended_at: datetime | None
    error: str | None
    next_session_id: str | None
    """The session that continues this one."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which sessions of a tenant are listed."""

    status: str | None = None
    since: datetime | None = None
    """Started at this time or later."""
    until: datetime | None = None
    """Started before this time."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a list, newest first."""

    sessions: tuple[SessionRecord, ...]
    total: int
    """How many sessions the filter matches on all pages; at least so many where `is_total_exact` is false."""
    is_total_exact: bool
    next_cursor: str | None
    """None on the last page."""
