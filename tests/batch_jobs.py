"""Recordings and batch jobs that tests write to the stores directly, without a live session."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, text

from domain.session_id import new_uuid7
from domain.transcript import Utterance
from persistence.postgres.database import Database
from persistence.postgres.tables import (
    realtime_sessions,
    session_utterances,
    tenants,
    transcript_utterances,
    transcription_jobs,
    transcripts,
)
from persistence.s3.keys import audio_key
from persistence.s3.objects import ObjectStore
from persistence.wav import WavFormat

MONO: WavFormat = WavFormat("pcm_s16le", 16_000, 1)


async def make_tenant(database: Database, **limits: Any) -> uuid.UUID:
    tenant_id = uuid.uuid4()
    async with database.transaction() as connection:
        await connection.execute(insert(tenants).values(id=tenant_id, name=str(tenant_id), **limits))
    return tenant_id


async def make_session(
    database: Database,
    tenant_id: uuid.UUID,
    audio_bytes: int,
    wav: WavFormat = MONO,
    live: Sequence[Utterance] = (),
    **changes: Any,
) -> uuid.UUID:
    """The row of a session that stored so much audio, with its live transcript."""
    session_id = new_uuid7()
    values = {
        "id": session_id,
        "tenant_id": tenant_id,
        "status": "completed",
        "language": "en",
        "model": "fast",
        "encoding": wav.encoding,
        "sample_rate": wav.sample_rate,
        "channels": wav.channels,
        "store_audio": True,
        "store_transcript": False,
        "enhance_on_end": False,
        "audio_uri": f"s3://bucket/{audio_key(session_id)}",
        "audio_duration_seconds": wav.seconds(audio_bytes),
        "utterance_count": len(live),
        "word_count": sum(each.word_count for each in live),
        "worker_id": "a server",
        "started_at": datetime.now(UTC),
        "ended_at": datetime.now(UTC),
        "stored_bytes": audio_bytes,
    }
    async with database.transaction() as connection:
        await connection.execute(insert(realtime_sessions).values(values | changes))
        for index, each in enumerate(live):
            fields = asdict(each) | {"words": [asdict(word) for word in each.words]}
            await connection.execute(insert(session_utterances).values(session_id=session_id, index=index, **fields))
    return session_id


async def make_recording(
    database: Database,
    objects: ObjectStore,
    tenant_id: uuid.UUID,
    audio: bytes,
    wav: WavFormat = MONO,
    live: Sequence[Utterance] = (),
    **changes: Any,
) -> uuid.UUID:
    """A session with its audio object."""
    session_id = await make_session(database, tenant_id, len(audio), wav, live, **changes)
    body = wav.header(len(audio)) + audio + wav.padding(len(audio))
    await objects.put(audio_key(session_id), body, "audio/wav")
    return session_id


async def make_job(database: Database, tenant_id: uuid.UUID, session_id: uuid.UUID, **changes: Any) -> uuid.UUID:
    values = {
        "id": new_uuid7(),
        "tenant_id": tenant_id,
        "session_id": session_id,
        "kind": "enhance",
        "model": "accurate",
        "language": "auto",
        **changes,
    }
    async with database.transaction() as connection:
        await connection.execute(insert(transcription_jobs).values(values))
    return uuid.UUID(str(values["id"]))


async def job_row(database: Database, job_id: uuid.UUID) -> Any:
    async with database.transaction() as connection:
        query = select(transcription_jobs).where(transcription_jobs.c.id == job_id)
        return (await connection.execute(query)).mappings().one()


async def session_row(database: Database, session_id: uuid.UUID) -> Any:
    async with database.transaction() as connection:
        query = select(realtime_sessions).where(realtime_sessions.c.id == session_id)
        return (await connection.execute(query)).mappings().one()


async def transcript_rows(database: Database, session_id: uuid.UUID) -> list[Any]:
    async with database.transaction() as connection:
        query = select(transcripts).where(transcripts.c.session_id == session_id).order_by(transcripts.c.version)
        return list((await connection.execute(query)).mappings().all())


async def utterance_rows(database: Database, session_id: uuid.UUID) -> list[Any]:
    """The rows of all versions but the live one."""
    table = transcript_utterances
    async with database.transaction() as connection:
        query = select(table).where(table.c.session_id == session_id).order_by(table.c.version, table.c.index)
        return list((await connection.execute(query)).mappings().all())


async def execute(database: Database, statement: str, **values: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement), values)


def utterance(words: str, start: float = 0.0, end: float = 1.0) -> Utterance:
    return Utterance(start, end, words, 0.9, "en")
