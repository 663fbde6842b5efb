"""A deletion killed at each of its steps: hidden from the tenant once it has returned, and completed soon after."""

import asyncio
import os
from typing import Any

import pytest

from domain.errors import SessionNotFound
from domain.session_id import parse_session_id
from persistence.postgres.database import Database
from persistence.s3.keys import Tail, audio_key, tail_key
from persistence.s3.objects import ObjectStore

BOTH = {"store_audio": True, "store_transcript": True}


class Killed(BaseException):
    """Simulates the end of the process: nothing catches it."""


async def recorded_with_everything(harness: Any, client_of: Any) -> str:
    """A stored session that has an unfinished upload and a tail beside it."""
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(os.urandom(3200))
        await client.end()
        await client.rest()
    await harness.ended(session_id)
    identifier = parse_session_id(session_id)
    await harness.objects.create_upload(audio_key(identifier), "audio/wav")
    await harness.objects.put(tail_key(identifier, Tail(0, 4)), bytes(4), "application/octet-stream")
    return str(session_id)


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the process before its call number `step` to Postgres or S3."""
    left = [step]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    call, transaction = ObjectStore._call, Database.transaction

    async def counted(store: Any, *arguments: Any) -> Any:
        count()
        return await call(store, *arguments)

    def begun(database: Any) -> Any:
        count()
        return transaction(database)

    monkeypatch.setattr(ObjectStore, "_call", counted)
    monkeypatch.setattr(Database, "transaction", begun)


async def test_a_deletion_killed_at_any_step_is_completed_by_another_process(
    build_harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    async with build_harness(delete_age_seconds=0.0, reap_seconds=1000.0) as harness:
        await harness.no_spool()
        for step in range(50):
            session_id = await recorded_with_everything(harness, client_of)
            with monkeypatch.context() as patch:
                kill_at(step, patch)
                try:
                    await harness.delete_session(session_id)
                except Killed:
                    kills += 1
                    is_over = False
                else:
                    is_over = True
            row = await harness.row_of(session_id)
            if row is not None and row["deleted_at"] is None:
                assert step == 0
                await harness.delete_session(session_id)
            with pytest.raises(SessionNotFound):
                await harness.record(session_id)
            await another_process_completes(harness)
            assert await harness.row_of(session_id) is None
            assert not await harness.objects.list(f"sessions/{session_id}/")
            assert not await harness.objects.uploads_below(f"sessions/{session_id}/")
            if is_over:
                break
    assert kills >= 6


async def another_process_completes(harness: Any) -> None:
    from persistence.postgres.ownership import Ownership
    from persistence.postgres.rows import SessionRows
    from persistence.storing.remote_recovery import RemoteRecovery

    ownership = Ownership(harness.database, "another")
    remote_recovery = RemoteRecovery(harness.objects, SessionRows(harness.database, "another"))
    async with asyncio.timeout(10):
        for session_id in await ownership.unfinished_deletions(0.0, 1000):
            await remote_recovery.delete(session_id)
