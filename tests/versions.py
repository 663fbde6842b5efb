"""Versions of transcripts, stored as a worker stores them."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text

from domain.job import TranscriptVersion
from domain.session_id import new_uuid7
from domain.transcript import DocumentVersion, Utterance
from persistence.config import PersistenceSettings
from persistence.postgres.database import Database, open_database
from persistence.s3.linked import chain_key
from persistence.s3.objects import ObjectStore, open_objects
from persistence.session_values import StoredSession
from persistence.storing.version_writer import put_version
from stack.supervisor import Stack

_JOB = text("""
    INSERT INTO transcription_jobs (
        id, tenant_id, session_id, kind, status, model, language, linked, chain, chain_key, version, worker_id,
        started_at, ended_at
    ) SELECT :job_id, tenant_id, id, :kind, :status, 'accurate', 'en', :linked, :chain,
        :chain_key, :version, CASE WHEN :status = 'running' THEN :worker_id END, now(),
        CASE WHEN :status IN ('completed', 'failed', 'canceled') THEN now() END
    FROM realtime_sessions WHERE id = :session_id
""")
_UTTERANCE = text("""
    INSERT INTO transcript_utterances (
        session_id, version, index, start, "end", text, confidence, language, words, language_probability
    ) VALUES (
        :session_id, :version, :index, :start, :end, :text, :confidence, :language, CAST(:words AS jsonb),
        :language_probability
    )
""")
_COLUMNS = ("start", "end", "text", "confidence", "language", "language_probability")
_VERSION = text("""
    INSERT INTO transcripts (
        session_id, version, kind, job_id, model, language, linked, chain_key, audio_seconds, utterance_count,
        word_count, uri, verdict, verdict_reason
    ) VALUES (
        :session_id, :version, :kind, :job_id, 'accurate', 'en', :linked, :chain_key, :seconds, :utterances, :words,
        :uri, :verdict, :reason
    )
""")
_CURRENT = text("UPDATE realtime_sessions SET current_version = :version WHERE id = :session_id")


def a_live_version(session: StoredSession, **changes: Any) -> TranscriptVersion:
    """The live version of a stored session."""
    values: dict[str, Any] = {
        "session_id": session.id,
        "version": 1,
        "kind": "live",
        "model": "fast",
        "language": session.language,
        "created_at": None,
        "utterance_count": session.utterance_count,
        "word_count": session.word_count,
        "is_current": True,
        "linked": False,
        "verdict": "accepted",
        "verdict_reason": None,
        "job_id": None,
        "uri": "s3://b/t",
        "audio_seconds": session.audio_duration_seconds,
    }
    return TranscriptVersion(**values | changes)


@asynccontextmanager
async def versions_of(stack: Stack) -> AsyncIterator["VersionWriter"]:
    """Writes into the stores of a running stack."""
    s3 = stack.s3
    assert s3 is not None
    settings = PersistenceSettings(
        database_url=SecretStr(stack.database_url),
        s3_endpoint_url=s3.endpoint_url,
        s3_bucket=s3.bucket,
        s3_region=s3.region,
        s3_access_key_id=SecretStr(s3.access_key_id),
        s3_secret_access_key=SecretStr(s3.secret_access_key),
    )
    async with open_database(settings) as database, open_objects(settings) as objects:
        yield VersionWriter(database, objects)


class VersionWriter:
    """Stores versions of the transcripts of stored sessions."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self.database = database
        self._objects = objects

    async def job(
        self,
        session_id: UUID,
        version: int | None,
        utterances: Sequence[Utterance] = (),
        *,
        status: str = "running",
        kind: str = "enhanced",
        chain: Sequence[StoredSession] | None = None,
        worker_id: str = "nobody",
    ) -> UUID:
        """A job, with the utterances that it has written so far."""
        job_id = new_uuid7()
        job = {
            "job_id": job_id,
            "session_id": session_id,
            "kind": "enhance" if kind == "enhanced" else kind,
            "status": status,
            "linked": chain is not None,
            "chain": [session_id] if chain is None else [each.id for each in chain],
            "chain_key": b"alone" if chain is None else chain_key(chain),
            "version": version,
            "worker_id": worker_id,
        }
        spoken = [
            {
                "session_id": session_id,
                "version": version,
                "index": index,
                **{name: getattr(each, name) for name in _COLUMNS},
                "words": json.dumps([asdict(word) for word in each.words]),
            }
            for index, each in enumerate(utterances)
        ]
        async with self.database.transaction() as connection:
            await connection.execute(_JOB, job)
            if spoken:
                await connection.execute(_UTTERANCE, spoken)
        return job_id

    async def version(
        self,
        session_id: UUID,
        version: int,
        utterances: Sequence[Utterance],
        *,
        verdict: str = "accepted",
        kind: Any = "enhanced",
        chain: Sequence[StoredSession] | None = None,
        seconds: float = 10.0,
        is_current: bool | None = None,
    ) -> UUID:
        """A version with its job, and everything that the job has written.

        It becomes the current one if it is accepted and not of a joined recording, unless `is_current` is given.
        """
        job_id = await self.job(session_id, version, utterances, status="completed", kind=kind, chain=chain)
        named = DocumentVersion(version, "accurate", kind)
        uri = await put_version(self._objects, session_id, named, "en", seconds, utterances)
        values = {
            "session_id": session_id,
            "version": version,
            "kind": kind,
            "job_id": job_id,
            "linked": chain is not None,
            "chain_key": None if chain is None else chain_key(chain),
            "seconds": seconds,
            "utterances": len(utterances),
            "words": sum(each.word_count for each in utterances),
            "uri": uri,
            "verdict": verdict,
            "reason": None if verdict == "accepted" else "fewer words than the live transcript",
        }
        async with self.database.transaction() as connection:
            await connection.execute(_VERSION, values)
            if (verdict == "accepted" and chain is None) if is_current is None else is_current:
                await connection.execute(_CURRENT, {"session_id": session_id, "version": version})
        return job_id
