"""Conversion of a batch job's record to a message."""

from dalston.v1 import job_pb2 as pb

from domain.job import JobRecord, format_job_id
from domain.session_id import format_session_id
from server.rpc.times import timestamp


def job_message(record: JobRecord) -> pb.Job:
    """The message of a record."""
    return pb.Job(
        id=format_job_id(record.id),
        session_id=format_session_id(record.session_id),
        kind=record.kind,
        status=record.status,
        step=record.step,
        progress=record.progress,
        model=record.request.model,
        language=record.request.language,
        vocabulary=record.request.vocabulary,
        linked=record.request.linked,
        audio_duration_seconds=record.audio_seconds,
        created_at=timestamp(record.created_at),
        started_at=timestamp(record.started_at),
        ended_at=timestamp(record.ended_at),
        attempts=record.attempts,
        version=record.version,
        verdict=record.verdict,
        verdict_reason=record.verdict_reason,
        error=record.error,
        error_code=record.error_code,
        queue_position=record.queue_position,
        eta_seconds=record.eta_seconds,
        cancel_requested=record.cancel_requested,
        file_name=record.file_name,
    )
