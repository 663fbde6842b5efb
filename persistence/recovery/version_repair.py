"""Repairs what `version_checks` finds, as far as nothing is lost by it.

A version has two copies of its utterances, its rows and its object: either is written again from the other.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Final
from uuid import UUID

from sqlalchemy import Double, Integer, RowMapping, Text, Uuid, bindparam, text

from domain.job import parse_job_id
from domain.session_id import format_session_id
from domain.transcript import DocumentVersion, Utterance, document, utterances_of
from persistence.errors import ObjectNotFound
from persistence.postgres import enhancements
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.postgres.transcript_versions import TranscriptVersions, choose_current, delete_versions, lock_session
from persistence.postgres.utterances import UtteranceStore
from persistence.recovery.finding import Finding
from persistence.recovery.version_checks import WITHOUT_JOB
from persistence.s3.keys import parse_version_key, version_key
from persistence.s3.objects import ObjectStore
from persistence.storing.deletion import delete_version_objects

_READ = text("""
    SELECT t.kind, t.model, t.language, t.audio_seconds, t.utterance_count
    FROM transcripts AS t WHERE t.session_id = :id AND t.version = :version
""")
_DELETE_UTTERANCES = text("DELETE FROM transcript_utterances WHERE session_id = :id AND version = :version")
_INSERT_UTTERANCES = text("""
    INSERT INTO transcript_utterances (
        session_id, version, index, start, "end", text, confidence, language, words, language_probability
    )
    SELECT :id, :version, n.index - 1, n.start, n."end", n.text, n.confidence, n.language, n.words::jsonb, n.probability
    FROM unnest(:starts, :ends, :texts, :confidences, :languages, :words, :probabilities)
        WITH ORDINALITY AS n(start, "end", text, confidence, language, words, probability, index)
""").bindparams(
    *(bindparam("id", type_=Uuid), bindparam("version", type_=Integer)),
    *arrays(
        starts=Double,
        ends=Double,
        texts=Text,
        confidences=Double,
        languages=Text,
        words=Text,
        probabilities=Double,
    ),
)
# Only what a job has left that ended without completing it.
_DELETE_LEFT = text("""
    DELETE FROM transcript_utterances AS u
    WHERE u.session_id = :id AND u.version = :version
        AND NOT EXISTS (SELECT FROM transcripts AS t WHERE t.session_id = u.session_id AND t.version = u.version)
        AND EXISTS (
            SELECT FROM transcription_jobs AS j
            WHERE j.session_id = u.session_id AND j.version = u.version AND j.status IN ('failed', 'canceled')
        )
""")
# Where it is the current one it was accepted. Otherwise its verdict is lost.
_RESTORE = text("""
    INSERT INTO transcripts (
        session_id, version, kind, job_id, model, language, linked, chain_key, created_at, audio_seconds,
        utterance_count, word_count, uri, verdict, verdict_reason
    )
    SELECT s.id, j.version, :kind, j.id, :model, :language, j.linked, CASE WHEN j.linked THEN j.chain_key END,
        j.ended_at, :seconds, :utterances, :words, :uri,
        CASE WHEN s.current_version = j.version THEN 'accepted' ELSE 'doubtful' END,
        CASE WHEN s.current_version = j.version THEN NULL ELSE 'its verdict was lost with its row' END
    FROM transcription_jobs AS j JOIN realtime_sessions AS s ON s.id = j.session_id
    WHERE j.session_id = :id AND j.version = :version AND j.status = 'completed'
    ON CONFLICT DO NOTHING
    RETURNING version
""")
_GIVE_BACK = text("""
    UPDATE transcription_jobs AS j SET status = 'queued', worker_id = NULL, step = NULL, due_at = now()
    WHERE j.id = :job_id AND j.status = 'running'
        AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = j.worker_id AND w.lease_expires_at > now())
    RETURNING j.id
""")
_HAS_NO_JOB = text(f"SELECT s.id FROM realtime_sessions AS s WHERE s.id = :id AND {WITHOUT_JOB}")  # noqa: S608 - no input
_DELETE_JOB = text("""
    DELETE FROM transcription_jobs AS j
    WHERE j.id = :job_id AND NOT EXISTS (SELECT FROM realtime_sessions AS s WHERE s.id = j.session_id) RETURNING j.id
""")


class VersionRepairer:
    """Repairs findings; each may be repaired again.

    All methods raise StorageUnavailable while Postgres or S3 is unavailable, and what `check` raises.
    """

    def __init__(self, database: Database, objects: ObjectStore, check: Callable[[], None]) -> None:
        """`check` is called before a row is written and raises when this process may not write."""
        self._database = database
        self._objects = objects
        self._check = check
        self._versions = TranscriptVersions(database)
        self._utterances = UtteranceStore(database)
        self.repairs: Final[dict[str, Callable[[UUID, Finding], Awaitable[bool]]]] = {
            "version_missing": self._write_object,
            "version_damaged": self._write_object,
            "version_differs": self._write_object,
            "version_utterances": self._write_rows,
            "version_has_deleted": self._delete_version,
            "version_left": self._delete_object,
            "utterances_left": self._delete_utterances,
            "current_version": self._choose_current,
            "job_without_version": self._restore,
            "job_without_worker": self._give_back,
            "job_without_session": self._delete_job,
            "job_missing": self._create_job,
        }
        """The repair of each kind of finding; it returns whether the finding is repaired."""

    async def _write_object(self, session_id: UUID, finding: Finding) -> bool:
        version = _version_of(finding)
        row, spoken = await self._read(session_id, version)
        if row is None or len(spoken) != row["utterance_count"]:
            return False
        named = DocumentVersion(version, row["model"], row["kind"])
        name = format_session_id(session_id)
        body = document(name, row["language"], row["audio_seconds"], spoken, named)
        await self._objects.put(version_key(session_id, version), body, "application/json")
        return True

    async def _write_rows(self, session_id: UUID, finding: Finding) -> bool:
        version = _version_of(finding)
        row, _ = await self._read(session_id, version)
        stored = await self._stored(session_id, version)
        if row is None or stored is None or len(stored) != row["utterance_count"]:
            return False
        self._check()
        async with self._database.transaction() as connection:
            await connection.execute(_DELETE_UTTERANCES, {"id": session_id, "version": version})
            await connection.execute(_INSERT_UTTERANCES, _columns(session_id, version, stored))
        return True

    async def _delete_version(self, session_id: UUID, finding: Finding) -> bool:
        version = _version_of(finding)
        self._check()
        async with self._database.transaction() as connection:
            await lock_session(connection, session_id)
            await delete_versions(connection, session_id, [version])
        await delete_version_objects(self._objects, [(session_id, version)])
        return True

    async def _delete_object(self, session_id: UUID, finding: Finding) -> bool:
        left = await self._versions.superfluous([(session_id, _version_of(finding))])
        await delete_version_objects(self._objects, left)
        return bool(left)

    async def _delete_utterances(self, session_id: UUID, finding: Finding) -> bool:
        self._check()
        async with self._database.transaction() as connection:
            deleted = await connection.execute(_DELETE_LEFT, {"id": session_id, "version": _version_of(finding)})
            return deleted.rowcount > 0

    async def _choose_current(self, session_id: UUID, _: Finding) -> bool:
        self._check()
        async with self._database.transaction() as connection:
            await lock_session(connection, session_id)
            await choose_current(connection, session_id)
        return True

    async def _restore(self, session_id: UUID, finding: Finding) -> bool:
        version = _version_of(finding)
        key = version_key(session_id, version)
        try:
            shape = json.loads(await self._objects.read(key))
            values = {name: shape[name] for name in ("kind", "model", "language")} | {"seconds": shape["duration"]}
        except (ObjectNotFound, ValueError, KeyError, TypeError):
            return False
        spoken = [each async for each in self._utterances.of_version(session_id, version)]
        values |= {
            "id": session_id,
            "version": version,
            "utterances": len(spoken),
            "words": sum(each.word_count for each in spoken),
            "uri": self._objects.uri(key),
        }
        self._check()
        async with self._database.transaction() as connection:
            return (await connection.execute(_RESTORE, values)).one_or_none() is not None

    async def _give_back(self, _session_id: UUID, finding: Finding) -> bool:
        self._check()
        async with self._database.transaction() as connection:
            given = await connection.execute(_GIVE_BACK, {"job_id": parse_job_id(finding.path)})
            return given.one_or_none() is not None

    async def _delete_job(self, _session_id: UUID, finding: Finding) -> bool:
        self._check()
        async with self._database.transaction() as connection:
            deleted = await connection.execute(_DELETE_JOB, {"job_id": parse_job_id(finding.path)})
            return deleted.one_or_none() is not None

    async def _create_job(self, session_id: UUID, _: Finding) -> bool:
        self._check()
        async with self._database.transaction() as connection:
            await enhancements.lock_predecessors(connection, [session_id])
            if (await connection.execute(_HAS_NO_JOB, {"id": session_id})).one_or_none() is None:
                return False
            await enhancements.settle(connection, [session_id])
            return (await connection.execute(_HAS_NO_JOB, {"id": session_id})).one_or_none() is None

    async def _read(self, session_id: UUID, version: int) -> tuple[RowMapping | None, list[Utterance]]:
        async with self._database.transaction() as connection:
            row = (await connection.execute(_READ, {"id": session_id, "version": version})).mappings().one_or_none()
        return row, [each async for each in self._utterances.of_version(session_id, version)]

    async def _stored(self, session_id: UUID, version: int) -> list[Utterance] | None:
        """The utterances of the object; None without a readable one."""
        try:
            return utterances_of(await self._objects.read(version_key(session_id, version)))
        except (ObjectNotFound, ValueError):
            return None


def _version_of(finding: Finding) -> int:
    version = parse_version_key(finding.path)
    assert version is not None, "the finding names the key of a version"  # noqa: S101
    return version


def _columns(session_id: UUID, version: int, utterances: Sequence[Utterance]) -> dict[str, object]:
    return {
        "id": session_id,
        "version": version,
        "starts": [each.start for each in utterances],
        "ends": [each.end for each in utterances],
        "texts": [each.text for each in utterances],
        "confidences": [each.confidence for each in utterances],
        "languages": [each.language for each in utterances],
        "words": [json.dumps([asdict(word) for word in each.words]) for each in utterances],
        "probabilities": [each.language_probability for each in utterances],
    }
