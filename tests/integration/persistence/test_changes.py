"""Reading the changes of sessions, on a real Postgres."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
from sqlalchemy import text

from domain.errors import InvalidFilter
from domain.session import SessionRecord
from persistence.postgres.change_notifier import ChangeNotifier
from persistence.postgres.changes import TOKEN_SECONDS, Change, ChangeStore
from persistence.postgres.database import Database
from persistence.postgres.position import Position
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.session_values import Progress
from tests.integration.persistence.test_sessions import DONE, a_start


@pytest.fixture
def rows(database: Database) -> SessionRows:
    return SessionRows(database, "worker")


@pytest.fixture
def sessions(database: Database) -> SessionStore:
    return SessionStore(database)


@pytest.fixture
def changes(database: Database) -> ChangeStore:
    return ChangeStore(database)


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


class Reader:
    """The state of a client that has applied all changes it received."""

    def __init__(self, changes: ChangeStore, tenant: uuid.UUID, status: str | None = None) -> None:
        self._changes = changes
        self._tenant = tenant
        self._status = status
        self.known: dict[uuid.UUID, SessionRecord] = {}
        self.position = Position(0, 1, 1)
        self.snapshots = 0

    async def begin(self) -> None:
        page = await self._changes.snapshot(self._tenant, self._status)
        self.position, self.snapshots = page.position, self.snapshots + 1
        self.known = {record.id: record for record in page.sessions}
        while page.next is not None:
            page = await self._changes.snapshot(self._tenant, self._status, page.next)
            self.known |= {record.id: record for record in page.sessions}

    async def look(self) -> list[Change]:
        """Reads all new changes."""
        page = await self._changes.page(self._tenant, self._status, self.position)
        reached, found = page.position, list(page.changes)
        while page.next is not None:
            page = await self._changes.page(self._tenant, self._status, self.position, page.next)
            found += page.changes
        for change in found:
            if change.record is None:
                self.known.pop(change.session_id, None)
            else:
                self.known[change.record.id] = change.record
        self.position = reached
        return found

    async def resume_from_token(self) -> None:
        """Resumes as a client does after a disconnect: with the token only."""
        token = self.position.encode(self._tenant, self._status)
        position = await self._changes.resume(self._tenant, self._status, token)
        if position is None:
            await self.begin()
        else:
            self.position = position


async def all_of(sessions: SessionStore, tenant: uuid.UUID) -> dict[uuid.UUID, SessionRecord]:
    found: dict[uuid.UUID, SessionRecord] = {}
    cursor = None
    while True:
        page = await sessions.list(tenant, limit=100, cursor=cursor)
        found |= {record.id: record for record in page.sessions}
        if (cursor := page.next_cursor) is None:
            return found


@pytest.mark.parametrize("seed", range(4))
async def test_readers_that_reconnect_miss_nothing_whatever_the_order_of_commits(
    seed: int, postgres_url: str, changes: ChangeStore, sessions: SessionStore, tenant: uuid.UUID
) -> None:
    """Each writer keeps its transaction open for a while, so that the first write often commits last."""
    chance = random.Random(seed)
    starts = [a_start(tenant, minute) for minute in range(30)]
    ids = [start.id for start in starts]
    insert = (
        "INSERT INTO realtime_sessions (id, tenant_id, language, model, encoding, sample_rate, channels, store_audio,"
        " store_transcript, enhance_on_end, worker_id, started_at, status, ended_at)"
        " VALUES ($1, $2, 'en', 'fast', 'pcm_s16le', 16000, 1, false, false, false, 'w', now(), 'completed', now())"
    )

    async def write(mine: list[uuid.UUID]) -> None:
        connection = await asyncpg.connect(postgres_url)
        try:
            for session_id in mine:
                await connection.execute(insert, session_id, tenant)
            for number in range(40):
                # Sessions of several writers, locked in the order of their ids as one statement does.
                some = sorted(chance.sample(ids, 3))
                async with connection.transaction():
                    await connection.execute(
                        "UPDATE realtime_sessions SET word_count = word_count + 1, audio_duration_seconds = $2"
                        " WHERE id IN (SELECT id FROM realtime_sessions WHERE id = ANY($1) ORDER BY id FOR UPDATE)",
                        some,
                        float(number),
                    )
                    await asyncio.sleep(chance.uniform(0, 0.02))
                if chance.random() < 0.1:
                    await connection.execute("UPDATE realtime_sessions SET deleted_at = now() WHERE id = $1", some[0])
                    if chance.random() < 0.5:
                        await connection.execute("DELETE FROM realtime_sessions WHERE id = $1", some[0])
        finally:
            await connection.close()

    async def read(reader: Reader) -> None:
        while True:
            await reader.look()
            await asyncio.sleep(chance.uniform(0, 0.03))
            if chance.random() < 0.3:
                await reader.resume_from_token()

    readers = [Reader(changes, tenant) for _ in range(3)]
    for reader in readers:
        await reader.begin()
    reading = [asyncio.create_task(read(reader)) for reader in readers]
    await asyncio.gather(*(write(ids[at::5]) for at in range(5)))
    for task in reading:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    truth = await all_of(sessions, tenant)
    assert truth
    assert len(truth) < len(ids)
    for reader in readers:
        # A cancelled read has returned nothing: the client resumes with its old token.
        await reader.look()
        assert reader.known == truth
        assert reader.snapshots == 1
        assert await reader.look() == []


async def test_a_late_commit_with_a_low_transaction_id_is_seen(
    postgres: asyncpg.Connection, rows: SessionRows, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    late, early = a_start(tenant), a_start(tenant)
    await rows.insert([late, early])
    reader = Reader(changes, tenant)
    await reader.begin()
    async with postgres.transaction():
        await postgres.execute("UPDATE realtime_sessions SET word_count = 7 WHERE id = $1", late.id)
        await rows.write({early.id: Progress(1.0, 1, 1, "en")})
        assert [change.session_id for change in await reader.look()] == [early.id]
        await reader.resume_from_token()
        assert await reader.look() == []
    await reader.resume_from_token()
    assert [change.session_id for change in await reader.look()] == [late.id]
    assert await reader.look() == []


async def test_of_two_concurrent_changes_of_a_session_the_last_commit_is_seen(
    postgres: asyncpg.Connection, rows: SessionRows, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    start = a_start(tenant)
    await rows.insert([start])
    reader = Reader(changes, tenant)
    await reader.begin()
    async with postgres.transaction():
        await postgres.execute("SELECT pg_current_xact_id()")
        await rows.write({start.id: Progress(1.0, 1, 1, "en")})
        assert len(await reader.look()) == 1
        await postgres.execute("UPDATE realtime_sessions SET word_count = 9 WHERE id = $1", start.id)
    assert [change.record.word_count for change in await reader.look() if change.record] == [9]


async def test_internal_columns_are_no_change(rows: SessionRows, changes: ChangeStore, tenant: uuid.UUID) -> None:
    start = a_start(tenant)
    await rows.insert([start])
    await rows.write({start.id: Progress(1.0, 1, 1, "en")})
    reader = Reader(changes, tenant)
    await reader.begin()
    await rows.write({start.id: Progress(1.0, 1, 1, "en", stored_bytes=99, processed_seconds=1.0)})
    assert await reader.look() == []


async def test_a_deletion_is_reported_once_also_after_a_reconnect(
    rows: SessionRows, sessions: SessionStore, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    start = a_start(tenant, store_audio=False, store_transcript=False)
    await rows.insert([start])
    reader, away = Reader(changes, tenant), Reader(changes, tenant)
    await reader.begin()
    await away.begin()
    await rows.conclude(start.id, DONE)
    await sessions.soft_delete(tenant, start.id)
    assert await reader.look() == [Change(start.id, None)]
    await sessions.soft_delete(tenant, start.id)
    await sessions.delete_row(tenant, start.id)
    assert await reader.look() == []
    await away.resume_from_token()
    assert await away.look() == [Change(start.id, None)]
    assert not away.known


async def test_a_watch_of_a_status_sees_sessions_enter_and_leave_it(
    rows: SessionRows, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    start = a_start(tenant)
    active, completed = Reader(changes, tenant, "active"), Reader(changes, tenant, "completed")
    await active.begin()
    await completed.begin()
    await rows.insert([start])
    await active.look()
    await completed.look()
    assert (set(active.known), set(completed.known)) == ({start.id}, set())
    await rows.write({start.id: Progress(1.0, 1, 1, "en")})
    assert len(await active.look()) == 1
    assert await completed.look() == [], "a session that never had the status is not reported"
    await rows.conclude(start.id, DONE)
    assert await active.look() == [Change(start.id, None)]
    await completed.look()
    assert set(completed.known) == {start.id}
    with pytest.raises(InvalidFilter, match="status"):
        await changes.resume(tenant, "asleep", "")


async def test_resuming_a_session_is_a_change_of_it(
    rows: SessionRows, sessions: SessionStore, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    first = a_start(tenant)
    await rows.insert([first])
    await rows.conclude(first.id, DONE)
    reader = Reader(changes, tenant)
    await reader.begin()
    second = a_start(tenant, previous_session_id=first.id, resume_from_seconds=1.0)
    await rows.admit(second, None)
    await reader.look()
    assert reader.known[first.id].next_session_id == second.id
    await rows.conclude(second.id, DONE)
    await sessions.soft_delete(tenant, second.id)
    await reader.look()
    assert reader.known[first.id].next_session_id is None


async def test_a_tenant_sees_only_its_own_changes(
    rows: SessionRows, changes: ChangeStore, database: Database, tenant: uuid.UUID
) -> None:
    other = uuid.uuid4()
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO tenants (id, name) VALUES (:id, :name)"), {"id": other, "name": str(other)}
        )
    reader = Reader(changes, other)
    await reader.begin()
    await rows.insert([a_start(tenant)])
    assert await reader.look() == []
    token = reader.position.encode(tenant, None)
    assert await changes.resume(other, None, token) is None
    assert await changes.resume(tenant, None, token) is not None
    assert await changes.resume(tenant, "active", token) is None


async def test_tokens_that_are_too_old_or_in_the_future_are_rejected(changes: ChangeStore, tenant: uuid.UUID) -> None:
    now = (await changes.snapshot(tenant, None)).position
    old = Position(now.at - int(TOKEN_SECONDS) - 1, now.xmin, now.xmax)
    ahead = Position(now.at, now.xmin, now.xmax + 1000)
    for position, is_good in ((now, True), (old, False), (ahead, False)):
        found = await changes.resume(tenant, None, position.encode(tenant, None))
        assert (found is not None) is is_good


async def test_many_changes_come_in_pages_each_session_once(
    rows: SessionRows, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    reader = Reader(changes, tenant)
    await reader.begin()
    starts = [a_start(tenant, minute) for minute in range(450)]
    for at in range(0, 450, 150):
        await rows.insert(starts[at : at + 150])
    assert sorted(change.session_id for change in await reader.look()) == sorted(start.id for start in starts)
    anew = Reader(changes, tenant)
    await anew.begin()
    assert anew.known == reader.known


async def test_old_changes_are_deleted(
    postgres: asyncpg.Connection, rows: SessionRows, changes: ChangeStore, tenant: uuid.UUID
) -> None:
    old, new = a_start(tenant), a_start(tenant)
    await rows.insert([old, new])
    await postgres.execute(
        "UPDATE session_changes SET changed_at = now() - interval '1 day' WHERE session_id = $1", old.id
    )
    await changes.delete_expired()
    left = await postgres.fetch("SELECT session_id FROM session_changes WHERE tenant_id = $1", tenant)
    assert [row["session_id"] for row in left] == [new.id]
    reader = Reader(changes, tenant)
    await reader.begin()
    await rows.write({old.id: Progress(1.0, 1, 1, "en")})
    assert [change.session_id for change in await reader.look()] == [old.id]


async def test_a_notification_wakes_its_tenant_also_after_a_lost_connection(
    postgres: asyncpg.Connection, database: Database, rows: SessionRows, tenant: uuid.UUID
) -> None:
    change_notifier = ChangeNotifier(database)
    running = asyncio.create_task(change_notifier.run())
    try:
        with change_notifier.watching(tenant) as mine, change_notifier.watching(uuid.uuid4()) as other:
            async with asyncio.timeout(10):
                await mine.wait()  # a new listener may have missed notifications
                await other.wait()
            mine.clear()
            other.clear()
            await rows.insert([a_start(tenant)])
            async with asyncio.timeout(5):
                await mine.wait()
            assert not other.is_set()
            mine.clear()
            cut = await postgres.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%dalston_sessions%'"
            )
            assert cut
            async with asyncio.timeout(10):
                await mine.wait()
            mine.clear()
            await rows.insert([a_start(tenant)])
            async with asyncio.timeout(5):
                await mine.wait()
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert change_notifier.watches(tenant) == 0
