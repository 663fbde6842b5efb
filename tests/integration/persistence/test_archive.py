"""Reading and deleting what a session stored."""

import asyncio
import os
from typing import Any

import grpc
import pytest

from domain.errors import AudioNotStored, SessionActive, SessionNotFound, TranscriptNotStored
from domain.tenancy import DEFAULT_TENANT_ID
from persistence.records import SessionStart
from persistence.spool.spool_home import SpoolHome

AUDIO = os.urandom(3200)
BOTH = {"store_audio": True, "store_transcript": True}


async def recorded(house: Any, client_of: Any, **config: Any) -> str:
    async with house.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**config)
        await client.send(AUDIO)
        await client.end()
        await client.rest()
    return str(session_id)


async def test_stored_audio_and_transcript_are_streamed_with_their_size(house: Any, client_of: Any) -> None:
    session_id = await recorded(house, client_of, **BOTH)
    archive, chain = house.persistence.archive, await house.chain(session_id)
    for file in (await archive.audio(chain), await archive.transcript(chain[-1])):
        assert len(b"".join([chunk async for chunk in archive.read(file)])) == file.size > 0


async def test_what_was_not_stored_is_not_there(house: Any, client_of: Any) -> None:
    chain = await house.chain(await recorded(house, client_of))
    with pytest.raises(AudioNotStored):
        await house.persistence.archive.audio(chain)
    with pytest.raises(TranscriptNotStored):
        await house.persistence.archive.transcript(chain[-1])


async def test_a_session_that_was_refused_promises_nothing(
    house: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def refuse(_home: SpoolHome, start: SessionStart) -> None:
        refused.append(start.session_id)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SpoolHome, "create", refuse)
    async with house.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await client_of(channel).begin(**BOTH)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    record = await house.ended(refused[0])
    assert record.status == "error"
    chain = await house.chain(refused[0])
    with pytest.raises(AudioNotStored):
        await house.persistence.archive.audio(chain)
    with pytest.raises(TranscriptNotStored):
        await house.persistence.archive.transcript(chain[-1])


async def test_a_running_session_can_be_neither_read_nor_deleted(house: Any, client_of: Any) -> None:
    async with house.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        chain = await house.chain(session_id)
        with pytest.raises(SessionActive):
            await house.persistence.archive.audio(chain)
        with pytest.raises(SessionActive):
            await house.persistence.archive.transcript(chain[-1])
        with pytest.raises(SessionActive):
            await house.persistence.delete(DEFAULT_TENANT_ID, session_id)
        await client.end()
        await client.rest()


async def test_a_deleted_session_leaves_nothing(house: Any, client_of: Any) -> None:
    session_id = await recorded(house, client_of, **BOTH)
    assert await house.has_objects(session_id)
    await house.persistence.delete(DEFAULT_TENANT_ID, session_id)
    assert not await house.has_objects(session_id)
    with pytest.raises(SessionNotFound):
        await house.record(session_id)
    with pytest.raises(SessionNotFound):
        await house.persistence.delete(DEFAULT_TENANT_ID, session_id)


async def test_a_delete_that_s3_cut_short_has_happened_and_the_reaper_removes_the_objects(
    build_house: Any, client_of: Any
) -> None:
    async with build_house(delete_age_seconds=0.1, reap_seconds=0.2) as house:
        session_id = await recorded(house, client_of, **BOTH)
        house.s3.refuse()
        await house.persistence.delete(DEFAULT_TENANT_ID, session_id)
        with pytest.raises(SessionNotFound):
            await house.record(session_id)
        assert await house.has_objects(session_id)
        house.s3.restore()
        async with asyncio.timeout(15):
            while await house.row_of(session_id):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not await house.has_objects(session_id)


async def test_a_session_deleted_before_it_was_stored_leaves_no_object_behind(build_house: Any, client_of: Any) -> None:
    async with build_house() as house:
        async with house.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(**BOTH)
            await client.send(AUDIO)
            house.s3.refuse()
            await client.end()
            await client.rest()
        chain = await house.chain(session_id)
        with pytest.raises(SessionActive):
            await house.persistence.archive.audio(chain)
        deleting = asyncio.create_task(house.persistence.delete(DEFAULT_TENANT_ID, session_id))
        await asyncio.sleep(0.3)
        house.s3.restore()
        await deleting
        await house.no_spool()
        assert not await house.has_objects(session_id)
