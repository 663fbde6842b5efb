"""Converts protobuf messages to the types of this package."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dalston.errors import ServerError
from dalston.events import PartialResult, Word
from dalston.records import (
    ChangeType,
    Job,
    JobStatus,
    Key,
    Login,
    Scope,
    Session,
    SessionChange,
    SessionStatus,
    Transcript,
    TranscriptVersion,
    Utterance,
)

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from dalston.v1 import job_pb2, key_pb2, session_pb2, transcription_pb2


def when(message: Message, name: str) -> datetime | None:
    """A time in UTC, or None if the field is unset."""
    if not message.HasField(name):
        return None
    time: datetime = getattr(message, name).ToDatetime(tzinfo=UTC)
    return time


def optional(message: Message, name: str) -> Any:
    """A field, or None if it is unset."""
    return getattr(message, name) if message.HasField(name) else None


def session(message: session_pb2.Session) -> Session:
    enhancement = optional(message, "enhancement_status")
    return Session(
        id=message.id,
        status=SessionStatus(message.status),
        language=message.language,
        model=message.model,
        encoding=message.encoding,
        sample_rate=message.sample_rate,
        channels=message.channels,
        store_audio=message.store_audio,
        store_transcript=message.store_transcript,
        enhance_on_end=message.enhance_on_end,
        audio_duration_seconds=message.audio_duration_seconds,
        utterance_count=message.utterance_count,
        word_count=message.word_count,
        started_at=when(message, "started_at"),
        ended_at=when(message, "ended_at"),
        audio_uri=optional(message, "audio_uri"),
        audio_url=optional(message, "audio_url"),
        transcript_uri=optional(message, "transcript_uri"),
        transcript_url=optional(message, "transcript_url"),
        previous_session_id=optional(message, "previous_session_id"),
        next_session_id=optional(message, "next_session_id"),
        resume_from_seconds=optional(message, "resume_from_seconds"),
        enhancement_job_id=optional(message, "enhancement_job_id"),
        enhancement_status=JobStatus(enhancement) if enhancement else None,
        worker_id=optional(message, "worker_id"),
        client_ip=optional(message, "client_ip"),
        error=optional(message, "error"),
        segment_count=message.segment_count,
        source=message.source or "live",
        transcript_version=optional(message, "transcript_version"),
        transcript_count=message.transcript_count,
        enhancement_progress=optional(message, "enhancement_progress"),
        enhancement_step=optional(message, "enhancement_step"),
    )


def change(message: session_pb2.WatchSessionsResponse) -> SessionChange:
    return SessionChange(
        type=ChangeType(message.type),
        session=session(message.session) if message.HasField("session") else None,
        resume_token=message.resume_token,
    )


def utterance(message: session_pb2.Utterance) -> Utterance:
    return Utterance(
        start=message.start,
        end=message.end,
        text=message.text,
        confidence=message.confidence,
        words=tuple(Word(word.word, word.start, word.end, word.confidence) for word in message.words),
        language=message.language or None,
        index=message.index,
    )


def partial(message: transcription_pb2.Partial) -> PartialResult:
    return PartialResult(message.text, message.start, message.end)


def job(message: job_pb2.Job) -> Job:
    return Job(
        id=message.id,
        session_id=message.session_id,
        kind=message.kind,
        status=JobStatus(message.status),
        step=message.step,
        progress=message.progress,
        model=message.model,
        language=message.language,
        vocabulary=tuple(message.vocabulary),
        linked=message.linked,
        audio_duration_seconds=message.audio_duration_seconds,
        created_at=when(message, "created_at"),
        started_at=when(message, "started_at"),
        ended_at=when(message, "ended_at"),
        attempts=message.attempts,
        version=optional(message, "version"),
        verdict=optional(message, "verdict"),
        verdict_reason=optional(message, "verdict_reason"),
        error=optional(message, "error"),
        error_code=optional(message, "error_code"),
        queue_position=optional(message, "queue_position"),
        eta_seconds=optional(message, "eta_seconds"),
        cancel_requested=message.cancel_requested,
        file_name=optional(message, "file_name"),
    )


def transcript_version(message: session_pb2.TranscriptVersion) -> TranscriptVersion:
    return TranscriptVersion(
        version=message.version,
        kind=message.kind,
        model=message.model,
        language=message.language,
        created_at=when(message, "created_at"),
        utterance_count=message.utterance_count,
        word_count=message.word_count,
        is_current=message.is_current,
        linked=message.linked,
        verdict=message.verdict,
        verdict_reason=optional(message, "verdict_reason"),
        job_id=optional(message, "job_id"),
        uri=message.uri,
        url=message.url,
    )


def key(message: key_pb2.Key) -> Key:
    return Key(
        id=message.id,
        name=message.name,
        prefix=message.prefix,
        scopes=frozenset(Scope(scope) for scope in message.scopes),
        created_at=when(message, "created_at"),
        expires_at=when(message, "expires_at"),
        revoked_at=when(message, "revoked_at"),
        last_used_at=when(message, "last_used_at"),
        created_by=message.created_by or None,
    )


def login(message: key_pb2.Login) -> Login:
    return Login(
        id=message.id,
        created_at=when(message, "created_at"),
        expires_at=when(message, "expires_at"),
        last_used_at=when(message, "last_used_at"),
        user_agent=message.user_agent,
    )


def transcript(document: bytes) -> Transcript:
    """Parses a stored transcript.

    Raises:
        ServerError: the document is not a transcript.
    """
    try:
        content = json.loads(document)
        return Transcript(
            session_id=content["session_id"],
            language=content["language"],
            duration=float(content["duration"]),
            text=content["text"],
            utterances=tuple(_stored_utterance(item) for item in content["utterances"]),
            version=content.get("version"),
            model=content.get("model"),
            kind=content.get("kind"),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServerError("the stored transcript is malformed") from None


def _stored_utterance(item: dict[str, Any]) -> Utterance:
    words = item.get("words") or ()
    return Utterance(
        start=float(item["start"]),
        end=float(item["end"]),
        text=item["text"],
        confidence=float(item["confidence"]),
        words=tuple(
            Word(word["word"], float(word["start"]), float(word["end"]), float(word["confidence"])) for word in words
        ),
        language=item.get("language"),
    )
