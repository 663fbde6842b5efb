"""Values of a session that the parts of persistence exchange, without SQL."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from domain.errors import AudioNotStored, SessionActive, TranscriptNotStored
from domain.session import EndReason, SessionStatus
from domain.session_id import format_session_id
from persistence.wav import WavFormat


@dataclass(frozen=True, slots=True)
class SessionStart:
    """The values of a session that are known at its start."""

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
    """The resume point: where in the audio of the previous session this one begins."""
    vocabulary: tuple[str, ...] = ()
    """For the batch job of `enhance_on_end`; empty without one."""

    def as_row(self) -> dict[str, Any]:
        """The values of its row."""
        return asdict(self) | {"requested_language": self.language, "vocabulary": list(self.vocabulary)}

    @property
    def session_id(self) -> str:
        """The public form of the id."""
        return format_session_id(self.id)

    @property
    def wav(self) -> WavFormat:
        """The format of its audio."""
        return WavFormat(self.encoding, self.sample_rate, self.channels)

    @property
    def stores(self) -> bool:
        """Whether the session stores objects, and not only a row."""
        return self.store_audio or self.store_transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a session."""

    audio_seconds: float = 0.0
    utterances: int = 0
    words: int = 0
    language: str = "auto"
    """The requested language; under `auto` the language of most words, as soon as there is one."""
    stored_bytes: int = 0
    """Audio in S3, in parts of the upload or in tail objects: it survives the loss of this machine."""
    processed_seconds: float = 0.0
    """Speech before it is in the finals counted here, and no utterance that may continue extends beyond it."""


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A stored part of a session's multipart upload."""

    upload_id: str
    number: int
    """1 is the first."""
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The row of a session, as the parts of persistence use it.

    `domain.session.SessionRecord` is the other view of a row, for the tenant: with the ids in their public form, and
    without the columns that only persistence needs.
    """

    id: UUID
    worker_id: str
    """The process that owns the session."""
    status: SessionStatus
    language: str
    encoding: str
    sample_rate: int
    channels: int
    store_audio: bool
    store_transcript: bool
    audio_uri: str | None
    transcript_uri: str | None
    audio_duration_seconds: float
    utterance_count: int
    word_count: int
    stored_bytes: int
    """Audio in the bucket, without the WAV header."""
    processed_seconds: float
    has_tails: bool
    resume_from_seconds: float | None
    """Where in the audio of the previous session this one begins; None: at its end."""
    recover_after: datetime | None
    is_deleted: bool

    @property
    def session_id(self) -> str:
        """The public form of the id."""
        return format_session_id(self.id)

    @property
    def wav(self) -> WavFormat:
        """The format of its audio."""
        return WavFormat(self.encoding, self.sample_rate, self.channels)

    @property
    def is_stored(self) -> bool:
        """Whether it has ended and its objects are in the bucket; its tail objects may be, too."""
        has_audio = not self.store_audio or self.audio_uri is not None
        return self.status != "active" and has_audio and (not self.store_transcript or self.transcript_uri is not None)

    @property
    def is_unfinished(self) -> bool:
        """Whether its owner still has work to do for it."""
        return self.has_tails or not self.is_stored

    @property
    def is_reclaimed(self) -> bool:
        """Whether a process has begun to add a spool to it and has not completed that."""
        return not self.is_unfinished and self.recover_after is not None

    def require_audio(self) -> None:
        """Checks that its audio can be read.

        Raises:
            AudioNotStored: the session did not store audio.
            SessionActive: it is running, or not completely stored yet.
        """
        if not self.store_audio:
            raise AudioNotStored(self.session_id)
        self._require_stored(self.audio_uri)

    def require_transcript(self) -> None:
        """Checks that its transcript can be read.

        Raises:
            TranscriptNotStored: the session did not store a transcript.
            SessionActive: it is running, or not completely stored yet.
        """
        if not self.store_transcript:
            raise TranscriptNotStored(self.session_id)
        self._require_stored(self.transcript_uri)

    def _require_stored(self, uri: str | None) -> None:
        if self.status == "active":
            raise SessionActive(self.session_id)
        if uri is None:
            raise SessionActive(self.session_id, "is not stored to its end yet: try again in a while")


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How and when a session ended, and its final progress."""

    end_reason: EndReason
    ended_at: datetime
    progress: Progress


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The URIs of a session's objects, as `s3://bucket/key`; None for those that were not requested."""

    audio_uri: str | None = None
    transcript_uri: str | None = None


INTERRUPTED: Final = EndReason("interrupted", "the server stopped unexpectedly")
