"""Batch jobs as callers read them, and their ids."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from domain.errors import InvalidJobId

JobKind = Literal["enhance", "upload"]
JOB_KINDS: tuple[JobKind, ...] = ("enhance", "upload")
"""A better transcript of a recording, or the transcript of an uploaded file."""
JobStatus = Literal["queued", "running", "completed", "failed", "canceled"]
JOB_STATUSES: tuple[JobStatus, ...] = ("queued", "running", "completed", "failed", "canceled")

DEFAULT_MODEL = "accurate"
"""The model of a job that names none."""

_PREFIX = "job_"
_FORM = re.compile(r"job_[0-9a-f]{32}", re.ASCII)


def format_job_id(job_id: UUID) -> str:
    """The public form of a job's id."""
    return _PREFIX + job_id.hex


def parse_job_id(text: str) -> UUID:
    """The id in its public form.

    Raises:
        InvalidJobId: the text is not a job's id.
    """
    if _FORM.fullmatch(text) is None:
        raise InvalidJobId
    return UUID(hex=text.removeprefix(_PREFIX))


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is asked to do."""

    model: str = DEFAULT_MODEL
    language: str = "auto"
    """ISO 639-1, or `auto`."""
    vocabulary: tuple[str, ...] = ()
    linked: bool = False
    """Whether the joined recording of the session and those that it continues is transcribed."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as its row describes it."""

    id: UUID
    tenant_id: UUID
    session_id: UUID
    kind: JobKind
    status: JobStatus
    step: str
    """What it does, or what it waits for."""
    request: JobRequest
    audio_seconds: float
    done_seconds: float
    """Audio before this time is transcribed."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_requested: bool
    attempts: int
    version: int | None
    """Of the transcript; None until that is stored."""
    verdict: str | None
    verdict_reason: str | None
    error: str | None
    error_code: str | None
    queue_position: int | None
    """How many jobs are before it; None unless it is queued."""
    eta_seconds: float | None
    """An estimate of the time to its end; None while the rate is unknown."""
    file_name: str | None = None
    """Of the uploaded file, as its client has it."""

    @property
    def progress(self) -> float:
        """The share of the audio that is transcribed, 0 to 1."""
        if self.status == "completed":
            return 1.0
        return min(1.0, self.done_seconds / self.audio_seconds) if self.audio_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TranscriptVersion:
    """A version of a session's transcript."""

    session_id: UUID

    version: int
    """1 is the live transcript, or the first one of an uploaded file."""
    kind: Literal["live", "enhanced", "upload"]
    model: str
    language: str
    created_at: datetime | None
    utterance_count: int
    word_count: int
    is_current: bool
    linked: bool
    """Whether it is of the joined recording of the session and those that it continues."""
    verdict: Literal["accepted", "doubtful"]
    verdict_reason: str | None
    job_id: UUID | None
    uri: str
    audio_seconds: float
    """The length of the audio that was transcribed."""
    chain_key: bytes | None = None
    """Identifies the joined recording, where it is of one."""
    was_chosen: bool = False
    """Of the live one: whether the tenant has made it the current one again."""
