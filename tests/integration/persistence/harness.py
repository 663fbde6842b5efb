"""A server that records, its stores, and all that a test looks at in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from sqlalchemy import text

from domain.errors import SessionNotFound, StorageUnavailable
from domain.session import SessionRecord
from domain.session_id import parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID
from persistence.config import PersistenceSettings
from persistence.errors import ObjectNotFound
from persistence.postgres.database import Database
from persistence.s3.keys import audio_key, transcript_key
from persistence.s3.objects import ObjectStore
from persistence.service import Persistence
from persistence.session_values import StoredSession
from persistence.transcript_choice import ChosenTranscript
from tests.integration.persistence.fake_transcriber import FakeTranscriber
from tests.integration.persistence.proxy import Proxy


@dataclass
class Harness:
    """A running server with its stores, and what tests read of them."""

    settings: PersistenceSettings
    database: Database
    objects: ObjectStore
    postgres: Proxy
    s3: Proxy
    persistence: Persistence
    fake_transcriber: FakeTranscriber
    address: str
    spool_dir: Path

    def channel(self, address: str | None = None) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address or self.address)

    async def record(self, session_id: str) -> SessionRecord:
        return await self.persistence.sessions.get(DEFAULT_TENANT_ID, parse_session_id(session_id))

    async def chain(self, session_id: str) -> tuple[StoredSession, ...]:
        return await self.persistence.chains.read(DEFAULT_TENANT_ID, parse_session_id(session_id), linked=False)

    async def transcript_of(self, session_id: str, version: int = 0, *, linked: bool = False) -> ChosenTranscript:
        identifier = parse_session_id(session_id)
        return await self.persistence.transcripts.choose(DEFAULT_TENANT_ID, identifier, version, linked=linked)

    async def delete_session(self, session_id: str) -> None:
        await self.persistence.delete_session(DEFAULT_TENANT_ID, parse_session_id(session_id))

    async def ended(self, session_id: str, *, stored: bool = True) -> SessionRecord:
        """The record once the session has ended and, if requested, is stored."""
        async with asyncio.timeout(20):
            while True:
                with suppress(StorageUnavailable, SessionNotFound):
                    record = await self.record(session_id)
                    waits = stored and (
                        (record.store_audio and not record.audio_uri)
                        or (record.store_transcript and not record.transcript_uri)
                    )
                    if record.status != "active" and not waits:
                        return record
                await asyncio.sleep(0.05)

    async def row_of(self, session_id: str) -> dict[str, Any] | None:
        """The row with all its columns, also that of a deleted session."""
        query = text("SELECT * FROM realtime_sessions WHERE id = :id")
        async with self.database.transaction() as connection:
            row = (await connection.execute(query, {"id": parse_session_id(session_id)})).mappings().one_or_none()
        return None if row is None else {str(name): value for name, value in row.items()}

    async def jobs(self, session_id: str) -> list[UUID]:
        """The ids of a session's batch jobs, oldest first."""
        query = text("SELECT id FROM transcription_jobs WHERE session_id = :id ORDER BY created_at, id")
        async with self.database.transaction() as connection:
            return list((await connection.execute(query, {"id": parse_session_id(session_id)})).scalars())

    async def read_audio(self, session_id: str) -> bytes:
        return await self._object(audio_key(parse_session_id(session_id)))

    async def transcript(self, session_id: str) -> dict[str, Any]:
        return json.loads(await self._object(transcript_key(parse_session_id(session_id))))  # type: ignore[no-any-return]

    async def has_objects(self, session_id: str) -> bool:
        for key in (audio_key, transcript_key):
            with suppress(ObjectNotFound):
                await self.objects.size(key(parse_session_id(session_id)))
                return True
        return False

    async def _object(self, key: str) -> bytes:
        size, chunks = await self.objects.get(key)
        data = b"".join([chunk async for chunk in chunks])
        assert len(data) == size
        return data

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.spool_dir.glob("*/sess_*"))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Polls for a condition that no event announces."""
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def no_spool(self) -> None:
        await self.until(lambda: not self.spooled())
