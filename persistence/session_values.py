"""A session as the parts of persistence hand it on: plain values, no SQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from domain.session import EndReason
from domain.session_id import format_session_id


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
class Conclusion:
    """How and when a session ended, and how far it had come."""

    end_reason: EndReason
    ended_at: datetime
    progress: Progress


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """Where a session's objects are, as `s3://bucket/key`; None for what was not asked for."""

    audio_uri: str | None = None
    transcript_uri: str | None = None


INTERRUPTED: Final = EndReason("interrupted", "the server stopped unexpectedly")
