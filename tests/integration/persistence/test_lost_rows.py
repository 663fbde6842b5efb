"""Rows that are lost although no session was deleted: nothing is deleted for that, and the rows are restored."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import SessionNotFound
from domain.job import format_job_id
from domain.session import EndReason
from domain.session_id import parse_session_id, uuid7
from persistence.errors import NotOwner, RowLost
from persistence.postgres import admission, lost_rows
from persistence.postgres import rows as rows_module
from persistence.postgres.database import Database
from persistence.postgres.lease import Lease
from persistence.postgres.lost_rows import TOMBSTONE_DAYS, Fate, Restored
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.postgres.tables import realtime_sessions
from persistence.recovery.spool_recovery import conclusion_of
from persistence.s3.keys import audio_key, tail_prefix, transcript_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED, Conclusion, Progress, SessionStart
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.storing.spool_reconciliation import SpoolReconciliation, SpoolStatus
from persistence.storing.transcript_writer import Transcript, TranscriptWriter, stored_finals
from persistence.storing.writer import SessionWriter, _Running
from persistence.verify import verify
from persistence.wav import WavFormat
from tests.integration.persistence.abandoned_spool import AbandonedSession, a_final, abandoned_by_a_dead_server
from tests.integration.persistence.test_sessions import a_start

pytestmark = pytest.mark.usefixtures("empty_store")

BOTH = {"store_audio": True, "store_transcript": True, "enhance_on_end": True}
WAV = WavFormat("pcm_s16le", 16000, 1)


def restored(table: str) -> float:
    return REGISTRY.get_sample_value("dalston_rows_restored_total", {"table": table}) or 0.0


async def execute(database: Database, statement: str, *values: object) -> None:
    async with database.transaction() as connection:
        await connection.exec_driver_sql(statement, values)


async def lose_the_row(harness: Any, session_id: str) -> None:
    await execute(harness.database, "DELETE FROM realtime_sessions WHERE id = $1", parse_session_id(session_id))


async def lose_the_finals(harness: Any, session_id: str) -> None:
    await execute(
        harness.database, "DELETE FROM session_utterances WHERE session_id = $1", parse_session_id(session_id)
    )


async def lose_the_lease(harness: Any, _: str) -> None:
    await execute(harness.database, "DELETE FROM workers WHERE id = $1", harness.settings.worker_id)


async def lose_everything(harness: Any, session_id: str) -> None:
    await lose_the_row(harness, session_id)
    await lose_the_lease(harness, session_id)


# On a machine that is busy with tests a process may wait for the CPU for some seconds; Postgres is never away here.
QUICK = {"lease_renewal_seconds": 0.3, "reap_seconds": 0.3, "database_deadline_seconds": 20.0}


@pytest.mark.parametrize("at_the_end", [False, True])
@pytest.mark.parametrize("lose", [lose_the_row, lose_the_finals, lose_the_lease, lose_everything])
async def test_lost_rows_of_a_running_session_are_restored_and_stored(
    build_harness: Any, client_of: Any, lose: Callable[[Any, str], Awaitable[None]], at_the_end: bool
) -> None:
    """The loss is noticed at the end only."""
    async with build_harness(**QUICK) as harness, harness.channel() as channel:
        client, messages = client_of(channel), [os.urandom(3200) for _ in range(8)]
        session_id = await client.begin(**BOTH)
        before = await harness.row_of(session_id)
        await client.send(*messages[:4])
        finals = [await client.final(), await client.final()]
        async with asyncio.timeout(20):
            while (await harness.record(session_id)).utterance_count < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await lose(harness, session_id)
        await client.send(*messages[4:])
        if not at_the_end:
            await asyncio.sleep(2.5)
        await client.end()
        rest = await client.rest()
        finals += [each.final.text for each in rest if each.HasField("final")]
        assert rest[-1].session_end.audio_uri
        assert rest[-1].session_end.transcript_uri
        record = await harness.ended(session_id)
        assert await harness.jobs(session_id) == [record.id]
        assert rest[-1].session_end.enhancement_job_id == record.enhancement_job_id == format_job_id(record.id)
        audio = b"".join(messages)
        assert await harness.read_audio(session_id) == WAV.header(len(audio)) + audio
        assert [each["text"] for each in (await harness.transcript(session_id))["utterances"]] == finals
        assert (record.status, record.utterance_count, record.audio_duration_seconds) == ("completed", 4, 0.8)
        after = await harness.row_of(session_id)
        same = ("worker_id", "started_at", "tenant_id", "model", "client_ip")
        assert [after[name] for name in same] == [before[name] for name in same]
        await harness.no_spool()
    assert [
        each for each in (await verify(harness.settings)).remaining if each.session_id == parse_session_id(session_id)
    ] == []


async def test_a_restored_row_is_counted_and_found_by_its_tenant(build_harness: Any, client_of: Any) -> None:
    async with build_harness(**QUICK) as harness, harness.channel() as channel:
        client, before = client_of(channel), restored("realtime_sessions")
        session_id = await client.begin(**BOTH)
        await lose_the_row(harness, session_id)
        with pytest.raises(SessionNotFound):
            await harness.record(session_id)
        await client.send(*[os.urandom(3200) for _ in range(2)])
        async with asyncio.timeout(20):
            while not ((await harness.row_of(session_id)) or {}).get("utterance_count"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert restored("realtime_sessions") == before + 1
        record = await harness.record(session_id)
        assert (record.status, record.utterance_count) == ("active", 1)
        with pytest.raises(Exception, match="still active"):
            await harness.delete_session(session_id)
        await client.end()
        await client.rest()
        await harness.delete_session(session_id)
        assert not await harness.has_objects(session_id)


async def test_a_session_that_is_back_continues_the_one_it_continued(
    harness: Any, client_of: Any, tenant: uuid.UUID
) -> None:
    rows = SessionRows(harness.database, "life")
    first = a_start(tenant, worker_id="life")
    second = a_start(tenant, 1, worker_id="life", previous_session_id=first.id, resume_from_seconds=1.5)
    third = a_start(tenant, 2, worker_id="life", previous_session_id=second.id, resume_from_seconds=0.5)
    await rows.insert([first])
    await rows.restore([third, second, first])
    store = SessionStore(harness.database)
    found = [await store.get(tenant, each.id) for each in (first, second, third)]
    assert [each.next_session_id for each in found] == [second.id, third.id, None]
    assert [each.resume_from_seconds for each in found] == [None, 1.5, 0.5]
    # Continued by another meanwhile, that one keeps it.
    await execute(harness.database, "DELETE FROM realtime_sessions WHERE id = $1", third.id)
    await rows.insert([other := a_start(tenant, worker_id="life", previous_session_id=second.id)])
    assert await rows.restore([third]) == {third.id}
    assert (await store.get(tenant, second.id)).next_session_id == other.id
    assert (await store.get(tenant, third.id)).previous_session_id is None


async def test_a_tenant_that_is_lost_is_made_again_with_its_session(harness: Any) -> None:
    start = a_start(uuid.uuid4(), worker_id="life")
    assert await SessionRows(harness.database, "life").restore([start]) == {start.id}
    assert (await SessionStore(harness.database).get(start.tenant_id, start.id)).status == "active"
    async with harness.database.transaction() as connection:
        name = await connection.exec_driver_sql("SELECT name FROM tenants WHERE id = $1", (start.tenant_id,))
        assert name.scalar_one() == f"restored-{start.tenant_id}"


async def test_a_deleted_session_is_not_restored_however_late(harness: Any, tenant: uuid.UUID) -> None:
    rows, start = SessionRows(harness.database, "life"), a_start(tenant, worker_id="life")
    await rows.insert([start])
    done = Conclusion(EndReason("completed"), datetime.now(UTC), Progress())
    await rows.conclude(start.id, done)
    await SessionStore(harness.database).soft_delete(tenant, start.id)
    await rows.delete_row(start.id)
    assert await rows.fate(start.id) is Fate.DELETED
    assert await rows.restore([start]) == frozenset()
    assert not await rows.conclude(start.id, done)
    with pytest.raises(RowLost):
        await rows.conclude(uuid7(int(datetime.now(UTC).timestamp() * 1000)), done)


@pytest.fixture
def abandon(make_settings: Any, database: Database, objects: ObjectStore) -> Callable[[], Awaitable[AbandonedSession]]:
    return lambda: abandoned_by_a_dead_server(make_settings(), database, objects, (96_000, 64_000), (2, 1))


async def test_a_spool_whose_session_has_lost_its_row_is_stored_whole(abandon: Any, build_harness: Any) -> None:
    abandoned = await abandon()
    await execute(abandoned.database, "DELETE FROM realtime_sessions WHERE id = $1", abandoned.id)
    async with build_harness(spool_dir=abandoned.settings.spool_dir) as harness:
        await harness.no_spool()
        await abandoned.is_whole()


async def test_a_spool_older_than_the_tombstones_is_neither_stored_nor_deleted(abandon: Any) -> None:
    abandoned = await abandon()
    await execute(abandoned.database, "DELETE FROM realtime_sessions WHERE id = $1", abandoned.id)
    nothing = uuid.UUID(int=0)
    async with abandoned.database.transaction() as connection:
        statement = "UPDATE deleted_sessions SET deleted_at = now() + interval '1 h' WHERE id = $1"
        await connection.exec_driver_sql(statement, (nothing,))
    try:
        rows = SessionRows(abandoned.database, "next")
        reconciliation = SpoolReconciliation(abandoned.objects, rows, Ownership(abandoned.database, "next"))
        assert (
            await reconciliation.settle(abandoned.spool, conclusion_of(abandoned.spool).progress) is SpoolStatus.UNKNOWN
        )
        assert abandoned.is_spooled()
        assert await rows.row_states([abandoned.id]) == [rows_kept_nothing(abandoned.id)]
    finally:
        past = "UPDATE deleted_sessions SET deleted_at = now() - interval '1 h' WHERE id = $1"
        await execute(abandoned.database, past, nothing)
    old = uuid7(int((datetime.now(UTC) - timedelta(days=TOMBSTONE_DAYS + 1)).timestamp() * 1000))
    assert await rows.fate(old) is Fate.UNKNOWN


def rows_kept_nothing(session_id: uuid.UUID) -> Any:
    from persistence.postgres.lost_rows import RowState

    return RowState(session_id, True, False, False, False, 0)


async def test_parts_and_finals_lost_by_postgres_are_taken_from_s3(
    make_settings: Any, database: Database, objects: ObjectStore
) -> None:
    """Its own process is gone with its disk; the transcript was put, and its row is older."""
    abandoned = await abandoned_by_a_dead_server(make_settings(), database, objects, (12_800_000, 0), (3, 0))
    transcript = await put_transcript_of(abandoned)
    await execute(database, "DELETE FROM session_parts WHERE session_id = $1", abandoned.id)
    await execute(database, "UPDATE realtime_sessions SET upload_id = NULL WHERE id = $1", abandoned.id)
    await execute(database, "DELETE FROM session_utterances WHERE session_id = $1 AND index > 0", abandoned.id)
    before = restored("session_parts"), restored("session_utterances")
    row = await abandoned.ended()
    assert await abandoned.wav() == WAV.header(len(abandoned.audio)) + abandoned.audio
    assert await objects.read(transcript_key(abandoned.id)) != transcript  # it has the recording's length by now
    assert (row.utterance_count, row.stored_bytes) == (3, len(abandoned.audio))
    assert [each.text for each in await SessionRows(database, "any").utterances(abandoned.id)] == [
        a_final(number).text for number in range(3)
    ]
    assert (restored("session_parts"), restored("session_utterances")) == (before[0] + 1, before[1] + 2)
    assert await objects.uploads(audio_key(abandoned.id)) == []


async def test_rows_win_over_the_transcript_and_no_final_is_lost(
    make_settings: Any, database: Database, objects: ObjectStore
) -> None:
    """An operator has changed a row by hand, and Postgres has lost the one behind it."""
    abandoned = await abandoned_by_a_dead_server(make_settings(), database, objects, (96_000, 0), (3, 0))
    await put_transcript_of(abandoned)
    await execute(
        database, "UPDATE session_utterances SET text = 'removed' WHERE session_id = $1 AND index = 1", abandoned.id
    )
    await execute(database, "DELETE FROM session_utterances WHERE session_id = $1 AND index > 1", abandoned.id)
    row = await abandoned.ended()
    expected = [a_final(0).text, "removed", a_final(2).text]
    assert [each.text for each in await SessionRows(database, "any").utterances(abandoned.id)] == expected
    assert [each.text for each in await stored_finals(objects, abandoned.id)] == expected
    assert row.utterance_count == 3


@pytest.mark.parametrize("ends_again", ["its own server", "another server"])
async def test_a_session_ended_again_without_tails_keeps_audio_and_transcript(
    build_harness: Any, client_of: Any, ends_again: str
) -> None:
    """The row was reverted to its state before the end, and the parts and tails are deleted."""
    async with build_harness(lease_renewal_seconds=0.3, flush_seconds=0.1, reap_seconds=1000.0) as harness:
        async with harness.channel() as channel:
            client, messages = client_of(channel), [os.urandom(3200) for _ in range(6)]
            session_id = await client.begin(**BOTH)
            await client.send(*messages)
            async with asyncio.timeout(30):
                while not await harness.objects.list(tail_prefix(parse_session_id(session_id))):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await client.end()
            await client.rest()
        await harness.ended(session_id)
        await harness.no_spool()
        identifier = parse_session_id(session_id)
        assert await harness.objects.list(tail_prefix(identifier)) == []
        before, transcript = await harness.read_audio(session_id), await harness.transcript(session_id)
        past = (
            "UPDATE realtime_sessions SET status = 'active', ended_at = NULL, audio_uri = NULL, transcript_uri = NULL,"
            " stored_bytes = 0, has_tails = true, utterance_count = 1, worker_id = coalesce($2, worker_id)"
            " WHERE id = $1"
        )
        await execute(
            harness.database, "DELETE FROM session_utterances WHERE session_id = $1 AND index > 0", identifier
        )
        if ends_again == "its own server":
            await execute(harness.database, past, identifier, None)
            await lose_the_lease(harness, session_id)
            record = await harness.ended(session_id)
            async with asyncio.timeout(30):
                while (row := await harness.row_of(session_id))["has_tails"] or not row["transcript_uri"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        else:
            await execute(harness.database, past, identifier, "dead")
            other = f"other-{uuid.uuid4().hex[:8]}"
            await Lease(harness.database, other, 60.0, 1.0).register()
            ownership = Ownership(harness.database, other)
            await ownership.adopt(["dead"], [], INTERRUPTED, datetime.now(UTC))
            assert await ownership.begin_recovery(identifier)
            session = await ownership.read_own(identifier)
            assert session is not None
            await RemoteRecovery(harness.objects, SessionRows(harness.database, other)).end(session)
            record = await harness.record(session_id)
        assert data_of(before) == b"".join(messages)
        assert await harness.read_audio(session_id) == before
        after = await harness.transcript(session_id)
        assert [each["text"] for each in after["utterances"]] == [each["text"] for each in transcript["utterances"]]
        assert (record.utterance_count, record.audio_duration_seconds) == (3, 0.6)
        row = await harness.row_of(session_id)
        assert (row["has_tails"], row["stored_bytes"]) == (False, 19_200)
        assert await harness.jobs(session_id) == [identifier]
    assert [each for each in (await verify(harness.settings)).remaining if each.session_id == identifier] == []


def data_of(wav: bytes) -> bytes:
    return wav[WAV.header_bytes :]


async def put_transcript_of(abandoned: AbandonedSession) -> bytes:
    transcript = Transcript([a_final(number) for number in range(3)], "en")
    await TranscriptWriter(abandoned.objects, SessionRows(abandoned.database, abandoned.other)).put(
        abandoned.id, transcript, 3.0
    )
    return await abandoned.objects.read(transcript_key(abandoned.id))


async def test_tails_stay_while_the_recording_that_the_row_names_is_not_there(
    make_settings: Any, database: Database, objects: ObjectStore
) -> None:
    abandoned = await abandoned_by_a_dead_server(make_settings(), database, objects, (96_000, 0), (2, 0))
    stored = "UPDATE realtime_sessions SET status = 'interrupted', ended_at = now(), has_tails = true,"
    await execute(database, f"{stored} audio_uri = 's3://x', transcript_uri = 's3://y' WHERE id = $1", abandoned.id)
    row = await abandoned.ended()
    assert await abandoned.wav() == WAV.header(len(abandoned.audio)) + abandoned.audio
    assert (row.stored_bytes, row.has_tails) == (len(abandoned.audio), False)


async def test_a_repair_does_not_shorten_a_transcript_after_rows_were_lost(build_harness: Any, client_of: Any) -> None:
    async with build_harness(reap_seconds=1000.0) as harness, harness.channel() as channel:
        client = client_of(channel)
        session_id = await client.begin(**BOTH)
        await client.send(*[os.urandom(3200) for _ in range(6)])
        await client.end()
        await client.rest()
        before = await harness.transcript(session_id)
        statement = "DELETE FROM session_utterances WHERE session_id = $1 AND index > 0"
        await execute(harness.database, statement, parse_session_id(session_id))
        await verify(harness.settings, repair=True)
        assert await harness.transcript(session_id) == before
        assert (await harness.record(session_id)).utterance_count == 3
        assert (await verify(harness.settings)).remaining == ()


async def test_a_lost_lease_is_restored_unless_a_session_was_taken(harness: Any, tenant: uuid.UUID) -> None:
    start = a_start(tenant, worker_id=f"life-{uuid.uuid4().hex[:8]}")
    lease = Lease(harness.database, start.worker_id, 60.0, 5.0)
    lease.running = lambda: [start.id]
    doubts: list[bool] = []
    lease.doubted = lambda: doubts.append(True)
    await lease.register()
    rows = SessionRows(harness.database, start.worker_id, lease.check)
    await rows.insert([start])
    gone = "DELETE FROM workers WHERE id = $1"
    await execute(harness.database, gone, start.worker_id)
    await lease.renew()
    assert (lease.is_held, doubts, lease.is_established) == (True, [True], False)
    await execute(harness.database, gone, start.worker_id)
    await execute(harness.database, "UPDATE realtime_sessions SET worker_id = 'another' WHERE id = $1", start.id)
    await lease.renew()
    assert lease.lost.is_set()
    async with harness.database.transaction() as connection:
        abandoned = await connection.exec_driver_sql("SELECT id FROM workers WHERE id = $1", (start.worker_id,))
        assert abandoned.first() is None
    with pytest.raises(NotOwner):
        await SessionRows(harness.database, start.worker_id).exists(start.id)


async def test_a_session_deleted_while_being_stored_does_not_count_as_taken(harness: Any, tenant: uuid.UUID) -> None:
    start = a_start(tenant, worker_id=f"life-{uuid.uuid4().hex[:8]}", store_audio=True)
    running: list[uuid.UUID] = []
    lease = Lease(harness.database, start.worker_id, 60.0, 5.0)
    lease.running, lease.ended = lambda: running, lambda: [start.id]
    await lease.register()
    rows = SessionRows(harness.database, start.worker_id, lease.check)
    await rows.insert([start])
    await rows.conclude(start.id, Conclusion(EndReason("completed"), datetime.now(UTC), Progress()))
    await SessionStore(harness.database).soft_delete(tenant, start.id)
    gone = "DELETE FROM workers WHERE id = $1"
    await execute(harness.database, gone, start.worker_id)
    await lease.renew()
    await lease.renew()
    assert lease.is_held
    # One that runs here cannot have been deleted by anybody but one who had taken it.
    running.append(start.id)
    await execute(harness.database, gone, start.worker_id)
    await lease.renew()
    assert lease.lost.is_set()


async def test_a_spool_waiting_for_another_server_does_not_count_as_taken(abandon: Any, build_harness: Any) -> None:
    abandoned = await abandon()
    await Lease(abandoned.database, "another", 60.0, 5.0).register()
    await execute(abandoned.database, "UPDATE realtime_sessions SET worker_id = 'another' WHERE id = $1", abandoned.id)
    async with build_harness(spool_dir=abandoned.settings.spool_dir, **QUICK) as harness:
        await asyncio.sleep(1.0)
        assert abandoned.is_spooled()
        await lose_the_lease(harness, "")
        before = restored("workers")
        async with asyncio.timeout(20):
            while restored("workers") == before and not harness.persistence.lost.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert not harness.persistence.lost.is_set()


async def test_a_server_without_a_lease_has_its_duration_to_restore_it(harness: Any, tenant: uuid.UUID) -> None:
    start = a_start(tenant, worker_id=f"life-{uuid.uuid4().hex[:8]}")
    await SessionRows(harness.database, start.worker_id).insert([start])
    name = f"reaper-{uuid.uuid4().hex[:8]}"
    await Lease(harness.database, name, 60.0, 5.0).register()
    ownership = Ownership(harness.database, name)

    async def reap(**values: Any) -> frozenset[uuid.UUID]:
        return (await ownership.reap(0.0, 1000, INTERRUPTED, datetime.now(UTC), **values)).sessions

    assert start.id not in await reap(lost_lease_wait_seconds=0.5)
    assert start.id not in await reap(lost_lease_wait_seconds=0.5)
    await asyncio.sleep(0.6)
    # Another Postgres answers than the one that this server's own lease was renewed with: the others had no time.
    assert start.id not in await reap(lost_lease_wait_seconds=0.5, timeline="FFFFFFFF")
    assert start.id in await reap(lost_lease_wait_seconds=0.5)


async def test_a_lost_tenant_does_not_block_the_sessions_of_others(harness: Any, tenant: uuid.UUID) -> None:
    """A session that stores nothing begins while Postgres is unavailable, and the next one lacks its tenant."""
    name = f"life-{uuid.uuid4().hex[:8]}"
    stored, unstored = a_start(tenant, worker_id=name), a_start(uuid.uuid4(), worker_id=name)
    writer = SessionWriter(SessionRows(harness.database, name))
    await writer.begin(stored, lambda: Progress(audio_seconds=2.0))
    writer._running[unstored.id] = _Running(unstored, Progress, has_row=False, written_at=0.0)
    writer.flush_soon(stored.id)
    await writer.flush()
    sessions = SessionStore(harness.database)
    assert (await sessions.get(tenant, stored.id)).audio_duration_seconds == 2.0
    assert (await sessions.get(unstored.tenant_id, unstored.id)).status == "active"


async def test_a_session_keeps_one_continuation_when_a_lost_one_comes_back(harness: Any, tenant: uuid.UUID) -> None:
    rows = SessionRows(harness.database, "life")
    first = a_start(tenant, worker_id="life")
    lost = a_start(tenant, 1, worker_id="life", previous_session_id=first.id, resume_from_seconds=1.5)
    other = a_start(tenant, 2, worker_id="life", previous_session_id=first.id, resume_from_seconds=1.0)
    await rows.insert([first])
    async with harness.database.transaction() as connection:
        await admission.link(connection, tenant, first.id)
        restoring = asyncio.create_task(rows.restore([lost]))
        await waits_for_a_lock(harness.database)
        await connection.execute(insert(realtime_sessions).values(asdict(other)))
    assert await restoring == {lost.id}
    store = SessionStore(harness.database)
    assert (await store.get(tenant, first.id)).next_session_id == other.id
    assert (await store.get(tenant, lost.id)).previous_session_id is None


async def waits_for_a_lock(database: Database) -> None:
    async with asyncio.timeout(10):
        while True:
            async with database.transaction() as connection:
                waiting = await connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if waiting.scalar_one():
                    return
            await asyncio.sleep(0.02)


async def test_many_lost_rows_are_restored_in_several_transactions_and_continue_each_other(
    harness: Any, tenant: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All together take longer than a transaction may: each attempt would fail, and no other row be written."""
    monkeypatch.setattr(rows_module, "_RESTORED_AT_ONCE", 2)
    counts: list[int] = []

    async def restore(connection: AsyncConnection, worker_id: str, starts: Sequence[SessionStart]) -> Restored:
        counts.append(len(starts))
        return await restore_these(connection, worker_id, starts)

    restore_these = lost_rows.restore
    monkeypatch.setattr(lost_rows, "restore", restore)
    starts = [a_start(tenant, worker_id="life")]
    for seconds in range(1, 5):
        starts.append(a_start(tenant, seconds, worker_id="life", previous_session_id=starts[-1].id))
    assert await SessionRows(harness.database, "life").restore(starts[::-1]) == {each.id for each in starts}
    assert counts == [2, 2, 1]
    store = SessionStore(harness.database)
    for earlier, later in itertools.pairwise(starts):
        assert (await store.get(tenant, earlier.id)).next_session_id == later.id
