"""A session as callers read it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

SessionStatus = Literal["active", "completed", "error", "interrupted"]
STATUSES: tuple[SessionStatus, ...] = ("active", "completed", "error", "interrupted")
SessionSource = Literal["live", "upload"]
SOURCES: tuple[SessionSource, ...] = ("live", "upload")
"""Where the audio of a session comes from: a stream, or a file."""


@dataclass(frozen=True, slots=True)
class EndReason:
    """How a session ended."""

    status: Literal["completed", "error", "interrupted"]
    error: str | None = None
    """The cause, if the session did not complete; shown to the tenant."""


@dataclass(frozen=True, slots=True)
class Enhancement:
    """The state of the newest batch job of a session's recording."""

    status: str
    """`domain.job.JobStatus`."""
    progress: float
    """The share of the audio that is transcribed, 0 to 1."""
    step: str
    """What the job does, or what it waits for."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as its row describes it."""

    id: UUID
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
    previous_session_id: UUID | None
    resume_from_seconds: float | None
    """The point in the audio of the previous session at which this one begins; None if it continues none."""
    started_at: datetime
    ended_at: datetime | None
    error: str | None
    source: SessionSource
    file_name: str | None
    """Of an uploaded file, as its client has it."""
    next_session_id: UUID | None
    """The session that continues this one."""
    transcript_version: int | None
    """The current version, which `utterance_count` and `word_count` count; None until a transcript is stored."""
    transcript_count: int
    """How many versions of the transcript are stored."""
    enhancement: Enhancement | None
    """None without a batch job."""


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """The sessions of a tenant to list; None matches all."""

    status: str | None = None
    since: datetime | None = None
    """Started at this time or later."""
    until: datetime | None = None
    """Started before this time."""
    source: str | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a list, newest first."""

    sessions: tuple[SessionRecord, ...]
    total: int
    """The number of sessions on all pages; a lower bound if `is_total_exact` is false."""
    is_total_exact: bool
    next_cursor: str | None
    """None on the last page."""
