"""The values of a session that the modules of persistence exchange. No SQL."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from domain.session import EndReason
from domain.session_id import format_session_id


@dataclass(frozen=True, slots=True)
class SessionStart:
    """The properties of a session that are known when it begins."""

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
    """The point in the audio of the previous session at which this one begins."""

    @property
    def session_id(self) -> str:
        """The public form of the id."""
        return format_session_id(self.id)

    @property
    def stores(self) -> bool:
        """Whether anything but the row is stored."""
        return self.store_audio or self.store_transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """The figures of a session so far."""

    audio_seconds: float = 0.0
    utterances: int = 0
    words: int = 0
    language: str = "auto"
    """The requested language; for `auto`, the language of most words as soon as there are any."""
    stored_bytes: int = 0
    """Audio that survives the loss of this machine, in parts of the upload or in tail objects."""
    processed_seconds: float = 0.0
    """The resume point: all speech before it is in the finals counted here, and it is inside of no utterance."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a session's multipart upload that S3 has stored."""

    upload_id: str
    number: int
    """1 is the first."""
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of a session: its reason, its time and the final figures."""

    end_reason: EndReason
    ended_at: datetime
    progress: Progress


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The URIs of a session's objects, `s3://bucket/key`; None for an object that was not requested."""

    audio_uri: str | None = None
    transcript_uri: str | None = None


INTERRUPTED: Final = EndReason("interrupted", "the server stopped unexpectedly")
