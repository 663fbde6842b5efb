"""Reading and deleting what a session stored."""

import asyncio
import os
from typing import Any

import grpc
import pytest

from domain.errors import AudioNotStored, SessionActive, SessionNotFound, TranscriptNotStored
from persistence.s3.keys import transcript_key
from persistence.session_values import SessionStart
from persistence.spool.spool_home import SpoolHome

AUDIO = os.urandom(3200)
BOTH = {"store_audio": True, "store_transcript": True}


async def recorded(harness: Any, client_of: Any, **config: Any) -> str:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**config)
        await client.send(AUDIO)
        await client.end()
        await client.rest()
    return str(session_id)


async def test_stored_audio_and_transcript_are_streamed_with_their_size(harness: Any, client_of: Any) -> None:
    session_id = await recorded(harness, client_of, **BOTH)
    archive, chain = harness.persistence.archive, await harness.chain(session_id)
    chosen = await harness.transcript_of(session_id)
    assert chosen.document_key == transcript_key(chain[0].id)
    for file in (await archive.audio_file(chain), await archive.document_file(chosen.document_key)):
        assert len(b"".join([chunk async for chunk in archive.read(file)])) == file.size > 0


async def test_objects_that_were_not_requested_cannot_be_read(harness: Any, client_of: Any) -> None:
    chain = await harness.chain(await recorded(harness, client_of))
    with pytest.raises(AudioNotStored):
        await harness.persistence.archive.audio_file(chain)
    with pytest.raises(TranscriptNotStored):
        await harness.transcript_of(chain[-1].session_id)


async def test_a_refused_session_has_no_objects_to_wait_for(
    harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def refuse(_home: SpoolHome, start: SessionStart) -> None:
        refused.append(start.session_id)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SpoolHome, "create", refuse)
    async with harness.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client_of(channel).begin(**BOTH)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    record = await harness.ended(refused[0])
    assert record.status == "error"
    chain = await harness.chain(refused[0])
    with pytest.raises(AudioNotStored):
        await harness.persistence.archive.audio_file(chain)
    with pytest.raises(TranscriptNotStored):
        await harness.transcript_of(chain[-1].session_id)


async def test_a_running_session_can_be_neither_read_nor_deleted(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        chain = await harness.chain(session_id)
        with pytest.raises(SessionActive):
            await harness.persistence.archive.audio_file(chain)
        with pytest.raises(SessionActive):
            await harness.transcript_of(chain[-1].session_id)
        with pytest.raises(SessionActive):
            await harness.delete_session(session_id)
        await client.end()
        await client.rest()


async def test_a_deletion_removes_everything_of_a_session(harness: Any, client_of: Any) -> None:
    session_id = await recorded(harness, client_of, **BOTH)
    assert await harness.has_objects(session_id)
    await harness.delete_session(session_id)
    assert not await harness.has_objects(session_id)
    with pytest.raises(SessionNotFound):
        await harness.record(session_id)
    with pytest.raises(SessionNotFound):
        await harness.delete_session(session_id)


async def test_the_reaper_completes_a_deletion_that_an_outage_interrupted(build_harness: Any, client_of: Any) -> None:
    async with build_harness(delete_age_seconds=0.1, reap_seconds=0.2) as harness:
        session_id = await recorded(harness, client_of, **BOTH)
        harness.s3.refuse()
        await harness.delete_session(session_id)
        with pytest.raises(SessionNotFound):
            await harness.record(session_id)
        assert await harness.has_objects(session_id)
        harness.s3.restore()
        async with asyncio.timeout(15):
            while await harness.row_of(session_id):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not await harness.has_objects(session_id)


async def test_a_session_deleted_before_it_was_stored_leaves_no_object(build_harness: Any, client_of: Any) -> None:
    async with build_harness() as harness:
        async with harness.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(**BOTH)
            await client.send(AUDIO)
            harness.s3.refuse()
            await client.end()
            await client.rest()
        chain = await harness.chain(session_id)
        with pytest.raises(SessionActive):
            await harness.persistence.archive.audio_file(chain)
        deleting = asyncio.create_task(harness.delete_session(session_id))
        await asyncio.sleep(0.3)
        harness.s3.restore()
        await deleting
        await harness.no_spool()
        assert not await harness.has_objects(session_id)
