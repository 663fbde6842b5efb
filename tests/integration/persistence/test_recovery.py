"""A start finishes the sessions of processes that were killed, and never those of living ones."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import StorageUnavailable
from persistence.errors import SpoolInUse
from persistence.recovery import spools
from persistence.service import open_persistence
from persistence.spool.session_spool import SessionSpool
from persistence.spool.spool_home import SpoolHome
from persistence.wav import WavFormat
from telemetry.deadline import Deadline

MESSAGES = [os.urandom(3200) for _ in range(5)]
BOTH = {"store_audio": True, "store_transcript": True, "enhance_on_end": True}


def data_of(wav: bytes) -> bytes:
    header = WavFormat("pcm_s16le", 16000, 1).header_bytes
    return wav[header : header + int.from_bytes(wav[header - 4 : header], "little")]


async def test_sessions_of_a_killed_process_are_finished_by_the_next_start(
    build_harness: Callable[..., Any], make_settings: Callable[..., Any], client_of: Any, a_killable_server: Any
) -> None:
    settings = make_settings()
    async with a_killable_server(settings) as (process, address):
        import grpc

        async with grpc.aio.insecure_channel(address) as channel:
            stored, unstored = client_of(channel), client_of(channel)
            for client, config in ((stored, BOTH), (unstored, {})):
                await client.begin(**config)
                await client.send(*MESSAGES)
                assert await client.final()
                assert await client.final()
            directory = next(settings.spool_dir.glob(f"*/{stored.session_id}"))
            async with asyncio.timeout(5):
                while (directory / "audio.00001").stat().st_size < 16_000:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await process.wait()
    async with build_harness(spool_dir=settings.spool_dir) as harness:
        # The rows are right as soon as the process serves.
        assert (await harness.record(stored.session_id)).status == "interrupted"
        assert (await harness.record(unstored.session_id)).status == "interrupted"
        record = await harness.ended(stored.session_id)
        assert (record.utterance_count, record.word_count) == (2, 8)
        assert record.audio_duration_seconds == pytest.approx(0.5)
        assert record.worker_id == harness.settings.worker_id
        assert data_of(await harness.read_audio(stored.session_id)) == b"".join(MESSAGES)
        assert len((await harness.transcript(stored.session_id))["utterances"]) == 2
        assert await harness.jobs(stored.session_id) == [record.id]
        assert await harness.jobs(unstored.session_id) == []
        await harness.no_spool()
    assert list(settings.spool_dir.iterdir()) == []


async def test_a_session_that_had_ended_but_was_not_stored_keeps_its_ending(
    build_harness: Callable[..., Any], client_of: Any, tmp_path: Path
) -> None:
    async with build_harness(close_grace_seconds=0.1) as harness, harness.channel() as channel:
        client = client_of(channel)
        await client.begin(**BOTH)
        await client.send(*MESSAGES)
        harness.s3.refuse()
        await client.end()
        await client.rest()
    harness.s3.restore()
    assert harness.spooled() == [client.session_id]
    async with build_harness() as harness:
        record = await harness.ended(client.session_id)
        assert record.status == "completed"
        assert data_of(await harness.read_audio(client.session_id)) == b"".join(MESSAGES)
        await harness.no_spool()
    assert list(harness.spool_dir.iterdir()) == []


async def test_a_row_that_could_not_be_ended_ends_at_the_next_start(
    build_harness: Callable[..., Any], client_of: Any
) -> None:
    async with build_harness(close_grace_seconds=0.1) as harness, harness.channel() as channel:
        client = client_of(channel)
        await client.begin()
        harness.postgres.refuse()
        await client.end()
        await client.rest()
    harness.postgres.restore()
    async with build_harness() as harness:
        assert (await harness.record(client.session_id)).status == "interrupted"
    assert list(harness.spool_dir.iterdir()) == []


async def test_a_living_processs_sessions_are_left_alone(
    build_harness: Callable[..., Any], make_settings: Callable[..., Any], client_of: Any
) -> None:
    async with build_harness() as harness, harness.channel() as channel:
        client = client_of(channel)
        await client.begin(**BOTH)
        await client.send(*MESSAGES)
        async with open_persistence(make_settings(), lambda _: None, Deadline()):  # type: ignore[arg-type, return-value]
            assert (await harness.record(client.session_id)).status == "active"
        await client.end()
        assert (await client.rest())[-1].session_end.audio_uri
        assert data_of(await harness.read_audio(client.session_id)) == b"".join(MESSAGES)


async def test_a_second_process_of_the_same_name_is_refused_with_advice(
    build_harness: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "_IN_USE_SECONDS", 0.5)
    async with build_harness() as harness:
        with pytest.raises(SpoolInUse, match="Wait until it has ended, or set another DALSTON_WORKER_ID"):
            async with build_harness(worker_id=harness.settings.worker_id):
                pass


async def test_a_start_waits_for_the_process_that_holds_its_spool(
    build_harness: Callable[..., Any], make_settings: Callable[..., Any]
) -> None:
    settings = make_settings()
    home = SpoolHome.open(settings.spool_dir, settings.worker_id)

    async def start() -> None:
        async with build_harness(spool_dir=settings.spool_dir, worker_id=settings.worker_id):
            pass

    starting = asyncio.create_task(start())
    await asyncio.sleep(1.0)
    assert not starting.done()
    home.release(delete=False)
    await starting


async def test_the_spool_of_a_dead_server_is_released_once_it_is_stored(
    build_harness: Callable[..., Any], client_of: Any
) -> None:
    async with build_harness(close_grace_seconds=0.1) as dead, dead.channel() as channel:
        client = client_of(channel)
        await client.begin(**BOTH)
        await client.send(*MESSAGES)
        dead.s3.refuse()
        await client.end()
        await client.rest()
    dead.s3.restore()
    async with build_harness(lease_seconds=2.0, lease_renewal_seconds=0.5, reap_seconds=0.2) as harness:
        await harness.no_spool()
        # While the one that stored it runs: the other starts again under its name.
        async with build_harness(worker_id=dead.settings.worker_id) as again:
            assert (await again.record(client.session_id)).worker_id == harness.settings.worker_id


async def test_a_damaged_session_stays_in_the_spool_and_hinders_nothing(
    build_harness: Callable[..., Any], make_settings: Callable[..., Any]
) -> None:
    directory = make_settings().spool_dir / "gone" / "sess_damaged"
    directory.mkdir(parents=True)
    (directory / "session.json").write_text("{")
    (directory.parent / "sess_unbegun").mkdir()
    async with build_harness():
        pass
    assert [path.name for path in directory.parent.iterdir() if path.is_dir()] == ["sess_damaged"]


async def test_a_stopping_server_finishes_its_sessions(build_harness: Callable[..., Any], client_of: Any) -> None:
    async with build_harness() as harness:
        channel = harness.channel()
        client = client_of(channel)
        await client.begin(**BOTH)
        await client.send(*MESSAGES)
        assert await client.final()
        assert await client.final()
    await channel.close()
    assert harness.spooled() == []
    async with build_harness() as harness:
        record = await harness.record(client.session_id)
        assert (record.status, record.utterance_count) == ("interrupted", 3)
        assert data_of(await harness.read_audio(client.session_id)) == b"".join(MESSAGES)


async def test_a_start_without_postgres_s3_or_a_disk_fails_with_a_reason(
    build_harness: Callable[..., Any], proxied: Callable[..., Any], postgres_proxy: Any, s3_proxy: Any, tmp_path: Path
) -> None:
    def classify(error: BaseException) -> Any:
        raise AssertionError

    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match="spool"):
        async with open_persistence(proxied(spool_dir=tmp_path / "file"), classify, Deadline()):
            pass
    s3_proxy.refuse()
    with pytest.raises(StorageUnavailable, match="object store"):
        async with open_persistence(proxied(), classify, Deadline()):
            pass
    postgres_proxy.refuse()
    with pytest.raises(StorageUnavailable, match="database"):
        async with open_persistence(proxied(), classify, Deadline()):
            pass


async def test_shipping_again_after_a_crash_between_the_steps_changes_nothing(
    build_harness: Callable[..., Any], client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SessionSpool, "delete", lambda _spool: None)
    async with build_harness() as harness, harness.channel() as channel:
        client = client_of(channel)
        await client.begin(**BOTH)
        await client.send(*MESSAGES)
        await client.end()
        await client.rest()
        before = await harness.record(client.session_id)
        assert await harness.jobs(client.session_id) == [before.id]
    monkeypatch.undo()
    async with build_harness() as harness:
        await harness.no_spool()
        assert replace(await harness.record(client.session_id), worker_id=before.worker_id) == before
        assert await harness.jobs(client.session_id) == [before.id]
        assert data_of(await harness.read_audio(client.session_id)) == b"".join(MESSAGES)
