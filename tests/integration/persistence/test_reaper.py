"""Rounds of the reaper during faults, and the objects that it sweeps."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.errors import StorageUnavailable
from domain.session_id import format_session_id, uuid7
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.recovery.reaper import Reaper
from persistence.s3.keys import Tail, audio_key, tail_key
from persistence.session_values import INTERRUPTED
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.wav import WavFormat
from tests.integration.persistence.test_sessions import a_start

# A round ends whatever has no server.
pytestmark = pytest.mark.usefixtures("empty_store")


async def a_reaper(harness: Any, **changes: Any) -> tuple[Reaper, Ownership]:
    name = f"reaper-{uuid.uuid4().hex[:8]}"
    lease = Lease(harness.database, name, 60.0, 5.0)
    await lease.register()
    ownership = Ownership(harness.database, name, lease.check)
    values = {
        "pause_seconds": 1.0,
        "grace_seconds": 0.0,
        "delete_age_seconds": 0.0,
        "orphan_age_seconds": 3600.0,
        "sweep_seconds": -1.0,
    }

    async def no_spools(_: Any) -> None:
        pass

    remote_recovery = RemoteRecovery(
        changes.pop("objects", harness.objects), SessionRows(harness.database, name, lease.check)
    )
    return Reaper(
        lease,
        ownership,
        remote_recovery,
        harness.objects,
        TranscriptVersions(harness.database),
        no_spools,
        **values | changes,
    ), ownership


async def test_a_session_whose_objects_s3_does_not_take_is_ended_later(
    harness: Any, tenant: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper, ownership = await a_reaper(harness)
    start = a_start(tenant, worker_id=f"dead-{uuid.uuid4().hex[:8]}", enhance_on_end=True)
    await SessionRows(harness.database, start.worker_id).insert([start])
    await harness.objects.put(tail_key(start.id, Tail(0, 3200)), bytes(3200), "application/octet-stream")
    assert start.id in (await ownership.reap(0.0, 1000, INTERRUPTED, datetime.now(UTC))).sessions

    async def away(*_: Any) -> None:
        raise StorageUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(harness.objects, "put", away)
        await reaper.run_once()
    row = await harness.row_of(start.session_id)
    assert row["audio_uri"] is None
    assert await harness.jobs(start.session_id) == []
    assert row["recover_after"] > datetime.now(UTC)
    await ownership.defer_recovery(start.id, 0.0)
    await reaper.run_once()
    row = await harness.row_of(start.session_id)
    assert (row["audio_duration_seconds"], row["has_tails"], row["stored_bytes"]) == (0.1, False, 3200)
    assert await harness.jobs(start.session_id) == [start.id]
    wav = WavFormat("pcm_s16le", 16000, 1)
    assert await harness.read_audio(start.session_id) == wav.header(3200) + bytes(3200)
    await asyncio.gather(harness.objects.delete(audio_key(start.id)))


async def test_old_objects_and_uploads_of_deleted_sessions_are_deleted(harness: Any) -> None:
    reaper, _ = await a_reaper(harness)
    now = datetime.now(UTC)
    ages = (timedelta(hours=2), timedelta(minutes=1), timedelta(hours=2))
    old, young, lost = (uuid7(int((now - age).timestamp() * 1000)) for age in ages)
    async with harness.database.transaction() as connection:
        for identifier in (old, young):
            await connection.exec_driver_sql("INSERT INTO deleted_sessions VALUES ($1, now())", (identifier,))
    for identifier in (old, young, lost):
        await harness.objects.put(tail_key(identifier, Tail(0, 4)), bytes(4), "application/octet-stream")
        await harness.objects.create_upload(audio_key(identifier), "audio/wav")
    for _ in range(20):
        await reaper.run_once()
    left = [
        bool(await harness.objects.list(f"sessions/{format_session_id(each)}/"))
        or bool(await harness.objects.uploads(audio_key(each)))
        for each in (old, young, lost)
    ]
    # Nobody has deleted the last one: that it has no row is no order to remove what may be all that is left of it.
    assert left == [False, True, True]
    for each in (young, lost):
        await harness.objects.delete(audio_key(each))
        await harness.objects.delete(tail_key(each, Tail(0, 4)))
