"""The versions of the transcripts of sessions.

The live transcript is version 1 and has no row in `transcripts`: its figures are in the row of its session, its finals
in `session_utterances`. All others have a row, also the first one of an uploaded file.
"""

from collections.abc import Sequence
from typing import Final, NoReturn
from uuid import UUID

from sqlalchemy import Integer, Uuid, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import InvalidFilter, SessionActive, SessionNotFound, TranscriptNotFound, TranscriptNotStored
from domain.job import TranscriptVersion
from domain.session_id import format_session_id
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.session_values import StoredSession

LIVE: Final = 1
"""The version of the live transcript."""

_LIST: Final = """
    SELECT s.id AS session_id, 1 AS version, 'live' AS kind, s.model, s.language, s.ended_at AS created_at,
        s.utterance_count, s.word_count, coalesce(s.current_version, 1) = 1 AS is_current, false AS linked,
        'accepted' AS verdict, NULL AS verdict_reason, NULL::uuid AS job_id, s.transcript_uri AS uri,
        s.audio_duration_seconds AS audio_seconds, NULL::bytea AS chain_key,
        coalesce(s.current_version = 1, false) AS was_chosen
    FROM realtime_sessions AS s
    WHERE {sessions} AND s.source = 'live' AND s.transcript_uri IS NOT NULL
    UNION ALL
    SELECT t.session_id, t.version, t.kind, t.model, t.language, t.created_at,
        t.utterance_count, t.word_count, coalesce(s.current_version, 1) = t.version, t.linked,
        t.verdict, t.verdict_reason, t.job_id, t.uri, t.audio_seconds, t.chain_key, false
    FROM realtime_sessions AS s JOIN transcripts AS t ON t.session_id = s.id
    WHERE {sessions}
    ORDER BY session_id, version
"""
_OF_SESSIONS = text(_LIST.format(sessions="s.id = ANY(:ids)")).bindparams(*arrays(ids=Uuid))

_LOCK = text("""
    SELECT id FROM realtime_sessions
    WHERE id = :id AND tenant_id = :tenant_id AND deleted_at IS NULL FOR NO KEY UPDATE
""")
_LOCK_ANY = text("SELECT id FROM realtime_sessions WHERE id = :id FOR NO KEY UPDATE")
_SET_CURRENT = text("UPDATE realtime_sessions SET current_version = :version WHERE id = :id")
_IS_AWAITED = text("""
    SELECT EXISTS (
        SELECT FROM transcription_jobs WHERE session_id = :id AND kind = 'upload' AND status IN ('queued', 'running')
    )
""")
_DELETE = text("""
    WITH spoken AS (DELETE FROM transcript_utterances WHERE session_id = :id AND version = :version)
    DELETE FROM transcripts WHERE session_id = :id AND version = :version RETURNING version
""")

# Only where the current one is gone: a job, or the tenant, may have chosen it otherwise meanwhile.
_CHOOSE_CURRENT = text("""
    UPDATE realtime_sessions AS s SET current_version = (
        SELECT max(t.version) FROM transcripts AS t
        WHERE t.session_id = s.id AND t.version < s.current_version AND t.verdict = 'accepted' AND NOT t.linked
    )
    WHERE s.id = :id AND s.current_version IS NOT NULL AND s.current_version > 1
        AND NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = s.id AND t.version = s.current_version)
""")

# The jobs of sessions that continue one and have it in their chain, the earlier sessions first.
_CONTAINING: Final = """
    WITH RECURSIVE later AS (
        SELECT id, 1 AS place FROM realtime_sessions WHERE previous_session_id = :id
        UNION ALL
        SELECT s.id, later.place + 1 FROM realtime_sessions AS s JOIN later ON s.previous_session_id = later.id
    ), containing AS MATERIALIZED (
        SELECT j.session_id, j.id AS job_id, j.version, later.place
        FROM later JOIN transcription_jobs AS j ON j.session_id = later.id AND :id = ANY(j.chain)
    )
"""
_LOCK_CONTAINING = text(f"""{_CONTAINING}
    SELECT s.id FROM containing AS c JOIN realtime_sessions AS s ON s.id = c.session_id
    ORDER BY c.place FOR NO KEY UPDATE OF s
""")  # noqa: S608 - no input
# A statement of its own: it sees the versions that were stored before the locks were acquired.
_READ_CONTAINING = text(f"""{_CONTAINING}
    SELECT c.session_id, c.job_id, c.version, t.version IS NOT NULL AS is_stored
    FROM containing AS c LEFT JOIN transcripts AS t ON t.session_id = c.session_id AND t.version = c.version
    ORDER BY c.place, c.version
""")  # noqa: S608 - no input
# A job that waits begins anew, with the recording that is left. A worker finds by itself that the recording of its job
# has changed.
_RESET = text("""
    WITH waiting AS (
        UPDATE transcription_jobs SET plan = NULL, chain = NULL, chain_key = NULL, done_windows = 0, done_seconds = 0
        WHERE id = ANY(:ids) AND status = 'queued' RETURNING session_id, version
    )
    DELETE FROM transcript_utterances AS u USING waiting AS w
    WHERE u.session_id = w.session_id AND u.version = w.version
""").bindparams(*arrays(ids=Uuid))

# What is left of versions whose deletion, or whose job, has not removed all of it. A version that a job may still write
# has an unended job; the number of one that has ended is never used again.
_SUPERFLUOUS = text("""
    SELECT n.id, n.version FROM unnest(:ids, :versions) AS n(id, version)
    WHERE NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = n.id AND t.version = n.version)
        AND NOT EXISTS (SELECT FROM transcript_utterances AS u WHERE u.session_id = n.id AND u.version = n.version)
        AND NOT EXISTS (
            SELECT FROM transcription_jobs AS j WHERE j.session_id = n.id AND j.status IN ('queued', 'running')
        )
        AND EXISTS (SELECT FROM transcription_jobs AS j WHERE j.session_id = n.id AND j.version = n.version)
""").bindparams(*arrays(ids=Uuid, versions=Integer))


class TranscriptVersions:
    """Reads and changes versions. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, session_ids: Sequence[UUID]) -> dict[UUID, tuple[TranscriptVersion, ...]]:
        """The stored versions of each session, in their order. One that a job is still writing is not among them.

        It names no tenant: the caller must have read the sessions as their tenant before.
        """
        async with self._database.transaction() as connection:
            found = await _read(connection, session_ids)
        by_session: dict[UUID, list[TranscriptVersion]] = {session_id: [] for session_id in session_ids}
        for each in found:
            by_session[each.session_id].append(each)
        return {session_id: tuple(versions) for session_id, versions in by_session.items()}

    async def list_of(self, session: StoredSession) -> tuple[TranscriptVersion, ...]:
        """The stored versions of a session, in their order.

        Raises:
            TranscriptNotStored: it stored none.
            SessionActive: the session is running, or none is stored yet.
        """
        versions = (await self.of([session.id]))[session.id]
        if not versions:
            await self.refuse(session, LIVE)
        return versions

    async def is_being_written(self, session: StoredSession) -> bool:
        """Whether a job may still write the first transcript of an uploaded file."""
        if session.source != "upload" or session.transcript_uri is not None:
            return False
        async with self._database.transaction() as connection:
            return bool((await connection.execute(_IS_AWAITED, {"id": session.id})).scalar_one())

    async def refuse(self, session: StoredSession, version: int) -> NoReturn:
        """Raises the error for a version that is not stored; 0 is the current one.

        Raises:
            TranscriptNotFound: the session has no such version.
            TranscriptNotStored: it has none at all.
            SessionActive: the session is running, or its first transcript is not stored yet.
        """
        if version > LIVE:
            raise TranscriptNotFound(session.session_id, version)
        if session.source == "live":
            session.require_transcript()
            raise TranscriptNotFound(session.session_id, LIVE)
        if session.status == "active":
            raise SessionActive(session.session_id)
        async with self._database.transaction() as connection:
            is_awaited = (await connection.execute(_IS_AWAITED, {"id": session.id})).scalar_one()
        if is_awaited:
            raise SessionActive(session.session_id, "is not transcribed to its end yet: try again in a while")
        raise TranscriptNotStored(session.session_id)

    async def set_current(self, tenant_id: UUID, session_id: UUID, version: int) -> TranscriptVersion:
        """Makes a stored version the current one; returns it.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            TranscriptNotFound: the session has no such version.
        """
        async with self._database.transaction() as connection:
            await _lock(connection, tenant_id, session_id)
            found = {each.version for each in await _read(connection, [session_id])}
            if version not in found:
                raise TranscriptNotFound(format_session_id(session_id), version)
            await connection.execute(_SET_CURRENT, {"id": session_id, "version": version})
            versions = await _read(connection, [session_id])
        return next(each for each in versions if each.version == version)

    async def delete(self, tenant_id: UUID, session_id: UUID, version: int) -> None:
        """Deletes the row and the utterances of a version; its object has to be deleted next.

        Where it is the current one, the newest accepted version before it becomes the current one, or the live one. The
        reaper deletes the object if the process ends before that.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            TranscriptNotFound: the session has no such version.
            InvalidFilter: it is version 1, which is deleted with its session.
        """
        async with self._database.transaction() as connection:
            await _lock(connection, tenant_id, session_id)
            if version == LIVE:
                raise InvalidFilter("version", "version 1 is deleted together with its session")
            await delete_versions(connection, session_id, [version])

    async def superfluous(self, versions: Sequence[tuple[UUID, int]]) -> frozenset[tuple[UUID, int]]:
        """Those versions of which Postgres has nothing, although a job that has ended wrote them.

        Their objects are what an interrupted deletion or an unsuccessful job has left.
        """
        parameters = {"ids": [each for each, _ in versions], "versions": [number for _, number in versions]}
        async with self._database.transaction() as connection:
            rows = await connection.execute(_SUPERFLUOUS, parameters)
            return frozenset((row.id, row.version) for row in rows)


async def _lock(connection: AsyncConnection, tenant_id: UUID, session_id: UUID) -> None:
    """Locks the row of a session of a tenant, as `lock_session` does."""
    if (await connection.execute(_LOCK, {"id": session_id, "tenant_id": tenant_id})).one_or_none() is None:
        raise SessionNotFound(format_session_id(session_id))


async def _read(connection: AsyncConnection, session_ids: Sequence[UUID]) -> list[TranscriptVersion]:
    rows = (await connection.execute(_OF_SESSIONS, {"ids": list(session_ids)})).mappings()
    return [TranscriptVersion(**{str(name): value for name, value in row.items()}) for row in rows]


async def delete_versions(connection: AsyncConnection, session_id: UUID, versions: Sequence[int]) -> None:
    """Deletes the rows of versions of a session, whose row is locked, and chooses another current one if needed.

    Raises:
        TranscriptNotFound: the session has no such version.
    """
    for version in versions:
        deleted = await connection.execute(_DELETE, {"id": session_id, "version": version})
        if deleted.one_or_none() is None:
            raise TranscriptNotFound(format_session_id(session_id), version)
    await choose_current(connection, session_id)


async def lock_session(connection: AsyncConnection, session_id: UUID) -> None:
    """Locks the row of a session, before the rows of its versions: no job completes a version meanwhile."""
    await connection.execute(_LOCK_ANY, {"id": session_id})


async def choose_current(connection: AsyncConnection, session_id: UUID) -> None:
    """Chooses the current version of a session, whose row is locked, again if the one it names does not exist."""
    await connection.execute(_CHOOSE_CURRENT, {"id": session_id})


async def delete_containing(connection: AsyncConnection, session_id: UUID) -> list[tuple[UUID, int]]:
    """Deletes the versions of joined recordings that contain a session, and what waiting jobs have transcribed of it.

    Returns the versions, whose objects have to be deleted next.
    """
    if not (await connection.execute(_LOCK_CONTAINING, {"id": session_id})).all():
        return []
    found = (await connection.execute(_READ_CONTAINING, {"id": session_id})).all()
    await connection.execute(_RESET, {"ids": [row.job_id for row in found]})
    by_session: dict[UUID, list[int]] = {}
    for row in found:
        if row.is_stored:
            by_session.setdefault(row.session_id, []).append(row.version)
    for later, versions in by_session.items():
        await delete_versions(connection, later, versions)
    return [(row.session_id, row.version) for row in found if row.is_stored]
