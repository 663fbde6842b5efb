"""Waveforms of recordings, on a real Postgres and a real S3 server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from domain.errors import AudioNotStored, SessionActive
from persistence.archive import Archive, delete_session
from persistence.postgres.chains import ChainStore
from persistence.postgres.database import Database
from persistence.postgres.jobs import JobStore
from persistence.postgres.sessions import SessionStore
from persistence.postgres.tables import realtime_sessions
from persistence.s3.byte_map import ByteMap
from persistence.s3.keys import audio_key, session_prefix, source_key, waveform_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from persistence.storing.waveforms import WaveformStore
from persistence.wav import WavFormat
from server.access.errors import RateLimited
from server.rpc import waveforms as module
from server.rpc.waveforms import Waveforms
from tests.batch_jobs import make_job, make_recording, make_session
from tests.integration.persistence.conftest import (
    database,
    make_settings,
    objects,
    real_settings,
    tenant,
)
from tests.waveforms import Waveform, read_waveform

__all__ = ["database", "make_settings", "objects", "real_settings", "tenant"]

WAV = WavFormat("pcm_s16le", 16_000, 1)


class CountingArchive(Archive):
    """Counts the recordings that are read, and may be held."""

    def __init__(self, objects: ObjectStore) -> None:
        super().__init__(objects)
        self.read_files = 0
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def read(self, file: ByteMap) -> Any:
        self.read_files += 1
        await self.may_read.wait()
        async for chunk in super().read(file):
            yield chunk


class Service:
    """What the server has, over one tenant's sessions."""

    def __init__(self, database: Database, objects: ObjectStore, tenant: uuid.UUID, wait_seconds: float) -> None:
        self.database, self.objects, self.tenant = database, objects, tenant
        self.archive = CountingArchive(objects)
        self.chains = ChainStore(database)
        self.store = WaveformStore(objects)
        persistence: Any = SimpleNamespace(archive=self.archive, waveforms=self.store, jobs=JobStore(database))
        self.waveforms = Waveforms(persistence, wait_seconds)

    async def chain(self, session_id: uuid.UUID, *, linked: bool = False) -> Sequence[StoredSession]:
        return await self.chains.read(self.tenant, session_id, linked=linked)

    async def of(self, session_id: uuid.UUID, *, linked: bool = False) -> Waveform:
        return read_waveform(await self.waveforms.of(self.tenant, await self.chain(session_id, linked=linked)))

    async def has_begun(self, count: int) -> None:
        """Waits until so many recordings are read."""
        async with asyncio.timeout(30):
            while self.archive.read_files < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def is_kept(self, session_id: uuid.UUID) -> bool:
        return bool(await self.objects.list(waveform_key(session_id)))


@pytest.fixture
async def service(database: Database, objects: ObjectStore, tenant: uuid.UUID) -> AsyncIterator[Service]:
    service = Service(database, objects, tenant, wait_seconds=60.0)
    yield service
    service.archive.may_read.set()
    await service.waveforms.close()


def tone(seconds: float, loudness: float = 0.5) -> bytes:
    times = np.arange(round(seconds * WAV.sample_rate)) / WAV.sample_rate
    return (np.sin(times * 2000) * loudness * 32767).astype("<i2").tobytes()


async def record(service: Service, audio: bytes, wav: WavFormat = WAV, **changes: Any) -> uuid.UUID:
    return await make_recording(service.database, service.objects, service.tenant, audio, wav, **changes)


async def test_a_waveform_is_made_once_and_kept_beside_its_audio(service: Service) -> None:
    session = await record(service, tone(1.0, 0.5) + bytes(32_000) + tone(1.05, 1.0))

    waveform = await service.of(session)

    assert len(waveform.pairs) == 31
    assert all(50 <= greatest <= 64 for _, greatest in waveform.pairs[:10])
    assert waveform.pairs[10:20] == [(0, 0)] * 10
    assert all(least <= -110 for least, _ in waveform.pairs[20:30])
    assert await service.of(session) == waveform
    assert service.archive.read_files == 1
    assert waveform_key(session).startswith(session_prefix(session))


@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_f32le", "mulaw", "alaw"])
@pytest.mark.parametrize(("sample_rate", "channels"), [(8_000, 1), (44_100, 2)])
async def test_the_header_and_the_padding_of_the_file_are_not_drawn(
    service: Service, encoding: str, sample_rate: int, channels: int
) -> None:
    wav = WavFormat(encoding, sample_rate, channels)
    frames = 2 * sample_rate + 1  # of an odd number of bytes where a frame has one
    session = await record(service, wav.silence * (frames * wav.frame_bytes), wav)

    waveform = await service.of(session)

    assert waveform.is_silent
    assert waveform.seconds == pytest.approx(2.1, abs=0.01)


async def test_many_who_ask_at_once_wait_for_one(service: Service) -> None:
    session = await record(service, tone(3.0))
    service.archive.may_read.clear()
    asking = [asyncio.create_task(service.of(session)) for _ in range(8)]
    impatient = asyncio.create_task(service.of(session))
    await service.has_begun(1)

    impatient.cancel()
    service.archive.may_read.set()
    found = await asyncio.gather(*asking)

    assert all(each == found[0] for each in found)
    assert service.archive.read_files == 1


async def test_a_long_wait_ends_and_what_is_made_is_there_the_next_time(
    database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    service = Service(database, objects, tenant, wait_seconds=0.05)
    session = await record(service, tone(1.0))
    service.archive.may_read.clear()
    with pytest.raises(SessionActive, match="try again"):
        await service.of(session)

    service.archive.may_read.set()
    async with asyncio.timeout(30):
        while not await service.is_kept(session):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    assert len((await service.of(session)).pairs) == 10
    assert service.archive.read_files == 1
    await service.waveforms.close()


@pytest.mark.parametrize("limit", ["_MOST_WAITING", "_MOST_OF_TENANT"])
async def test_the_number_that_are_made_is_bounded(
    service: Service, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 2)
    sessions = [await record(service, tone(0.2)) for _ in range(3)]
    service.archive.may_read.clear()
    asking = [asyncio.create_task(service.of(each)) for each in sessions[:2]]
    await service.has_begun(2)

    with pytest.raises(RateLimited):
        await service.of(sessions[2])

    service.archive.may_read.set()
    await asyncio.gather(*asking)
    assert len((await service.of(sessions[2])).pairs) == 2


async def test_audio_that_is_added_later_is_drawn(service: Service) -> None:
    session = await record(service, tone(1.0))
    assert len((await service.of(session)).pairs) == 10
    (stored,) = await service.chain(session)
    assert not await service.store.is_stale(stored)

    more = tone(2.0)
    await service.objects.put(audio_key(session), WAV.header(len(more)) + more, "audio/wav")
    async with service.database.transaction() as connection:
        of_session = update(realtime_sessions).where(realtime_sessions.c.id == session)
        await connection.execute(of_session.values(stored_bytes=len(more)))

    (stored,) = await service.chain(session)
    assert await service.store.is_stale(stored)
    assert len((await service.of(session)).pairs) == 20
    assert not await service.store.is_stale(stored)


async def test_other_audio_of_the_same_length_is_drawn(service: Service) -> None:
    session = await record(service, bytes(32_000))
    assert (await service.of(session)).is_silent

    loud = tone(1.0)
    await service.objects.put(audio_key(session), WAV.header(len(loud)) + loud, "audio/wav")

    assert not (await service.of(session)).is_silent


async def test_linked_sessions_have_the_waveform_of_their_joined_audio_which_is_not_kept(service: Service) -> None:
    first = await record(service, tone(1.0))
    second = await record(service, tone(1.0), previous_session_id=first, resume_from_seconds=1.5)

    joined = await service.of(second, linked=True)

    assert len(joined.pairs) == 25
    assert joined.pairs[10:15] == [(0, 0)] * 5
    assert all(greatest > 50 for _, greatest in joined.pairs[:10] + joined.pairs[15:])
    assert not await service.is_kept(second)
    assert len((await service.of(second)).pairs) == 10


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"store_audio": False, "audio_uri": None}, AudioNotStored),
        ({"status": "active", "audio_uri": None, "ended_at": None}, SessionActive),
        ({"audio_uri": None}, SessionActive),
    ],
)
async def test_where_there_is_no_audio(service: Service, changes: dict[str, Any], error: type[Exception]) -> None:
    session = await make_session(service.database, service.tenant, 0, **changes)

    with pytest.raises(error):
        await service.of(session)


async def test_an_uploaded_file_waits_for_its_job(service: Service) -> None:
    session = await make_session(service.database, service.tenant, 3, source="upload", media_type="audio/mpeg")
    await service.objects.put(source_key(session), b"mp3", "audio/mpeg")
    with pytest.raises(AudioNotStored, match="no batch job"):
        await service.of(session)

    await make_job(service.database, service.tenant, session, kind="upload")
    with pytest.raises(SessionActive, match="batch job"):
        await service.of(session)

    other = await record(service, tone(1.0))
    made = await service.waveforms.of(service.tenant, await service.chain(other))
    await service.store.write(session, b"file", made)
    assert await service.waveforms.of(service.tenant, await service.chain(session)) == made


async def test_a_waveform_goes_with_its_session(service: Service) -> None:
    session = await record(service, tone(1.0))
    await service.of(session)
    assert await service.is_kept(session)

    await delete_session(SessionStore(service.database), service.objects, service.tenant, session)

    assert await service.objects.list(session_prefix(session)) == []
