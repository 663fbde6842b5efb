"""The statements of uploads: sessions whose audio is a file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, insert, text, update

from domain.job import JobRequest
from domain.session_id import new_uuid7
from domain.tenancy import Caller
from persistence.errors import RowLost
from persistence.postgres.database import Database
from persistence.postgres.jobs import lock_tenant, refuse_too_many
from persistence.postgres.storage_usage import StorageUsage
from persistence.postgres.tables import realtime_sessions, transcription_jobs

_t = realtime_sessions.c

_SAME_SECONDS: Final = 600.0
"""How long after its end a job is the answer to the same file with the same configuration."""

# Of two uploads of one file at the same time, the second sees the job of the first.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(encode(:fingerprint, 'hex'), 1))")
_SAME = text("""
    SELECT j.id FROM transcription_jobs AS j JOIN realtime_sessions AS s ON s.id = j.session_id
    WHERE j.fingerprint = :fingerprint AND j.tenant_id = :tenant_id AND s.deleted_at IS NULL
        AND (j.status IN ('queued', 'running')
            OR (j.status = 'completed' AND j.ended_at > now() - make_interval(secs => :same_seconds)))
    ORDER BY j.created_at DESC LIMIT 1
""").bindparams(bindparam("tenant_id", type_=Uuid))


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """An uploaded file, complete in S3."""

    session_id: UUID
    uri: str
    size: int
    """In bytes."""
    media_type: str
    file_name: str | None
    fingerprint: bytes
    """SHA-256 of the file and its configuration."""
    expires_in_seconds: float | None
    """None: it is kept."""


class UploadRows:
    """Writes the rows of uploads of one process. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        check: Callable[[], None] = lambda: None,
        usage: StorageUsage | None = None,
    ) -> None:
        """
        Args:
            check: called before every write; raises if this process may not write.
            usage: the count of the process.
        """
        self._database = database
        self._worker_id = worker_id
        self._check = check
        self._usage = usage or StorageUsage()

    async def begin(self, caller: Caller, client_ip: str | None) -> UUID:
        """Inserts the session of a file that is being uploaded; returns its id.

        Raises:
            StorageQuotaExceeded: the tenant has used up its storage.
        """
        self._check()
        session_id = new_uuid7()
        async with self._database.transaction() as connection:
            if (limit := caller.limits.max_storage_bytes) is not None:
                await self._usage.refuse_too_much(connection, caller.tenant_id, limit, continues=False)
            await connection.execute(
                insert(realtime_sessions).values(
                    id=session_id,
                    tenant_id=caller.tenant_id,
                    worker_id=self._worker_id,
                    started_at=func.now(),
                    source="upload",
                    language="auto",
                    model="",
                    # What the model gets of any file.
                    encoding="pcm_s16le",
                    sample_rate=16_000,
                    channels=1,
                    store_audio=True,
                    # Until there is a transcript, which a worker writes: no server has to complete it.
                    store_transcript=False,
                    enhance_on_end=False,
                    client_ip=client_ip,
                )
            )
        return session_id

    async def complete(
        self, caller: Caller, file: UploadedFile, request: JobRequest, max_queued: int
    ) -> tuple[UUID, bool]:
        """Ends the session of a file and creates its job; returns the job's id, and whether it is a new one.

        Where the tenant has a job of the same file and configuration that has not ended, or has completed within ten
        minutes, that is the job, and the session stays as it is: the caller deletes it.

        Raises:
            TooManyJobs: the tenant has `max_queued` queued jobs.
            RowLost: the session is gone.
        """
        self._check()
        names: dict[str, Any] = {"fingerprint": file.fingerprint, "tenant_id": caller.tenant_id}
        async with self._database.transaction() as connection:
            await connection.execute(_LOCK, {"fingerprint": file.fingerprint})
            same = await connection.execute(_SAME, {**names, "same_seconds": _SAME_SECONDS})
            if (found := same.scalar_one_or_none()) is not None:
                return UUID(str(found)), False
            await lock_tenant(connection, caller.tenant_id)
            await refuse_too_many(connection, caller.tenant_id, max_queued)
            ended = update(realtime_sessions).where(
                _t.id == file.session_id, _t.worker_id == self._worker_id, _t.deleted_at.is_(None)
            )
            values = {
                "status": "completed",
                "ended_at": func.now(),
                "audio_uri": file.uri,
                "stored_bytes": file.size,
                "model": request.model,
                "language": request.language,
                "media_type": file.media_type,
                "file_name": file.file_name,
                "expires_at": _later(file.expires_in_seconds),
            }
            if not (await connection.execute(ended.values(values))).rowcount:
                raise RowLost
            job_id = new_uuid7()
            await connection.execute(
                insert(transcription_jobs).values(
                    id=job_id,
                    tenant_id=caller.tenant_id,
                    session_id=file.session_id,
                    kind="upload",
                    model=request.model,
                    language=request.language,
                    vocabulary=list(request.vocabulary),
                    requested_by=caller.key_id,
                    fingerprint=file.fingerprint,
                )
            )
        return job_id, True


def _later(seconds: float | None) -> Any:
    return None if seconds is None else func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
