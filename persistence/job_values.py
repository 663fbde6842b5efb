"""Values of a batch job that the parts of persistence and the worker exchange, without SQL."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal
from uuid import UUID

from domain.job import JobKind, JobRequest


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process does, as its row was when the process claimed it.

    `id`, `number` and the process's worker id are the fence: a statement that finds another number, or another process,
    writes nothing.
    """

    id: UUID
    number: int
    """Counts the claims of the job."""
    tenant_id: UUID
    session_id: UUID
    kind: JobKind
    request: JobRequest
    attempts: int
    """Claims since a window was last finished, this one included."""
    waited_seconds: float
    """Since it was due."""
    done_seconds: float
    done_windows: int
    rate: float | None
    """Audio seconds per second."""
    plan: Any | None
    """JSON; None until the recording was listened to."""
    chain: tuple[UUID, ...] | None
    """The sessions of the recording, oldest first; None until it was opened."""
    chain_key: bytes | None
    version: int | None
    """Of the transcript; None before its first window."""
    session_language: str
    """ISO 639-1, or `auto`."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """The row of a transcript that a job has made."""

    version: int
    model: str
    language: str
    audio_seconds: float
    utterance_count: int
    word_count: int
    uri: str
    verdict: Literal["accepted", "doubtful"]
    verdict_reason: str | None


class Completion(Enum):
    """What came of the completion of a job."""

    COMPLETED = auto()
    CANCELED = auto()
    """Nothing was written: the job's cancellation was requested."""
    CHANGED = auto()
    """Nothing was written: a session of the joined recording was deleted."""


@dataclass(frozen=True, slots=True)
class LostJob:
    """A job of a process that has no lease any more."""

    id: UUID
    session_id: UUID
    has_failed: bool
    """Whether it is not queued again, because its workers have ended too often."""


@dataclass(frozen=True, slots=True)
class JobCount:
    """How many jobs of a kind are in a status."""

    status: str
    kind: str
    count: int
