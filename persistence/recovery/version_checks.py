"""Checks whether the versions of transcripts, their jobs and their objects agree. Reads only."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Integer, RowMapping, Uuid, text

from domain.job import format_job_id
from domain.transcript import utterances_of
from persistence.errors import ObjectNotFound
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.postgres.utterances import UtteranceStore
from persistence.recovery.finding import Finding
from persistence.s3.keys import parse_version_key, session_of_key, version_key
from persistence.s3.objects import ObjectStore

_VERSIONS = text("""
    SELECT t.session_id, t.version, t.utterance_count, t.linked AND EXISTS (
        SELECT FROM transcription_jobs AS j, unnest(j.chain) AS part(id)
        WHERE j.id = t.job_id
            AND NOT EXISTS (SELECT FROM realtime_sessions AS s WHERE s.id = part.id AND s.deleted_at IS NULL)
    ) AS has_deleted
    FROM transcripts AS t WHERE t.session_id = ANY(:ids) ORDER BY t.session_id, t.version
""").bindparams(*arrays(ids=Uuid))

_UTTERANCES_LEFT = text("""
    SELECT u.session_id, u.version, count(*) AS spoken,
        EXISTS (
            SELECT FROM transcription_jobs AS j
            WHERE j.session_id = u.session_id AND j.version = u.version AND j.status = 'completed'
        ) AS is_completed
    FROM transcript_utterances AS u
    WHERE u.session_id = ANY(:ids)
        AND NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = u.session_id AND t.version = u.version)
        AND NOT EXISTS (
            SELECT FROM transcription_jobs AS j
            WHERE j.session_id = u.session_id AND j.version = u.version AND j.status IN ('queued', 'running')
        )
    GROUP BY u.session_id, u.version
""").bindparams(*arrays(ids=Uuid))

_WITHOUT_WORKER = text("""
    SELECT j.id, j.session_id FROM transcription_jobs AS j
    WHERE j.session_id = ANY(:ids) AND j.status = 'running'
        AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = j.worker_id AND w.lease_expires_at > now())
""").bindparams(*arrays(ids=Uuid))

# A session that is continued leaves its recording to the job of the session that continues it.
WITHOUT_JOB: Final = """
    s.enhance_on_end AND s.audio_uri IS NOT NULL AND s.audio_duration_seconds > 0 AND s.deleted_at IS NULL
        AND NOT EXISTS (SELECT FROM transcription_jobs AS j WHERE j.session_id = s.id)
        AND NOT EXISTS (
            SELECT FROM realtime_sessions AS n WHERE n.previous_session_id = s.id AND n.deleted_at IS NULL
        )
"""
"""The condition of sessions `s` that asked for a job, have stored their audio, and have none."""
_WITHOUT_JOB = text(f"""
    SELECT s.id FROM realtime_sessions AS s WHERE s.id = ANY(:ids) AND {WITHOUT_JOB}
""").bindparams(*arrays(ids=Uuid))  # noqa: S608 - no input

_WRONG_CURRENT = text("""
    SELECT s.id, s.current_version FROM realtime_sessions AS s
    WHERE s.id = ANY(:ids) AND s.current_version > 1
        AND NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = s.id AND t.version = s.current_version)
""").bindparams(*arrays(ids=Uuid))

# A foreign key forbids them.
_WITHOUT_SESSION = text("""
    SELECT j.id, j.session_id FROM transcription_jobs AS j
    WHERE NOT EXISTS (SELECT FROM realtime_sessions AS s WHERE s.id = j.session_id) LIMIT 1000
""")

_OBJECTS = text("""
    SELECT n.id, n.version, EXISTS (
        SELECT FROM transcription_jobs AS j WHERE j.session_id = n.id AND j.version = n.version
    ) AS had_job
    FROM unnest(:ids, :versions) AS n(id, version) JOIN realtime_sessions AS s ON s.id = n.id
    WHERE s.deleted_at IS NULL
        AND NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = n.id AND t.version = n.version)
        AND NOT EXISTS (SELECT FROM transcript_utterances AS u WHERE u.session_id = n.id AND u.version = n.version)
        AND NOT EXISTS (
            SELECT FROM transcription_jobs AS j WHERE j.session_id = n.id AND j.status IN ('queued', 'running')
        )
""").bindparams(*arrays(ids=Uuid, versions=Integer))


class VersionVerifier:
    """Compares versions. All methods raise StorageUnavailable while a store is unavailable."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        self._utterances = UtteranceStore(database)

    async def of_sessions(self, session_ids: Sequence[UUID]) -> AsyncIterator[Finding]:
        """The findings about versions and jobs of stored sessions."""
        for row in await self._read(_VERSIONS, session_ids):
            for finding in await self._of_version(row):
                yield finding
        for row in await self._read(_UTTERANCES_LEFT, session_ids):
            yield _of_utterances(row)
        for row in await self._read(_WITHOUT_WORKER, session_ids):
            what = "a job that is running, and no worker is at work on it"
            yield Finding("job_without_worker", row["session_id"], what, format_job_id(row["id"]))
        for row in await self._read(_WITHOUT_JOB, session_ids):
            yield Finding("job_missing", row["id"], "asked for an enhanced transcript, and has no job")
        for row in await self._read(_WRONG_CURRENT, session_ids):
            what = f"its current transcript is version {row['current_version']}, which has no row"
            yield Finding("current_version", row["id"], what)

    async def of_jobs(self) -> AsyncIterator[Finding]:
        """The findings about jobs that belong to no session."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_WITHOUT_SESSION)).mappings().all()
        for row in rows:
            what = "a job of a session that has no row"
            yield Finding("job_without_session", row["session_id"], what, format_job_id(row["id"]))

    async def of_keys(self, keys: Sequence[str]) -> AsyncIterator[Finding]:
        """The findings about objects of versions; other keys are left out."""
        wanted = {
            (session_of_key(key), version): key for key in keys if (version := parse_version_key(key)) is not None
        }
        if not wanted:
            return
        parameters = {"ids": [each for each, _ in wanted], "versions": [number for _, number in wanted]}
        async with self._database.transaction() as connection:
            rows = (await connection.execute(_OBJECTS, parameters)).all()
        for session_id, version, had_job in rows:
            key = wanted[session_id, version]
            if had_job:
                yield Finding("version_left", session_id, f"an object of version {version}, which was deleted", key)
            else:
                what = f"an object of version {version}, which has no row and no job"
                yield Finding("version_without_row", session_id, what, key)

    async def _read(self, query: Any, session_ids: Sequence[UUID]) -> Sequence[RowMapping]:
        async with self._database.transaction() as connection:
            return (await connection.execute(query, {"ids": list(session_ids)})).mappings().all()

    async def _of_version(self, row: RowMapping) -> list[Finding]:
        session_id, version, key = row["session_id"], row["version"], version_key(row["session_id"], row["version"])
        if row["has_deleted"]:
            what = f"version {version} contains a session that was deleted"
            return [Finding("version_has_deleted", session_id, what, key)]
        texts = await self._texts(session_id, version)
        try:
            stored = [each.text.replace("\0", "") for each in utterances_of(await self._objects.read(key))]
        except ObjectNotFound:
            found = [Finding("version_missing", session_id, f"version {version} has no object", key)]
        except ValueError:
            found = [Finding("version_damaged", session_id, f"version {version} cannot be read", key)]
        else:
            if stored == texts and len(texts) == row["utterance_count"]:
                return []
            if len(texts) == row["utterance_count"]:
                what = f"the object of version {version} has {len(stored)} utterances that are not those of its rows"
                return [Finding("version_differs", session_id, what, key)]
            found = []
        if len(texts) != row["utterance_count"]:
            what = f"version {version} has {len(texts)} utterances, its row states {row['utterance_count']}"
            found.append(Finding("version_utterances", session_id, what, key))
        return found

    async def _texts(self, session_id: UUID, version: int) -> list[str]:
        return [each.text async for each in self._utterances.of_version(session_id, version)]


def _of_utterances(row: RowMapping) -> Finding:
    session_id, version = row["session_id"], row["version"]
    key = version_key(session_id, version)
    if row["is_completed"]:
        what = f"its job has completed version {version}, which has no row"
        return Finding("job_without_version", session_id, what, key)
    what = f"{row['spoken']} utterances of version {version}, which its job has not completed"
    return Finding("utterances_left", session_id, what, key)
