"""The recording interceptor with a real server, Postgres and S3."""

import asyncio
import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest
import soundfile
from prometheus_client import REGISTRY

from persistence.spool.session_spool import SessionSpool
from persistence.wav import WavFormat

MESSAGES = [os.urandom(3200) for _ in range(5)]
BOTH = {"store_audio": True, "store_transcript": True}


def data_of(wav: bytes, encoding: str = "pcm_s16le") -> bytes:
    header = WavFormat(encoding, 16000, 1).header_bytes
    size = int.from_bytes(wav[header - 4 : header], "little")
    return wav[header : header + size]


async def test_a_completed_session_is_stored_byte_for_byte(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(language="en", **BOTH)
        await client.send(*MESSAGES)
        await client.end()
        responses = await client.rest()
    end = responses[-1].session_end
    record = await harness.record(session_id)
    assert record.status == "completed"
    assert record.error is None
    assert record.ended_at is not None
    assert record.ended_at >= record.started_at
    assert record.audio_uri == end.audio_uri == f"s3://{harness.settings.s3_bucket}/sessions/{session_id}/audio.wav"
    assert record.transcript_uri == end.transcript_uri
    assert end.transcript_uri.endswith(f"/{session_id}/transcript.json")
    assert (record.utterance_count, record.word_count, record.language) == (3, 12, "en")
    assert record.audio_duration_seconds == pytest.approx(0.5)
    assert record.client_ip == "127.0.0.1"
    assert record.worker_id == harness.settings.worker_id
    wav = await harness.read_audio(session_id)
    assert data_of(wav) == b"".join(MESSAGES)
    assert soundfile.info(io.BytesIO(wav)).frames == 8000
    assert await harness.transcript(session_id) == {
        "session_id": session_id,
        "language": "en",
        "duration": 0.5,
        "text": "this is final 1 this is final 2 this is final 3",
        "utterances": [
            {
                "start": n - 1.0,
                "end": float(n),
                "text": f"this is final {n}",
                "confidence": 0.5,
                "language": "en",
                "language_probability": 0.75,
                "words": [],
            }
            for n in (1, 2, 3)
        ],
    }
    await harness.no_spool()


def value_of(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


async def test_a_session_is_finished_once(harness: Any, client_of: Any) -> None:
    ended = value_of("dalston_sessions_ended_total", status="completed")
    active = value_of("dalston_sessions_active", stores="yes")
    async with harness.channel() as channel:
        client = client_of(channel)
        await client.begin(**BOTH)
        assert value_of("dalston_sessions_active", stores="yes") == active + 1
        await client.send(*MESSAGES)
        await client.end()
        await client.rest()
    assert value_of("dalston_sessions_active", stores="yes") == active
    await harness.until(lambda: value_of("dalston_sessions_storing") == 0)
    assert value_of("dalston_sessions_ended_total", status="completed") == ended + 1


async def test_a_half_close_completes_a_session(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES)
        await client.call.done_writing()
        responses = await client.rest()
    assert responses[-1].session_end.audio_uri
    assert (await harness.record(session_id)).status == "completed"
    assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES)


async def test_audio_after_end_is_ignored(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(MESSAGES[0])
        await client.end()
        await client.send(MESSAGES[1])
        await client.rest()
    assert data_of(await harness.read_audio(session_id)) == MESSAGES[0]


async def test_a_session_that_stores_nothing_has_a_row_and_nothing_else(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin()
        await client.send(*MESSAGES)
        assert harness.spooled() == []
        await client.end()
        responses = await client.rest()
    assert not responses[-1].session_end.HasField("audio_uri")
    record = await harness.record(session_id)
    assert (record.status, record.utterance_count, record.audio_uri) == ("completed", 3, None)
    assert record.audio_duration_seconds == pytest.approx(0.5)
    assert not await harness.has_objects(session_id)


@pytest.mark.parametrize("only", ["store_audio", "store_transcript"])
async def test_only_the_requested_objects_are_stored(harness: Any, client_of: Any, only: str) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**{only: True})
        await client.send(*MESSAGES)
        await client.end()
        end = (await client.rest())[-1].session_end
    assert end.HasField("audio_uri") == (only == "store_audio")
    assert end.HasField("transcript_uri") == (only == "store_transcript")
    record = await harness.record(session_id)
    assert (record.utterance_count, record.audio_duration_seconds) == (3, pytest.approx(0.5))


async def test_under_auto_a_session_has_the_language_of_most_words(harness: Any, client_of: Any) -> None:
    harness.fake_transcriber.language = "es"
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_transcript=True)
        await client.send(*MESSAGES)
        await client.end()
        await client.rest()
    assert (await harness.record(session_id)).language == "es"
    assert (await harness.transcript(session_id))["language"] == "es"


async def test_the_client_and_the_row_receive_an_error_of_the_servicer(harness: Any, client_of: Any) -> None:
    harness.fake_transcriber.fail_at_message = 4
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES[:4])
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await client.rest()
            await client.call
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await harness.record(session_id)).status == "error"
    record = await harness.ended(session_id)
    assert record.error == "the fake transcriber failed"
    assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES[:4])
    assert (await harness.transcript(session_id))["text"] == "this is final 1"


async def test_audio_sent_after_an_error_is_not_recorded(build_harness: Any, client_of: Any) -> None:
    async with build_harness(database_deadline_seconds=5.0) as harness:
        harness.fake_transcriber.fail_at_message = 4
        async with harness.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(**BOTH)
            harness.postgres.stall()  # delays the final state of the row, and with it the answer to the client
            sent, before = 0, REGISTRY.get_sample_value("dalston_recorded_audio_bytes_total") or 0.0
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                async with asyncio.timeout(30):
                    while True:
                        await client.send(MESSAGES[0])
                        sent += 1
                        await asyncio.sleep(0.01)
            harness.postgres.restore()
            record = await harness.ended(session_id)
        assert sent > 20
        audio = data_of(await harness.read_audio(session_id))
        assert len(audio) % 3200 == 0
        assert record.audio_duration_seconds == pytest.approx(len(audio) / 32_000)
        assert REGISTRY.get_sample_value("dalston_recorded_audio_bytes_total") == before + len(audio)


@pytest.mark.parametrize("refused", [b"odd", bytes(65_538)])
async def test_an_invalid_message_ends_the_recording(harness: Any, client_of: Any, refused: bytes) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        await client.send(MESSAGES[0], refused, MESSAGES[1])
        await client.end()
        await client.rest()
    assert data_of(await harness.read_audio(session_id)) == MESSAGES[0]


async def _cancel(client: Any, channel: Any) -> None:
    client.call.cancel()


async def _close_channel(client: Any, channel: Any) -> None:
    await channel.close()


@pytest.mark.parametrize("disconnect", [_cancel, _close_channel])
async def test_audio_of_a_disconnected_client_is_transcribed_and_stored(
    harness: Any, client_of: Any, disconnect: Callable[..., Any]
) -> None:
    harness.fake_transcriber.final_seconds = 0.1
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES)
        assert await client.final() == "this is final 1"
        assert await client.final() == "this is final 2"
        await disconnect(client, channel)
        record = await harness.ended(session_id)
    assert (record.status, record.error) == ("interrupted", "the client went away")
    assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES)
    assert len((await harness.transcript(session_id))["utterances"]) == 3
    await harness.no_spool()


async def test_a_client_whose_deadline_passes_is_interrupted(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel, timeout=0.5)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await client.rest()
            await client.call
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        record = await harness.ended(session_id)
    assert record.status == "interrupted"
    assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES)


async def test_a_cut_connection_interrupts_every_session_on_it(harness: Any, client_of: Any) -> None:
    proxy_class = type(harness.s3)
    host, port = harness.address.split(":")
    async with proxy_class(host, int(port)) as wire, harness.channel(f"127.0.0.1:{wire.port}") as channel:
        clients = [client_of(channel) for _ in range(8)]
        for client in clients:
            await client.begin(**BOTH)
            await client.send(*MESSAGES)
            assert await client.final()
            assert await client.final()
        wire.refuse()
        records = [await harness.ended(client.session_id) for client in clients]
    assert {record.status for record in records} == {"interrupted"}
    for client in clients:
        assert data_of(await harness.read_audio(client.session_id)) == b"".join(MESSAGES)
    await harness.no_spool()


async def test_audio_of_a_disconnected_client_without_storage_is_not_transcribed(harness: Any, client_of: Any) -> None:
    harness.fake_transcriber.final_seconds = 5
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin()
        await client.send(*MESSAGES)
        client.call.cancel()
        record = await harness.ended(session_id)
    assert (record.status, record.utterance_count) == ("interrupted", 0)


async def test_a_disconnect_after_end_completes_the_session(harness: Any, client_of: Any) -> None:
    harness.fake_transcriber.final_seconds = 0.3
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES)
        await client.end()
        assert await client.final()
        client.call.cancel()
        record = await harness.ended(session_id)
    assert record.status == "completed"
    assert len((await harness.transcript(session_id))["utterances"]) == 3


async def test_recording_continues_while_recognition_lags(build_harness: Any, client_of: Any) -> None:
    async with build_harness(close_grace_seconds=0.1) as harness, harness.channel() as channel:
        harness.fake_transcriber.final_seconds = 60
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        async with asyncio.timeout(5):
            await client.send(*[bytes(32_000)] * 20)
        directory = next(harness.spool_dir.glob(f"*/{session_id}"))
        await harness.until(lambda: sum(path.stat().st_size for path in directory.glob("audio.*")) == 640_000)
        client.call.cancel()


async def test_session_end_is_sent_during_an_outage_of_s3(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES)
        harness.s3.refuse()
        await client.end()
        end = (await client.rest())[-1].session_end
    assert not end.HasField("audio_uri")
    record = await harness.record(session_id)
    assert (record.status, record.audio_uri) == ("completed", None)
    assert harness.spooled() == [session_id]
    harness.s3.restore()
    record = await harness.ended(session_id)
    assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES)
    await harness.no_spool()


async def test_a_hanging_s3_delays_session_end_by_the_limit(build_harness: Any, client_of: Any) -> None:
    async with build_harness(store_wait_seconds=0.5, s3_deadline_seconds=1.0) as harness, harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES)
        harness.s3.stall()
        await client.end()
        async with asyncio.timeout(2):
            end = (await client.rest())[-1].session_end
        assert not end.HasField("audio_uri")
        harness.s3.cut()
        harness.s3.restore()
        assert (await harness.ended(session_id)).status == "completed"
        assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES)


async def test_a_session_with_storage_is_refused_during_an_outage_of_postgres(harness: Any, client_of: Any) -> None:
    harness.postgres.refuse()
    async with harness.channel() as channel:
        client = client_of(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await client.begin(**BOTH)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert harness.spooled() == []
    harness.postgres.restore()


async def test_a_session_without_storage_gets_its_row_after_an_outage(harness: Any, client_of: Any) -> None:
    harness.postgres.refuse()
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin()
        await client.send(*MESSAGES)
        await client.end()
        responses = await client.rest()
    assert responses[-1].HasField("session_end")
    harness.postgres.restore()
    record = await harness.ended(session_id)
    assert (record.status, record.utterance_count) == ("completed", 3)


async def test_a_running_session_is_recorded_during_an_outage_of_postgres(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        harness.postgres.refuse()
        await client.send(*MESSAGES)
        assert await client.final()
        await client.end()
        await client.rest()
    harness.postgres.restore()
    record = await harness.ended(session_id)
    assert record.status == "completed"
    assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES)
    await harness.no_spool()


async def test_a_full_disk_ends_the_session_and_keeps_its_recording(
    build_harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = SessionSpool.append_audio
    calls = 0

    def append_until_full(spool: SessionSpool, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise OSError(28, "No space left on device")
        append(spool, data)

    monkeypatch.setattr(SessionSpool, "append_audio", append_until_full)
    async with build_harness(spool_wait_seconds=0.5) as harness:
        async with harness.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(**BOTH)
            await client.send(*MESSAGES)
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await client.rest()
                await client.call
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        record = await harness.ended(session_id)
        assert record.status == "error"
        assert data_of(await harness.read_audio(session_id)) == b"".join(MESSAGES[:3])


async def test_a_final_that_cannot_be_recorded_is_not_sent(
    build_harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_spool: SessionSpool, _utterance: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SessionSpool, "append_utterance", refuse)
    async with build_harness(spool_wait_seconds=0.5) as harness:
        async with harness.channel() as channel:
            client = client_of(channel)
            session_id = await client.begin(**BOTH)
            await client.send(*MESSAGES)
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await client.final()
                await client.call
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (await harness.ended(session_id)).status == "error"


async def test_the_row_of_a_running_session_is_updated(harness: Any, client_of: Any) -> None:
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*MESSAGES[:2])
        assert await client.final()
        await asyncio.sleep(1.5)
        record = await harness.record(session_id)
        assert (record.status, record.word_count) == ("active", 4)
        assert record.audio_duration_seconds == pytest.approx(0.2)
        await client.end()
        await client.rest()


async def test_audio_of_several_parts_is_stored_byte_for_byte(harness: Any, client_of: Any) -> None:
    harness.fake_transcriber.message_count = 100_000
    messages = [os.urandom(65_536) for _ in range(170)]  # 10.6 MiB: three parts
    async with harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(store_audio=True)
        await client.send(*messages)
        await client.end()
        end = (await client.rest())[-1].session_end
    assert end.audio_uri
    assert data_of(await harness.read_audio(session_id)) == b"".join(messages)
