"""Two servers on one Postgres and one S3: one dies, freezes or loses its disk, the other ends its sessions."""

import asyncio
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from domain.errors import StorageUnavailable
from domain.session import EndReason
from domain.session_id import parse_session_id
from persistence.errors import LeaseLost, NotOwner
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.s3.keys import tail_prefix
from persistence.session_values import INTERRUPTED, Conclusion, Progress
from persistence.wav import WavFormat

BOTH = {"store_audio": True, "store_transcript": True}
WAV = WavFormat("pcm_s16le", 16000, 1)
QUICK = {
    "lease_seconds": 1.0,
    "lease_renewal_seconds": 0.2,
    "reap_seconds": 0.2,
    "recovery_grace_seconds": 0.0,
    "flush_seconds": 0.2,
}


def messages_of(size: int) -> list[bytes]:
    return [os.urandom(32_000) for _ in range(size // 32_000)]


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.05)


async def until_stored(harness: Any, session_id: str, size: int) -> None:
    async def is_in_tails() -> bool:
        keys = await harness.objects.list(tail_prefix(parse_session_id(session_id)))
        upload = await SessionRows(harness.database, "nobody").upload(parse_session_id(session_id))
        tails = sum(int(key.rpartition("-")[2]) for key in keys)
        return tails + sum(part.size for part in upload.parts) >= size

    await until(is_in_tails)


@pytest.mark.parametrize("size", [320_000, 12_800_000])
async def test_a_server_lost_with_its_disk_is_followed_by_another(
    build_harness: Any, make_settings: Any, client_of: Any, a_killable_server: Any, size: int
) -> None:
    settings = make_settings(**QUICK)
    messages = messages_of(size)
    async with (
        build_harness(spool_dir=settings.spool_dir.with_name("another"), **QUICK) as harness,
        a_killable_server(settings) as (process, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        reading = asyncio.create_task(client.rest())
        await client.send(*messages)
        await until_stored(harness, session_id, size)
        row = await harness.row_of(session_id)
        finals = len(messages) // 2

        async def has_utterances() -> bool:
            rows = SessionRows(harness.database, "nobody")
            return len(await rows.utterances(parse_session_id(session_id))) == finals

        await until(has_utterances)
        process.kill()
        await process.wait()
        await asyncio.gather(reading, return_exceptions=True)
        shutil.rmtree(settings.spool_dir)
        record = await harness.ended(session_id)
        assert (record.status, record.error) == ("interrupted", "the server stopped unexpectedly")
        assert row["worker_id"] == settings.worker_id != record.worker_id
        assert record.audio_duration_seconds == pytest.approx(size / 32_000)
        assert await harness.read_audio(session_id) == WAV.header(size) + b"".join(messages)
        assert len((await harness.transcript(session_id))["utterances"]) == finals == record.utterance_count
        await until_clean(harness, session_id)


async def until_clean(harness: Any, session_id: str) -> None:
    async def is_clean() -> bool:
        identifier = parse_session_id(session_id)
        row = await harness.row_of(session_id)
        return (
            not row["has_tails"]
            and not await harness.objects.list(tail_prefix(identifier))
            and not await harness.objects.uploads_below(f"sessions/{session_id}/")
        )

    await until(is_clean)


async def test_a_server_on_the_same_disk_takes_the_spool_which_has_more(
    build_harness: Any, make_settings: Any, client_of: Any, a_killable_server: Any
) -> None:
    settings = make_settings(**QUICK | {"flush_seconds": 60.0})
    messages = messages_of(320_000)
    async with (
        build_harness(spool_dir=settings.spool_dir, **QUICK | {"recovery_grace_seconds": 30.0}) as harness,
        a_killable_server(settings) as (process, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        reading = asyncio.create_task(client.rest())
        await client.send(*messages)
        segment = settings.spool_dir / settings.worker_id / session_id / "audio.00001"
        await harness.until(lambda: segment.exists() and segment.stat().st_size == 320_000)
        process.kill()
        await process.wait()
        await asyncio.gather(reading, return_exceptions=True)
        record = await harness.ended(session_id)
        assert record.status == "interrupted"
        assert await harness.read_audio(session_id) == WAV.header(320_000) + b"".join(messages)


async def test_a_server_considered_dead_ends_its_streams_and_writes_nothing_more(
    build_harness: Any, make_settings: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = QUICK | {"reap_seconds": 60.0, "flush_seconds": 60.0}
    async with build_harness(**calm) as frozen, frozen.channel() as channel:
        client, silent = client_of(channel), client_of(channel)
        session_id = await client.begin(**BOTH)
        unstored_id = await silent.begin()
        await client.send(*messages_of(96_000))
        assert await client.final()
        with monkeypatch.context() as patch:
            # As if it stood still: no sign of life.
            async def nothing(_: Any) -> None:
                pass

            patch.setattr(Lease, "renew", nothing)
            await asyncio.sleep(1.2)
            # Whether its sessions are its own it cannot know, so it does not write to S3 either.
            with pytest.raises(StorageUnavailable):
                await frozen.persistence._objects.delete("test/none")
            patch.undo()
            heir = Ownership(frozen.database, await registered(frozen))
            reaped = await heir.reap(0.0, 100, INTERRUPTED, datetime.now(UTC))
            assert frozen.settings.worker_id in reaped.workers
            assert {parse_session_id(session_id), parse_session_id(unstored_id)} <= reaped.sessions
        for each in (client, silent):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await each.rest()
                await each.call
            assert refusal.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
        assert frozen.persistence.lost.is_set()
        before = await frozen.row_of(session_id)
        late = client_of(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await late.begin(**BOTH)
            await late.call
        assert await frozen.row_of(session_id) == before
        assert before["status"] == "interrupted"
        # What it has is left to the process that comes after it.
        assert frozen.spooled() == [session_id]


async def registered(harness: Any, seconds: float = 30.0) -> str:
    name = f"heir-{uuid.uuid4().hex[:8]}"
    await Lease(harness.database, name, seconds, 1.0).register()
    return name


async def test_the_spool_of_a_fenced_server_is_claimed_back_by_its_successor(
    build_harness: Any, client_of: Any
) -> None:
    messages = messages_of(320_000)
    async with build_harness(**QUICK | {"flush_seconds": 60.0}) as harness, harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*messages)
        assert await client.final()
        segment = harness.spool_dir / harness.settings.worker_id / session_id / "audio.00001"
        await harness.until(lambda: segment.exists() and segment.stat().st_size == 320_000)
        heir = await registered(harness)
        async with harness.database.transaction() as connection:
            await connection.exec_driver_sql(
                "UPDATE workers SET lease_expires_at = now() - interval '1 s' WHERE id = $1",
                (harness.settings.worker_id,),
            )
            await connection.commit()
        reaped = await Ownership(harness.database, heir).reap(60.0, 100, INTERRUPTED, datetime.now(UTC))
        if not reaped.sessions:
            pytest.skip("the lease was renewed in between")
        await harness.persistence.lost.wait()
    async with build_harness(**QUICK | {"recovery_grace_seconds": 60.0}) as harness:
        record = await harness.ended(session_id)
        assert (record.status, record.worker_id) == ("interrupted", harness.settings.worker_id)
        assert await harness.read_audio(session_id) == WAV.header(320_000) + b"".join(messages)


async def test_two_reapers_share_the_sessions_and_neither_takes_any_twice(
    harness: Any, client_of: Any, tenant: uuid.UUID
) -> None:
    from tests.integration.persistence.test_sessions import a_start

    dead = f"dead-{uuid.uuid4().hex[:8]}"
    starts = [a_start(tenant, worker_id=dead) for _ in range(50)]
    await SessionRows(harness.database, dead).insert(starts)
    await Lease(harness.database, dead, 0.0, 1.0).register()
    await asyncio.sleep(0.05)
    heirs = [Ownership(harness.database, await registered(harness)) for _ in range(4)]
    results = await asyncio.gather(*(heir.reap(60.0, 1000, INTERRUPTED, datetime.now(UTC)) for heir in heirs))
    taken = [each for result in results for each in result.sessions if each in {start.id for start in starts}]
    assert sorted(taken) == sorted(start.id for start in starts)
    assert sum(dead in result.workers for result in results) == 1
    late = SessionRows(harness.database, dead)
    with pytest.raises(NotOwner):
        await late.conclude(starts[0].id, Conclusion(EndReason("completed"), datetime.now(UTC), Progress()))
    lease = Lease(harness.database, dead, 5.0, 1.0)
    await lease.renew()
    with pytest.raises(LeaseLost):
        lease.check()


async def test_after_an_outage_of_postgres_no_server_takes_another_for_dead(build_harness: Any, client_of: Any) -> None:
    async with build_harness(**QUICK) as one, build_harness(**QUICK) as two:
        async with one.channel() as channel, two.channel() as other:
            clients = [client_of(channel), client_of(other)]
            for client in clients:
                await client.begin(**BOTH)
            await asyncio.sleep(1.5)
            one.postgres.refuse()
            await asyncio.sleep(2.0)
            one.postgres.restore()
            await asyncio.sleep(2.5)
            for client in clients:
                await client.send(*messages_of(64_000))
                await client.end()
                assert (await client.rest())[-1].session_end.audio_uri
                assert (await one.record(client.session_id)).status == "completed"
        assert not one.persistence.lost.is_set()
        assert not two.persistence.lost.is_set()
