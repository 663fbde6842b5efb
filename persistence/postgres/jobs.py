"""The batch jobs of a tenant: creating, reading and canceling them. Every statement names the tenant.

`persistence.postgres.enhancements` creates the jobs of `enhance_on_end`. A transaction that creates a job locks the row
of its session first, as those do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, Uuid, bindparam, exists, func, insert, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import (
    EnhancementRunning,
    InvalidFilter,
    JobActive,
    JobNotFound,
    NoEnhancement,
    SessionNotFound,
    TooManyJobs,
)
from domain.job import JOB_KINDS, JOB_STATUSES, JobRecord, JobRequest, format_job_id
from domain.session_id import format_session_id, new_uuid7
from domain.tenancy import REFUSALS
from persistence.postgres.arrays import arrays
from persistence.postgres.chains import read_chain
from persistence.postgres.cursor import Cursor
from persistence.postgres.database import Database
from persistence.postgres.enhancements import REMOVE_UTTERANCES, REQUESTED_LANGUAGE
from persistence.postgres.job_state import STEP
from persistence.postgres.tables import realtime_sessions, transcription_jobs, transcripts
from persistence.session_values import StoredSession

MAX_LIMIT: Final = 100
MAX_POSITION: Final = 1000
"""Jobs before another are counted up to this number."""
_MOST_DUE: Final = 10_000
"""Waiting jobs of all tenants that are read for a position, so that it costs milliseconds whatever waits."""

_j = transcription_jobs.c
_s = realtime_sessions.c
_v = transcripts.c

_COLUMNS: Final = (
    *(_j[name] for name in ("id", "tenant_id", "session_id", "kind", "status", "model", "language", "vocabulary")),
    *(_j[name] for name in ("linked", "audio_seconds", "done_seconds", "created_at", "started_at", "ended_at")),
    *(_j[name] for name in ("cancel_requested_at", "attempts", "error", "error_code", "rate")),
    STEP.label("step"),
    _v.version,
    _v.verdict,
    _v.verdict_reason,
    _s.file_name,
)

# The seed differs from those of a tenant's sessions and keys.
_LOCK_TENANT = text("SELECT pg_advisory_xact_lock(hashtextextended(:tenant, 2))")
_LOCK_SESSION = text("""
    SELECT id FROM realtime_sessions WHERE id = :id AND tenant_id = :tenant_id AND deleted_at IS NULL
    FOR NO KEY UPDATE
""")
_LANGUAGE = text(f"""
    SELECT {REQUESTED_LANGUAGE} FROM realtime_sessions AS s
    WHERE s.id = :id AND s.tenant_id = :tenant_id AND s.deleted_at IS NULL
""")  # noqa: S608 - no input

# Tenants take turns: before the job that has n of its own tenant before it, any other tenant begins as many, and one
# more if it is its turn first. As in claims, that is the tenant with the fewest running jobs, then the one that was
# served longest ago, then the one with the oldest job.
_POSITIONS = text("""
    WITH due AS (
        SELECT id, tenant_id, created_at FROM transcription_jobs
        WHERE status = 'queued' AND due_at <= now() ORDER BY due_at LIMIT :most_due
    ), running AS (
        SELECT tenant_id, count(*) AS count FROM transcription_jobs WHERE status = 'running' GROUP BY tenant_id
    ), asked AS (
        SELECT j.id, j.tenant_id, j.created_at,
            (SELECT count(*) FROM due AS d
             WHERE d.tenant_id = j.tenant_id AND (d.created_at, d.id) < (j.created_at, j.id)) AS own
        FROM transcription_jobs AS j WHERE j.id = ANY(:ids) AND j.status = 'queued'
    ), turn AS (
        SELECT w.tenant_id, w.count, w.oldest, coalesce(r.count, 0) AS running,
            coalesce(
                (SELECT max(j.started_at) FROM transcription_jobs AS j WHERE j.tenant_id = w.tenant_id), '-infinity'
            ) AS served
        FROM (
            SELECT tenant_id, sum(n) AS count, min(created_at) AS oldest FROM (
                SELECT tenant_id, 1 AS n, created_at FROM due
                UNION ALL SELECT tenant_id, 0, created_at FROM asked
            ) AS waiting GROUP BY tenant_id
        ) AS w LEFT JOIN running AS r USING (tenant_id)
    )
    SELECT a.id, least(:most, a.own + coalesce((
        SELECT sum(least(o.count, a.own + CASE
            WHEN (o.running, o.served, o.oldest) < (t.running, t.served, t.oldest) THEN 1 ELSE 0
        END))
        FROM turn AS o WHERE o.tenant_id <> a.tenant_id
    ), 0))::int AS position
    FROM asked AS a JOIN turn AS t USING (tenant_id)
""").bindparams(*arrays(ids=Uuid))

_CANCEL = text("""
    UPDATE transcription_jobs AS j SET
        cancel_requested_at = coalesce(j.cancel_requested_at, now()),
        status = CASE j.status WHEN 'queued' THEN 'canceled' ELSE j.status END,
        ended_at = CASE j.status WHEN 'queued' THEN now() END
    WHERE j.id = :id AND j.tenant_id = :tenant_id AND j.status IN ('queued', 'running')
    RETURNING j.status
""").bindparams(bindparam("id", type_=Uuid))


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs of a tenant to list; None matches all."""

    status: str | None = None
    kind: str | None = None
    session_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of a list, newest first."""

    jobs: tuple[JobRecord, ...]
    next_cursor: str | None
    """None on the last page."""


@dataclass(frozen=True, slots=True)
class Requester:
    """The caller that requests a job, and how many jobs of its tenant may wait."""

    tenant_id: UUID
    key_id: UUID | None
    max_queued: int


class JobStore:
    """The jobs of one tenant at a time. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def requested_language(self, tenant_id: UUID, session_id: UUID) -> str:
        """The language that a session asked for: ISO 639-1, or `auto`.

        Raises:
            SessionNotFound: the tenant has no session of this id.
        """
        async with self._database.transaction() as connection:
            found = await connection.execute(_LANGUAGE, {"id": session_id, "tenant_id": tenant_id})
            language = found.scalar_one_or_none()
        if language is None:
            raise SessionNotFound(format_session_id(session_id))
        return str(language)

    async def create(
        self, requester: Requester, session_id: UUID, request: JobRequest, *, linked: bool | None = None
    ) -> JobRecord:
        """Creates a job that transcribes the stored audio of a session again.

        Args:
            requester: the caller.
            session_id: the session.
            request: what it is asked to do; its `linked` is not read.
            linked: None: if the session continues others, and all of them have stored their audio.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            AudioNotStored, SessionActive: the audio of the session, or of one in its joined recording, is not stored.
            InvalidFilter: the joined recording is of more than 1000 sessions.
            EnhancementRunning: another job of the session has not ended.
            TooManyJobs: the tenant has as many queued jobs as it may.
        """
        async with self._database.transaction() as connection:
            return await self._create(connection, requester, session_id, request, linked)

    async def retry(self, requester: Requester, job_id: UUID) -> JobRecord:
        """Creates a job like one that has ended.

        Raises:
            JobNotFound: the tenant has no job of this id.
            JobActive: it has not ended.
            Further errors are those of `create`.
        """
        async with self._database.transaction() as connection:
            job = await self._get(connection, requester.tenant_id, job_id)
            if job.ended_at is None:
                raise JobActive(format_job_id(job_id))
            return await self._create(connection, requester, job.session_id, job.request, job.request.linked)

    async def _create(
        self,
        connection: AsyncConnection,
        requester: Requester,
        session_id: UUID,
        request: JobRequest,
        linked: bool | None,
    ) -> JobRecord:
        tenant_id = requester.tenant_id
        # Of two at a time both would see the last place.
        await lock_tenant(connection, tenant_id)
        await connection.execute(_LOCK_SESSION, {"id": session_id, "tenant_id": tenant_id})
        chain = await _recording(connection, tenant_id, session_id, linked)
        await _refuse_another(connection, session_id)
        await refuse_too_many(connection, tenant_id, requester.max_queued)
        job_id = new_uuid7()
        values = {
            "id": job_id,
            "tenant_id": tenant_id,
            "session_id": session_id,
            "kind": "upload" if chain[-1].source == "upload" else "enhance",
            "model": request.model,
            "language": request.language,
            "vocabulary": list(request.vocabulary),
            "linked": len(chain) > 1,
            "audio_seconds": _joined_seconds(chain),
            "requested_by": requester.key_id,
        }
        await connection.execute(insert(transcription_jobs).values(values))
        return await self._get(connection, tenant_id, job_id)

    async def list(
        self, tenant_id: UUID, job_filter: JobFilter | None = None, limit: int = 50, cursor: str | None = None
    ) -> JobPage:
        """One page of the tenant's jobs, newest first.

        Args:
            tenant_id: the tenant.
            job_filter: the jobs to list.
            limit: 1 to 100.
            cursor: `next_cursor` of the page before.

        Raises:
            InvalidFilter: a parameter is out of range.
        """
        job_filter = job_filter or JobFilter()
        _refuse_bad_filter(job_filter, limit)
        query = _jobs(tenant_id).order_by(_j.created_at.desc(), _j.id.desc()).limit(limit + 1)
        for column, value in (
            (_j.status, job_filter.status),
            (_j.kind, job_filter.kind),
            (_j.session_id, job_filter.session_id),
        ):
            if value is not None:
                query = query.where(column == value)
        if cursor:
            after = Cursor.decode(cursor)
            query = query.where(tuple_(_j.created_at, _j.id) < tuple_(after.started_at, after.id))
        async with self._database.transaction() as connection:
            jobs = await _read(connection, query)
        page = tuple(jobs[:limit])
        has_next = len(jobs) > limit
        return JobPage(page, Cursor(page[-1].created_at, page[-1].id).encode() if has_next else None)

    async def get(self, tenant_id: UUID, job_id: UUID) -> JobRecord:
        """One job.

        Raises:
            JobNotFound: the tenant has no job of this id.
        """
        async with self._database.transaction() as connection:
            return await self._get(connection, tenant_id, job_id)

    async def newest(self, tenant_id: UUID, session_id: UUID) -> JobRecord:
        """The newest job of a session's recording.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            NoEnhancement: it has had no job.
        """
        newest = _jobs(tenant_id).where(_j.session_id == session_id).order_by(_j.created_at.desc(), _j.id.desc())
        exists_here = select(exists().where(_s.id == session_id, _s.tenant_id == tenant_id, _s.deleted_at.is_(None)))
        async with self._database.transaction() as connection:
            jobs = await _read(connection, newest.limit(1))
            if not jobs and not (await connection.execute(exists_here)).scalar_one():
                raise SessionNotFound(format_session_id(session_id))
        if not jobs:
            raise NoEnhancement(format_session_id(session_id))
        return jobs[0]

    async def cancel(self, tenant_id: UUID, job_id: UUID) -> JobRecord:
        """Cancels a queued job at once, and asks the worker of a running one to stop; returns the job after that.

        What a queued job had transcribed in earlier attempts is removed. A job that has ended does not change.

        Raises:
            JobNotFound: the tenant has no job of this id.
        """
        async with self._database.transaction() as connection:
            job = await self._get(connection, tenant_id, job_id)
            await connection.execute(_LOCK_SESSION, {"id": job.session_id, "tenant_id": tenant_id})
            status = (await connection.execute(_CANCEL, {"id": job_id, "tenant_id": tenant_id})).scalar_one_or_none()
            if status == "canceled":
                await connection.execute(REMOVE_UTTERANCES, {"ids": [job_id]})
            return await self._get(connection, tenant_id, job_id)

    async def _get(self, connection: AsyncConnection, tenant_id: UUID, job_id: UUID) -> JobRecord:
        jobs = await _read(connection, _jobs(tenant_id).where(_j.id == job_id))
        if not jobs:
            raise JobNotFound(format_job_id(job_id))
        return jobs[0]


def _jobs(tenant_id: UUID) -> Select[*tuple[Any, ...]]:
    """The jobs of a tenant, without those of sessions that are being deleted."""
    of_session = (_s.id == _j.session_id) & (_s.deleted_at.is_(None))
    of_job = (_v.session_id == _j.session_id) & (_v.job_id == _j.id)
    tables = transcription_jobs.join(realtime_sessions, of_session).outerjoin(transcripts, of_job)
    return select(*_COLUMNS).select_from(tables).where(_j.tenant_id == tenant_id)


async def _read(connection: AsyncConnection, query: Select[*tuple[Any, ...]]) -> Sequence[JobRecord]:
    rows = (await connection.execute(query)).mappings().all()
    positions = await _positions(connection, (row["id"] for row in rows if row["status"] == "queued"))
    return [_record(row, positions.get(row["id"])) for row in rows]


async def _positions(connection: AsyncConnection, job_ids: Iterable[UUID]) -> dict[UUID, int]:
    """How many due jobs are before each of these queued ones."""
    ids = list(job_ids)
    if not ids:
        return {}
    rows = await connection.execute(_POSITIONS, {"ids": ids, "most_due": _MOST_DUE, "most": MAX_POSITION})
    return {row.id: row.position for row in rows}


def _record(row: Mapping[Any, Any], position: int | None) -> JobRecord:
    left = max(0.0, row["audio_seconds"] - row["done_seconds"])
    has_rate = row["status"] == "running" and row["rate"] is not None and row["rate"] > 0
    return JobRecord(
        id=row["id"],
        tenant_id=row["tenant_id"],
        session_id=row["session_id"],
        kind=row["kind"],
        status=row["status"],
        step=row["step"],
        request=JobRequest(row["model"], row["language"], tuple(row["vocabulary"]), row["linked"]),
        audio_seconds=row["audio_seconds"],
        done_seconds=row["done_seconds"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        cancel_requested=row["cancel_requested_at"] is not None,
        attempts=row["attempts"],
        version=row["version"],
        verdict=row["verdict"],
        verdict_reason=row["verdict_reason"],
        error=row["error"],
        error_code=row["error_code"],
        queue_position=position,
        eta_seconds=left / row["rate"] if has_rate else None,
        file_name=row["file_name"],
    )


async def _recording(
    connection: AsyncConnection, tenant_id: UUID, session_id: UUID, linked: bool | None
) -> tuple[StoredSession, ...]:
    """The sessions whose joined recording the job transcribes, oldest first; their audio is stored.

    Raises:
        SessionNotFound, AudioNotStored, SessionActive, InvalidFilter: as `JobStore.create`.
    """
    chain = await read_chain(connection, tenant_id, session_id, linked=linked is not False)
    # First, so that the message names the session that was asked for where it has no audio itself.
    chain[-1].require_audio()
    if linked is None and not all(session.store_audio for session in chain):
        return chain[-1:]
    for session in chain:
        session.require_audio()
    return chain


def _joined_seconds(chain: Sequence[StoredSession]) -> float:
    """The length of the joined recording: of each session, the audio before the next one begins."""
    seconds = chain[-1].audio_duration_seconds
    for session, following in pairwise(chain):
        resumed_at = following.resume_from_seconds
        seconds += session.audio_duration_seconds if resumed_at is None else resumed_at
    return seconds


async def _refuse_another(connection: AsyncConnection, session_id: UUID) -> None:
    query = select(_j.id).where(_j.session_id == session_id, _j.status.in_(("queued", "running"))).limit(1)
    other = (await connection.execute(query)).scalar_one_or_none()
    if other is not None:
        raise EnhancementRunning(format_session_id(session_id), format_job_id(other))


async def lock_tenant(connection: AsyncConnection, tenant_id: UUID) -> None:
    """Lets one transaction at a time create jobs of a tenant, until it ends."""
    await connection.execute(_LOCK_TENANT, {"tenant": str(tenant_id)})


async def refuse_too_many(connection: AsyncConnection, tenant_id: UUID, max_queued: int) -> None:
    """Refuses another job of a tenant; `lock_tenant` keeps the answer true.

    Raises:
        TooManyJobs: the tenant has `max_queued` queued jobs.
    """
    some = select(_j.id).where(_j.tenant_id == tenant_id, _j.status == "queued").limit(max_queued)
    queued = (await connection.execute(select(func.count()).select_from(some.subquery()))).scalar_one()
    if queued >= max_queued:
        REFUSALS.labels("jobs").inc()
        raise TooManyJobs(max_queued)


def _refuse_bad_filter(job_filter: JobFilter, limit: int) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidFilter("limit", f"limit must be 1 to {MAX_LIMIT}")
    if job_filter.status is not None and job_filter.status not in JOB_STATUSES:
        raise InvalidFilter("status", f"status must be one of {', '.join(JOB_STATUSES)}")
    if job_filter.kind is not None and job_filter.kind not in JOB_KINDS:
        raise InvalidFilter("kind", f"kind must be one of {', '.join(JOB_KINDS)}")
