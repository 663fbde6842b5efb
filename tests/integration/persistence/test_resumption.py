"""The resume point of a session, from rows and objects as each kind of end leaves them."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError

from domain.errors import InvalidResumption, SessionActive, SessionNotFound, SessionResumed, TokenSpent, TooManySessions
from domain.session_id import format_session_id, new_session_id, new_uuid7, parse_session_id
from domain.tenancy import Caller, TenantLimits
from persistence.postgres.database import Database
from persistence.postgres.rows import SessionRows
from persistence.postgres.tables import realtime_sessions, session_utterances, workers
from persistence.recovery.resumption import Resumption, Resumptions
from persistence.s3.keys import Tail, tail_key, tail_prefix
from persistence.s3.objects import ObjectStore
from persistence.session_values import SessionStart

SECOND = 32_000


@dataclass
class FakeCall:
    """A call of this process, silent for so long."""

    silent_seconds: float
    received_seconds: float = 10.0
    taken_over: Exception | None = None
    tenant_id: uuid.UUID | None = None

    def take_over(self, error: Exception) -> None:
        self.taken_over = error


class Past:
    """Sessions of the tenant of one test, inserted directly."""

    def __init__(self, database: Database, objects: ObjectStore, tenant: uuid.UUID) -> None:
        self.database, self.objects, self.tenant = database, objects, tenant
        self.calls: dict[uuid.UUID, FakeCall] = {}
        self.rows = SessionRows(database, f"test-{tenant}")
        self.resumptions = Resumptions(database, objects, self.rows, self.calls.get, wait_seconds=0.5)

    async def session(self, **columns: Any) -> str:
        """A session that was interrupted after 10 s, all recognised and none stored, unless a test changes that."""
        start = self.start()
        values = {name: getattr(start, name) for name in start.__slots__} | {
            "status": "interrupted",
            "ended_at": start.started_at + timedelta(seconds=10),
            "audio_duration_seconds": 10.0,
            "processed_seconds": 10.0,
        }
        await self._run(insert(realtime_sessions).values(values | columns))
        return start.session_id

    def start(self, **changes: Any) -> SessionStart:
        start = SessionStart(
            id=parse_session_id(new_session_id()),
            tenant_id=self.tenant,
            worker_id=self.rows.worker_id,
            started_at=datetime.now(UTC) - timedelta(seconds=10),
            language="en",
            model="fast",
            encoding="pcm_s16le",
            sample_rate=16_000,
            channels=1,
            store_audio=True,
            store_transcript=True,
        )
        return replace(start, **changes)

    async def change(self, session_id: str, **columns: Any) -> None:
        where = realtime_sessions.c.id == parse_session_id(session_id)
        await self._run(update(realtime_sessions).where(where).values(columns))

    async def say(self, session_id: str, *times: tuple[float, float]) -> None:
        for index, (start, end) in enumerate(times):
            values = {
                "index": index,
                "start": start,
                "end": end,
                "text": "",
                "confidence": 1,
                "language": "en",
                "words": [],
            }
            await self._run(insert(session_utterances).values(session_id=parse_session_id(session_id), **values))

    async def tail(self, session_id: str, first: float, seconds: float) -> None:
        tail = Tail(round(first * SECOND), round(seconds * SECOND))
        await self.objects.put(
            tail_key(parse_session_id(session_id), tail), bytes(tail.size), "application/octet-stream"
        )

    async def live(self) -> None:
        """The process that the sessions name is alive."""
        now = datetime.now(UTC)
        lease = {"id": self.rows.worker_id, "started_at": now, "lease_expires_at": now + timedelta(hours=1)}
        await self._run(insert(workers).values(lease))

    async def point(self, session_id: str, **changes: Any) -> float:
        wanted = Resumption(Caller(self.tenant), parse_session_id(session_id), new_uuid7(), "pcm_s16le", 16_000, 1)
        return await self.resumptions.point(replace(wanted, **changes))

    async def resume(self, session_id: str, **changes: Any) -> str:
        start = self.start(previous_session_id=parse_session_id(session_id), resume_from_seconds=1.0, **changes)
        await self.rows.admit(start, None)
        return start.session_id

    async def clear(self) -> None:
        mine = realtime_sessions.c.tenant_id == self.tenant
        async with self.database.transaction() as connection:
            ids = (
                await connection.execute(delete(realtime_sessions).where(mine).returning(realtime_sessions.c.id))
            ).scalars()
            await connection.execute(delete(workers).where(workers.c.id == self.rows.worker_id))
        for session_id in ids:
            await self.objects.delete_all(await self.objects.list(tail_prefix(session_id)))

    async def _run(self, statement: Any) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(statement)


@pytest.fixture
async def past(database: Database, objects: ObjectStore, tenant: uuid.UUID) -> AsyncIterator[Past]:
    past = Past(database, objects, tenant)
    yield past
    await past.clear()


STORED = {"audio_uri": "s3://b/a", "transcript_uri": "s3://b/t"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (STORED, 10.0),
        (STORED | {"processed_seconds": 7.5}, 7.5),
        # A machine lost with its disk: the row states what is left.
        (STORED | {"audio_duration_seconds": 6.0}, 6.0),
        ({"stored_bytes": 4 * SECOND}, 4.0),
        ({"store_audio": False, "processed_seconds": 9.0}, 9.0),
        ({"store_audio": False, "store_transcript": False, "processed_seconds": 9.0}, 9.0),
        (STORED | {"status": "completed", "processed_seconds": 0.0}, 10.0),
        ({}, 0.0),
    ],
)
async def test_the_point_is_what_is_stored_and_processed(past: Past, columns: dict[str, Any], expected: float) -> None:
    assert await past.point(await past.session(**columns)) == expected


async def test_audio_in_the_bucket_counts_up_to_the_first_gap(past: Past) -> None:
    session_id = await past.session(stored_bytes=2 * SECOND)
    await past.tail(session_id, 0.0, 3.0)
    await past.tail(session_id, 3.0, 4.0)
    assert await past.point(session_id) == 7.0
    await past.tail(session_id, 8.0, 2.0)
    assert await past.point(session_id) == 7.0


async def test_no_utterance_is_cut(past: Past) -> None:
    session_id = await past.session(stored_bytes=5 * SECOND)
    await past.say(session_id, (0.0, 2.0), (3.2, 6.5), (7.0, 9.0))
    assert await past.point(session_id) == 3.2
    await past.change(session_id, stored_bytes=round(6.5 * SECOND))
    assert await past.point(session_id) == 6.5


async def test_a_point_is_a_whole_number_of_samples(past: Past) -> None:
    session_id = await past.session(**STORED, sample_rate=44_100, processed_seconds=3.14159)
    point = await past.point(session_id, sample_rate=44_100)
    assert point <= 3.14159
    assert point * 44_100 == pytest.approx(round(point * 44_100), abs=1e-6)


async def test_finals_of_a_server_of_the_release_before_determine_the_point(past: Past) -> None:
    session_id = await past.session(**STORED, processed_seconds=0.0)
    await past.say(session_id, (0.0, 2.0), (3.2, 6.5))
    assert await past.point(session_id) == 6.5


async def test_a_client_may_choose_any_point_that_was_received(past: Past) -> None:
    stored, dead = await past.session(**STORED), await past.session(audio_duration_seconds=3.0)
    assert await past.point(stored, seconds=9.99) == 9.99
    assert await past.point(stored, seconds=0.0) == 0.0
    with pytest.raises(InvalidResumption, match=r"at most 10\.000"):
        await past.point(stored, seconds=10.1)
    # Its server died, and may have received more than the row knows: there were 10 s of time.
    assert await past.point(dead, seconds=9.0) == 9.0
    with pytest.raises(InvalidResumption):
        await past.point(dead, seconds=1e300)


async def test_a_session_that_runs_is_waited_for_until_it_ends(past: Past) -> None:
    await past.live()
    session_id = await past.session(status="active", ended_at=None)
    with pytest.raises(SessionActive):
        await past.point(session_id)
    finding = asyncio.create_task(past.point(session_id))
    await asyncio.sleep(0.3)
    await past.change(session_id, status="interrupted", ended_at=datetime.now(UTC), **STORED)
    assert await finding == 10.0


async def test_response_time_does_not_reveal_a_session_to_another_tenant(past: Past) -> None:
    await past.live()
    session_id = await past.session(status="active", ended_at=None)
    past.calls[parse_session_id(session_id)] = FakeCall(silent_seconds=0.0, tenant_id=past.tenant)
    past.resumptions = Resumptions(past.database, past.objects, past.rows, past.calls.get, wait_seconds=3600)
    async with asyncio.timeout(20):
        with pytest.raises(SessionNotFound):
            await past.point(session_id, caller=Caller(uuid.uuid4(), TenantLimits()))


async def test_a_session_whose_server_is_dead_is_not_waited_for(past: Past) -> None:
    assert await past.point(await past.session(status="active", ended_at=None, stored_bytes=3 * SECOND)) == 3.0


async def test_only_a_silent_client_of_this_process_loses_its_session(past: Past) -> None:
    await past.live()
    session_id = await past.session(status="active", ended_at=None, stored_bytes=3 * SECOND)
    call = past.calls[parse_session_id(session_id)] = FakeCall(silent_seconds=1.9)
    with pytest.raises(SessionActive):
        await past.point(session_id)
    assert call.taken_over is None
    call.silent_seconds = 2.1
    # The resume waits for its last finals, but not forever.
    assert await past.point(session_id) == 3.0
    assert isinstance(call.taken_over, SessionResumed)
    # The new session has no row yet, and may come to nothing.
    assert call.taken_over.resumed_by is None


async def test_a_refused_resume_ends_no_session(past: Past) -> None:
    await past.live()
    session_id = await past.session(
        status="active", ended_at=None, started_at=datetime.now(UTC) - timedelta(hours=1), processed_seconds=9.0
    )
    call = past.calls[parse_session_id(session_id)] = FakeCall(silent_seconds=3.0)
    one = TenantLimits(max_sessions=1)
    with pytest.raises(InvalidResumption, match=r"at most 10\.000"):
        await past.point(session_id, seconds=10.1)
    with pytest.raises(TokenSpent):
        await past.point(session_id, caller=Caller(past.tenant, one, token_hash=b"spent"))
    other = await past.session(status="active", ended_at=None)
    with pytest.raises(TooManySessions):
        await past.point(session_id, caller=Caller(past.tenant, one))
    assert call.taken_over is None
    # The session that is continued does not count against the one that continues it.
    await past.change(other, status="interrupted", ended_at=datetime.now(UTC))
    assert await past.point(session_id, seconds=10.0, caller=Caller(past.tenant, one)) == 10.0
    assert call.taken_over is not None
    start = past.start(previous_session_id=parse_session_id(session_id), resume_from_seconds=1.0)
    await past.rows.admit(start, Caller(past.tenant, one))


async def test_a_refused_resume_does_not_end_an_unacknowledged_continuation_either(past: Past) -> None:
    await past.live()
    session_id = await past.session(**STORED)
    call = past.calls[parse_session_id(await past.resume(session_id))] = FakeCall(3.0, received_seconds=0.0)
    with pytest.raises(InvalidResumption, match=r"at most 10\.000"):
        await past.point(session_id, seconds=10.1)
    assert call.taken_over is None


async def test_a_continuation_that_runs_and_has_nothing_yet_is_waited_for(past: Past) -> None:
    await past.live()
    session_id = await past.session(**STORED)
    following = await past.resume(session_id)
    with pytest.raises(SessionResumed) as raised:
        await past.point(session_id)
    assert raised.value.resumed_by == following
    past.calls[parse_session_id(following)] = FakeCall(silent_seconds=3.0)
    finding = asyncio.create_task(past.point(session_id))
    await asyncio.sleep(0.3)
    await past.change(following, status="interrupted", ended_at=datetime.now(UTC))
    assert await finding == 10.0
    last = await past.resume(session_id)
    assert await linked_to(past, session_id) == [last]


async def test_a_continuation_that_received_something_counts_for_ever(past: Past) -> None:
    session_id = await past.session(**STORED)
    following = await past.resume(session_id)
    await past.change(following, status="interrupted", ended_at=datetime.now(UTC), audio_duration_seconds=0.1)
    for attempt in (past.point(session_id), past.resume(session_id)):
        with pytest.raises(SessionResumed) as raised:
            await attempt
        assert raised.value.resumed_by == following
    await past.change(following, deleted_at=datetime.now(UTC))
    assert await past.point(session_id) == 10.0
    await past.resume(session_id)


async def test_one_of_many_continuations_of_a_session_is_linked(past: Past) -> None:
    await past.live()
    session_id = await past.session(**STORED)
    outcomes = await asyncio.gather(*(past.resume(session_id) for _ in range(6)), return_exceptions=True)
    (winner,) = [each for each in outcomes if isinstance(each, str)]
    others = [each for each in outcomes if isinstance(each, SessionResumed)]
    assert len(others) == 5
    assert {each.resumed_by for each in others} == {winner}
    assert await linked_to(past, session_id) == [winner]
    with pytest.raises(IntegrityError):
        await past.session(previous_session_id=parse_session_id(session_id))


async def test_a_deleted_or_foreign_session_cannot_be_resumed(past: Past) -> None:
    session_id = await past.session(**STORED)
    with pytest.raises(SessionNotFound):
        await past.point(session_id, caller=Caller(uuid.uuid4()))
    with pytest.raises(SessionNotFound):
        await past.point(new_session_id())
    await past.change(session_id, deleted_at=datetime.now(UTC))
    for attempt in (past.point(session_id), past.resume(session_id)):
        with pytest.raises(SessionNotFound):
            await attempt


@pytest.mark.parametrize("other", [{"encoding": "mulaw"}, {"sample_rate": 8000}, {"channels": 2}])
async def test_another_format_is_refused_by_its_name(past: Past, other: dict[str, Any]) -> None:
    with pytest.raises(InvalidResumption) as raised:
        await past.point(await past.session(**STORED), **other)
    assert raised.value.parameter == next(iter(other))


async def linked_to(past: Past, session_id: str) -> list[str]:
    query = realtime_sessions.select().where(realtime_sessions.c.previous_session_id == parse_session_id(session_id))
    async with past.database.transaction() as connection:
        return [format_session_id(row.id) for row in (await connection.execute(query)).all()]
