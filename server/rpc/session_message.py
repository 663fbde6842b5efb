"""Conversion of a session's record to a message."""

from uuid import UUID

from dalston.v1 import session_pb2 as pb

from domain.job import TranscriptVersion, format_job_id
from domain.session import SessionRecord
from domain.session_id import format_session_id
from server.rpc.times import timestamp


def version_message(version: TranscriptVersion) -> pb.TranscriptVersion:
    """The message of a version of a transcript."""
    path = f"/v1/realtime/sessions/{format_session_id(version.session_id)}/transcript?version={version.version}"
    return pb.TranscriptVersion(
        version=version.version,
        kind=version.kind,
        model=version.model,
        language=version.language,
        created_at=timestamp(version.created_at),
        utterance_count=version.utterance_count,
        word_count=version.word_count,
        is_current=version.is_current,
        linked=version.linked,
        verdict=version.verdict,
        verdict_reason=version.verdict_reason,
        job_id=None if version.job_id is None else format_job_id(version.job_id),
        uri=version.uri,
        url=f"{path}&linked=true" if version.linked else path,
    )


def session_message(record: SessionRecord) -> pb.Session:
    """The message of a record."""
    session_id = format_session_id(record.id)
    path = f"/v1/realtime/sessions/{session_id}"
    return pb.Session(
        id=session_id,
        status=record.status,
        language=record.language,
        model=record.model,
        encoding=record.encoding,
        sample_rate=record.sample_rate,
        channels=record.channels,
        store_audio=record.store_audio,
        store_transcript=record.store_transcript,
        enhance_on_end=record.enhance_on_end,
        audio_duration_seconds=record.audio_duration_seconds,
        utterance_count=record.utterance_count,
        segment_count=record.utterance_count,
        word_count=record.word_count,
        started_at=timestamp(record.started_at),
        ended_at=timestamp(record.ended_at),
        audio_uri=record.audio_uri,
        audio_url=f"{path}/audio" if record.audio_uri else None,
        transcript_uri=record.transcript_uri,
        transcript_url=f"{path}/transcript" if record.transcript_version is not None else None,
        previous_session_id=_format(record.previous_session_id),
        resume_from_seconds=record.resume_from_seconds,
        next_session_id=_format(record.next_session_id),
        enhancement_job_id=record.enhancement_job_id,
        enhancement_status=record.enhancement.status if record.enhancement else None,
        enhancement_progress=record.enhancement.progress if record.enhancement else None,
        enhancement_step=record.enhancement.step if record.enhancement else None,
        worker_id=record.worker_id,
        client_ip=record.client_ip,
        error=record.error,
        source=record.source,
        transcript_version=record.transcript_version,
        transcript_count=record.transcript_count,
    )


def _format(session_id: UUID | None) -> str | None:
    return None if session_id is None else format_session_id(session_id)
