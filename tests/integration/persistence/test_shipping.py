"""Shipping the audio of a running session: parts, tails and segments, with a real Postgres and S3."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY

from domain.session_id import parse_session_id
from persistence.postgres.rows import SessionRows, Upload
from persistence.recording import spool_maintenance
from persistence.s3.keys import Tail, audio_key, parse_tail_key, tail_prefix
from persistence.s3.layout import PART_BYTES, first_byte
from persistence.storing import degradations
from persistence.wav import WavFormat

WAV = WavFormat("pcm_s16le", 16000, 1)
BOTH = {"store_audio": True, "store_transcript": True}


def messages_of(size: int) -> list[bytes]:
    return [os.urandom(65_536) for _ in range(size // 65_536)]


async def tails_of(harness: Any, session_id: str) -> list[Tail]:
    keys = await harness.objects.list(tail_prefix(parse_session_id(session_id)))
    tails = [parse_tail_key(key) for key in keys]
    assert None not in tails
    return tails  # type: ignore[return-value]


async def upload_of(harness: Any, session_id: str) -> Upload:
    return await SessionRows(harness.database, "reader").upload(parse_session_id(session_id))


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def nothing_is_left(harness: Any, session_id: str) -> None:
    await harness.no_spool()
    assert await tails_of(harness, session_id) == []
    assert await harness.objects.uploads(audio_key(parse_session_id(session_id))) == []
    assert (await upload_of(harness, session_id)).parts == ()


async def warned(client: Any, **details: str) -> None:
    """Waits for a warning with these details; a busy machine may send others, too."""
    async with asyncio.timeout(20):
        while True:
            warning = (await client.call.read()).warning
            assert warning.code == "persistence_degraded"
            if dict(warning.details) == details:
                return


def segments_of(harness: Any, session_id: str) -> list[str]:
    return sorted(path.name for path in harness.spool_dir.glob(f"*/{session_id}/audio.*"))


@pytest.fixture
async def quick(build_harness: Callable[..., Any]) -> AsyncIterator[Any]:
    """A stack that flushes often and whose fake transcriber sends no messages."""
    async with build_harness(flush_seconds=0.3, fsync_seconds=0.1) as harness:
        harness.fake_transcriber.message_count = 1_000_000
        yield harness


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degradations, "_GRACE_SECONDS", dict.fromkeys(degradations._GRACE_SECONDS, 0.3))
    monkeypatch.setattr(spool_maintenance, "REVIEW_SECONDS", 0.05)


async def test_audio_of_a_running_session_is_in_parts_and_tails(quick: Any, client_of: Any) -> None:
    messages = messages_of(18 * 1024 * 1024)
    total = sum(map(len, messages))
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*messages)

        async def all_is_safe() -> bool:
            upload = await upload_of(quick, session_id)
            tails = await tails_of(quick, session_id)
            return len(upload.parts) == 2 and max((tail.end for tail in tails), default=0) == total

        await until(all_is_safe)
        upload = await upload_of(quick, session_id)
        assert [(part.number, part.size) for part in upload.parts] == [(2, PART_BYTES), (3, PART_BYTES)]
        await quick.until(lambda: segments_of(quick, session_id) == ["audio.00001", "audio.00004"])
        tails = await tails_of(quick, session_id)
        covered = [tail for tail in tails if tail.end <= first_byte(WAV, 2)]
        assert sum(tail.size for tail in covered) == first_byte(WAV, 2), "part 1 comes last"
        rest = [tail for tail in tails if tail not in covered]
        assert min(tail.first_byte for tail in rest) >= first_byte(WAV, 4), "tails of stored parts are gone"
        await client.end()
        assert (await client.rest())[-1].session_end.audio_uri
    assert await quick.read_audio(session_id) == WAV.header(total) + b"".join(messages)
    await nothing_is_left(quick, session_id)


async def test_a_session_shorter_than_the_flush_interval_is_one_put(
    harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    call = type(harness.objects)._call

    async def counted(store: Any, operation: str, action: Any) -> Any:
        calls.append(operation)
        return await call(store, operation, action)

    monkeypatch.setattr(type(harness.objects), "_call", counted)
    async with harness.channel() as channel:
        client = client_of(channel)
        await client.begin(store_audio=True)
        await client.send(bytes(3200))
        await client.end()
        await client.rest()
    await harness.no_spool()
    assert calls == ["put_object"]


async def test_a_tail_of_a_short_session_is_deleted_once_the_object_exists(quick: Any, client_of: Any) -> None:
    messages = [os.urandom(3200) for _ in range(6)]
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        for count in (1, 3, 6):
            await client.send(*messages[len(await tails_of(quick, session_id)) and count - 3 : count][-3:])
            await asyncio.sleep(0.6)
        tails = await tails_of(quick, session_id)
        assert len(tails) >= 2
        await client.end()
        await client.rest()
    await nothing_is_left(quick, session_id)
    assert len(await quick.read_audio(session_id)) > WAV.header_bytes


async def test_the_stored_seconds_of_an_ack_are_in_s3(quick: Any, client_of: Any) -> None:
    quick.fake_transcriber.acks = True
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True, acks=True)
        await client.send(bytes(32_000))
        first = (await client.call.read()).audio_ack
        assert (first.received_seconds, first.processed_seconds) == (1.0, 0.25)

        async def has_tail() -> bool:
            return bool(await tails_of(quick, session_id))

        await until(has_tail)
        await asyncio.sleep(0.1)
        await client.send(bytes(32_000))
        second = (await client.call.read()).audio_ack
        assert second.received_seconds == 2.0
        assert second.stored_seconds >= 1.0
        await client.end()
        await client.rest()


@pytest.mark.usefixtures("impatient")
async def test_an_outage_of_s3_warns_the_client_and_the_backlog_ships_afterwards(quick: Any, client_of: Any) -> None:
    messages = messages_of(13 * 1024 * 1024)
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        quick.s3.refuse()
        await client.send(*messages)
        await warned(client, state="begin", reason="object_store")
        assert segments_of(quick, session_id) == ["audio.00001", "audio.00002", "audio.00003"]
        quick.s3.restore()
        await warned(client, state="end", reason="object_store")
        await quick.until(lambda: "audio.00002" not in segments_of(quick, session_id))
        await client.end()
        await client.rest()
    await quick.ended(session_id)
    assert await quick.read_audio(session_id) == WAV.header(sum(map(len, messages))) + b"".join(messages)
    await nothing_is_left(quick, session_id)


@pytest.mark.usefixtures("impatient")
async def test_during_an_outage_of_postgres_segments_stay_and_tails_keep_the_audio(quick: Any, client_of: Any) -> None:
    messages = messages_of(12 * 1024 * 1024)
    total = sum(map(len, messages))
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        quick.postgres.refuse()
        await client.send(*messages)

        async def tails_cover_all_audio() -> bool:
            return max((tail.end for tail in await tails_of(quick, session_id)), default=0) == total

        await until(tails_cover_all_audio, 60)
        await warned(client, state="begin", reason="database")
        assert "audio.00002" in segments_of(quick, session_id)
        quick.postgres.restore()
        await quick.until(lambda: "audio.00002" not in segments_of(quick, session_id))
        after = [tail for tail in await tails_of(quick, session_id) if tail.end > first_byte(WAV, 2)]
        assert sum(tail.size for tail in after) == total - first_byte(WAV, 3), "part 2 replaces its own tails only"
        assert min(tail.first_byte for tail in after) == first_byte(WAV, 3)
        await client.end()
        await client.rest()
    await quick.ended(session_id)
    assert await quick.read_audio(session_id) == WAV.header(total) + b"".join(messages)
    await nothing_is_left(quick, session_id)


async def test_an_aborted_upload_is_begun_anew_from_the_spool_and_tails(quick: Any, client_of: Any) -> None:
    messages = messages_of(12 * 1024 * 1024)
    data = b"".join(messages)
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        await client.send(*messages)
        await quick.until(lambda: segments_of(quick, session_id) == ["audio.00001", "audio.00003"])
        await quick.objects.abort_uploads(audio_key(parse_session_id(session_id)))
        await client.end()
        await client.rest()
    await quick.ended(session_id)
    lost = slice(first_byte(WAV, 2), first_byte(WAV, 3))
    expected = bytearray(data)
    expected[lost] = bytes(PART_BYTES)
    assert await quick.read_audio(session_id) == WAV.header(len(data)) + bytes(expected), (
        "silence where nothing is left"
    )
    await nothing_is_left(quick, session_id)


async def test_an_upload_aborted_under_a_running_session_is_begun_anew_at_once(quick: Any, client_of: Any) -> None:
    messages = messages_of(18 * 1024 * 1024)
    data = b"".join(messages)
    before = {name: value_of(name) for name in ("dalston_uploads_lost_total", "dalston_lost_audio_seconds_total")}
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        await client.send(*messages[: 12 * 16])
        await quick.until(lambda: segments_of(quick, session_id) == ["audio.00001", "audio.00003"])
        aborted = await upload_of(quick, session_id)
        await quick.objects.abort_uploads(audio_key(parse_session_id(session_id)))
        await client.send(*messages[12 * 16 :])
        await warned(client, state="begin", reason="audio_lost")
        await quick.until(lambda: segments_of(quick, session_id) == ["audio.00001", "audio.00004"])
        upload = await upload_of(quick, session_id)
        assert upload.upload_id != aborted.upload_id
        assert [part.number for part in upload.parts] == [2, 3], "the session runs, and S3 has what is left of it"
        assert value_of("dalston_uploads_lost_total") - before["dalston_uploads_lost_total"] == 1
        lost_seconds = value_of("dalston_lost_audio_seconds_total") - before["dalston_lost_audio_seconds_total"]
        assert lost_seconds == pytest.approx(WAV.seconds(PART_BYTES))
        await client.end()
        await client.rest()
    await quick.ended(session_id)
    expected = bytearray(data)
    expected[first_byte(WAV, 2) : first_byte(WAV, 3)] = bytes(PART_BYTES)
    assert await quick.read_audio(session_id) == WAV.header(len(data)) + bytes(expected), (
        "only what was released is silent"
    )
    await nothing_is_left(quick, session_id)


def value_of(metric: str) -> float:
    return REGISTRY.get_sample_value(metric) or 0.0


async def test_completing_an_upload_again_does_nothing(harness: Any, client_of: Any) -> None:
    from persistence.session_values import StoredPart

    key = f"test/{os.urandom(8).hex()}"
    upload_id = await harness.objects.create_upload(key, "audio/wav")
    bodies = {1: os.urandom(PART_BYTES), 2: os.urandom(100)}
    parts = []
    for number in (2, 1):
        await harness.objects.upload_part(key, upload_id, number, bodies[number])
        etag = await harness.objects.upload_part(key, upload_id, number, bodies[number])
        parts.append(StoredPart(upload_id, number, etag, len(bodies[number])))
    parts.sort(key=lambda part: part.number)
    await harness.objects.complete_upload(key, upload_id, parts)
    await harness.objects.complete_upload(key, upload_id, parts)
    assert await harness.objects.read(key) == bodies[1] + bodies[2]
    await harness.objects.delete(key)


async def test_a_killed_process_is_continued_with_the_parts_it_had_shipped(
    build_harness: Callable[..., Any], make_settings: Callable[..., Any], client_of: Any, a_killable_server: Any
) -> None:
    settings = make_settings(flush_seconds=0.3)
    messages = messages_of(13 * 1024 * 1024)
    total = sum(map(len, messages))
    async with a_killable_server(settings) as (process, address), grpc.aio.insecure_channel(address) as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        reading = asyncio.create_task(client.rest())
        await client.send(*messages)
        directory = next(settings.spool_dir.glob(f"*/{session_id}"))
        newest = directory / "audio.00003"

        async def part_2_is_shipped_and_all_is_written() -> bool:
            is_written = newest.exists() and newest.stat().st_size == total - first_byte(WAV, 3)
            return is_written and not (directory / "audio.00002").exists()

        await until(part_2_is_shipped_and_all_is_written)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        with pytest.raises(grpc.aio.AioRpcError):
            await reading
    async with build_harness(spool_dir=settings.spool_dir) as harness:
        record = await harness.ended(session_id)
        assert record.status == "interrupted"
        assert record.audio_duration_seconds == pytest.approx(total / 32_000)
        assert await harness.read_audio(session_id) == WAV.header(total) + b"".join(messages)
        await nothing_is_left(harness, session_id)


@pytest.mark.parametrize("size", [384 * 1024, 7 * 1024 * 1024])
async def test_audio_lost_in_a_power_cut_is_taken_from_the_tails(
    build_harness: Callable[..., Any],
    make_settings: Callable[..., Any],
    client_of: Any,
    a_killable_server: Any,
    size: int,
) -> None:
    settings = make_settings(flush_seconds=0.3)
    messages = messages_of(size)
    async with a_killable_server(settings) as (process, address), grpc.aio.insecure_channel(address) as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        reading = asyncio.create_task(client.rest())
        await client.send(*messages)
        async with build_harness(spool_dir=settings.spool_dir.with_name("another")) as other:

            async def tails_cover_all_audio() -> bool:
                return max((tail.end for tail in await tails_of(other, session_id)), default=0) == size

            await until(tails_cover_all_audio)
            process.kill()
            await asyncio.gather(reading, return_exceptions=True)
    newest = max(settings.spool_dir.glob(f"*/{session_id}/audio.*"))
    os.truncate(newest, newest.stat().st_size - 100_001)
    async with build_harness(spool_dir=settings.spool_dir) as harness:
        record = await harness.ended(session_id)
        assert record.audio_duration_seconds == pytest.approx(WAV.seconds(size))
        assert await harness.read_audio(session_id) == WAV.header(size) + b"".join(messages)
        await nothing_is_left(harness, session_id)


@pytest.mark.usefixtures("impatient")
async def test_a_full_spool_holds_the_stream_back_until_there_is_room(
    build_harness: Callable[..., Any], client_of: Any
) -> None:
    messages = messages_of(16 * 1024 * 1024)
    async with build_harness(flush_seconds=0.3, spool_bytes=11 * 1024 * 1024, spool_wait_seconds=20.0) as harness:
        harness.fake_transcriber.message_count = 1_000_000
        async with harness.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(**BOTH)
            harness.s3.refuse()
            sending = asyncio.create_task(client.send(*messages))
            await warned(client, state="begin", reason="disk")
            harness.s3.restore()
            await sending
            await client.end()
            await client.rest()
        await harness.ended(session_id)
        assert await harness.read_audio(session_id) == WAV.header(sum(map(len, messages))) + b"".join(messages)
        await nothing_is_left(harness, session_id)


async def test_a_client_without_acks_gets_none_and_its_progress_is_recorded(quick: Any, client_of: Any) -> None:
    quick.fake_transcriber.acks = True
    async with quick.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        await client.send(bytes(32_000))

        async def is_written() -> bool:
            return bool((await quick.row_of(session_id))["processed_seconds"] == 0.25)

        await until(is_written)
        client.call.cancel()
    await quick.ended(session_id)
