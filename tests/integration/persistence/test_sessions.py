"""The store of sessions on a real Postgres."""

import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import postgresql

from domain.errors import InvalidFilter, SessionActive, SessionNotFound, StorageUnavailable
from domain.job import format_job_id
from domain.session import EndReason, Enhancement, SessionFilter, SessionRecord
from domain.session_id import new_session_id, parse_session_id
from domain.transcript import TimedWord, Utterance
from persistence.errors import NotOwner
from persistence.postgres.cursor import Cursor
from persistence.postgres.database import Database
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows, Upload
from persistence.postgres.sessions import BY_INDEX, SessionStore, count_query, page_query
from persistence.postgres.tables import realtime_sessions, tenants
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects, StoredPart

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
DONE = Conclusion(EndReason("completed"), NOON + timedelta(hours=1), Progress(12.5, 3, 20, "es"))

HELLO = Utterance(0.5, 1.0, "hello", 0.5, "en")


def a_start(tenant_id: uuid.UUID, minute: int = 0, **changes: Any) -> SessionStart:
    values: dict[str, Any] = {
        "id": parse_session_id(new_session_id()),
        "tenant_id": tenant_id,
        "worker_id": "worker",
        "started_at": NOON + timedelta(minutes=minute),
        "language": "auto",
        "model": "fast",
        "encoding": "pcm_s16le",
        "sample_rate": 16000,
        "channels": 1,
        "store_audio": True,
        "store_transcript": True,
        "client_ip": "2001:db8::7",
    }
    return SessionStart(**values | changes)


@pytest.fixture
def rows(database: Database) -> SessionRows:
    return SessionRows(database, "worker")


@pytest.fixture
def store(database: Database) -> SessionStore:
    return SessionStore(database)


async def test_a_row_reads_back_with_every_column(rows: SessionRows, store: SessionStore, tenant: uuid.UUID) -> None:
    first = a_start(tenant, minute=-9)
    start = a_start(tenant, previous_session_id=first.id, resume_from_seconds=2.5, enhance_on_end=True)
    await rows.insert([first, start])
    await rows.conclude(start.id, replace(DONE, end_reason=EndReason("error", "broke")))
    await rows.set_stored(start.id, StoredObjects("s3://b/a", "s3://b/t"))
    record = await store.get(tenant, start.id)
    assert record == SessionRecord(
        id=start.id,
        tenant_id=tenant,
        status="error",
        language="es",
        model="fast",
        encoding="pcm_s16le",
        sample_rate=16000,
        channels=1,
        store_audio=True,
        store_transcript=True,
        enhance_on_end=True,
        audio_uri="s3://b/a",
        transcript_uri="s3://b/t",
        enhancement_job_id=format_job_id(start.id),
        audio_duration_seconds=12.5,
        utterance_count=3,
        word_count=20,
        worker_id="worker",
        client_ip="2001:db8::7",
        previous_session_id=first.id,
        resume_from_seconds=2.5,
        started_at=start.started_at,
        ended_at=DONE.ended_at,
        error="broke",
        next_session_id=None,
        source="live",
        file_name=None,
        transcript_version=1,
        transcript_count=1,
        enhancement=Enhancement("queued", 0.0, "worker"),
    )
    assert (await store.get(tenant, first.id)).next_session_id == start.id


def test_the_table_has_every_column_of_the_record() -> None:
    internal = {"deleted_at", "upload_id", "stored_bytes", "processed_seconds", "has_tails", "recover_after"}
    internal |= {"end_requested_at", "current_version", "media_type", "requested_language", "vocabulary"}
    internal.add("expires_at")
    columns = {column.name for column in realtime_sessions.c} - internal
    of_other_rows = {"next_session_id", "transcript_version", "transcript_count", "enhancement"}
    assert columns == {field.name for field in fields(SessionRecord)} - of_other_rows


async def test_the_list_is_newest_first_and_pages_by_offset(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    starts = [a_start(tenant, minute) for minute in (3, 1, 4, 2, 5)]
    await rows.insert(starts)
    ids = [start.id for start in sorted(starts, key=lambda start: start.started_at, reverse=True)]
    page = await store.list(tenant, limit=2)
    assert [record.id for record in page.sessions] == ids[:2]
    assert (page.total, page.next_cursor is not None) == (5, True)
    page = await store.list(tenant, limit=2, offset=4)
    assert [record.id for record in page.sessions] == ids[4:]
    assert page.next_cursor is None
    assert (await store.list(tenant, offset=9)).sessions == ()


async def test_a_cursor_lists_each_session_once_while_others_begin(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    starts = [a_start(tenant, minute // 3) for minute in range(20)]  # three share each time
    await rows.insert(starts)
    seen: list[str] = []
    cursor = None
    while True:
        page = await store.list(tenant, limit=3, cursor=cursor)
        seen += [record.id for record in page.sessions]
        await rows.insert([a_start(tenant, 99)])
        if (cursor := page.next_cursor) is None:
            break
    assert len(seen) == len(set(seen)) == 20
    assert set(seen) == {start.id for start in starts}


async def test_filters_select_by_status_and_half_open_time(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    starts = [a_start(tenant, minute) for minute in range(4)]
    await rows.insert(starts)
    await rows.conclude(starts[1].id, DONE)

    async def listed(**wanted: Any) -> list[str]:
        page = await store.list(tenant, SessionFilter(**wanted))
        assert page.total == len(page.sessions)
        return [record.id for record in page.sessions]

    assert await listed(status="completed") == [starts[1].id]
    assert len(await listed(status="active")) == 3
    assert await listed(since=starts[2].started_at) == [starts[3].id, starts[2].id]
    assert await listed(until=starts[2].started_at) == [starts[1].id, starts[0].id]
    assert await listed(since=NOON, until=NOON) == []


async def test_a_total_is_exact_up_to_a_limit_and_marked_beyond_it(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistence.postgres.sessions.MAX_COUNTED", 3)
    await rows.insert([a_start(tenant, minute) for minute in range(3)])
    page = await store.list(tenant, limit=1)
    assert (page.total, page.is_total_exact) == (3, True)
    await rows.insert([a_start(tenant, 3)])
    page = await store.list(tenant, limit=1, cursor=page.next_cursor)
    assert (page.total, page.is_total_exact) == (3, False)
    page = await store.list(tenant, SessionFilter(since=NOON + timedelta(minutes=3)))
    assert (page.total, page.is_total_exact) == (1, True)


@pytest.mark.parametrize(
    ("parameter", "arguments"),
    [
        ("limit", {"limit": 0}),
        ("limit", {"limit": 101}),
        ("offset", {"offset": -1}),
        ("offset", {"offset": 100_001}),
        ("offset", {"offset": 1, "cursor": Cursor(NOON, uuid.uuid4()).encode()}),
        ("cursor", {"cursor": "nonsense"}),
        ("status", {"session_filter": SessionFilter(status="gone")}),
        ("since", {"session_filter": SessionFilter(since=datetime(2026, 1, 1))}),
    ],
)
async def test_a_parameter_out_of_range_is_named(
    store: SessionStore, parameter: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InvalidFilter) as refusal:
        await store.list(uuid.uuid4(), **arguments)
    assert refusal.value.parameter == parameter


async def test_sessions_of_other_tenants_are_not_found(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    start = a_start(tenant)
    await rows.insert([start])
    stranger = uuid.uuid4()
    for conclude in (False, True):
        if conclude:
            await rows.conclude(start.id, DONE)
        with pytest.raises(SessionNotFound):
            await store.get(stranger, start.id)
        with pytest.raises(SessionNotFound):
            await store.soft_delete(stranger, start.id)
        assert (await store.list(stranger)).total == 0
    await store.soft_delete(tenant, start.id)
    await store.delete_row(stranger, start.id)
    await store.soft_delete(tenant, start.id)  # still there


async def test_a_soft_deleted_session_is_hidden_from_its_tenant(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    start, follower = a_start(tenant), a_start(tenant, 1)
    follower = replace(follower, previous_session_id=start.id)
    await rows.insert([start])
    await rows.insert([follower])
    with pytest.raises(SessionActive):
        await store.soft_delete(tenant, start.id)
    await rows.conclude(start.id, DONE)
    await store.soft_delete(tenant, start.id)
    await store.soft_delete(tenant, start.id)
    with pytest.raises(SessionNotFound):
        await store.get(tenant, start.id)
    assert (await store.list(tenant)).total == 1
    assert not await rows.set_stored(start.id, StoredObjects("s3://b/a", None))
    # It is not completely stored: the process that stores it deletes its objects, and then the row.
    await store.delete_row(tenant, start.id)
    await store.soft_delete(tenant, start.id)
    await rows.delete_row(start.id)
    with pytest.raises(SessionNotFound):
        await store.soft_delete(tenant, start.id)
    assert (await store.get(tenant, follower.id)).previous_session_id is None


async def test_progress_changes_only_running_sessions_of_the_worker(
    rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    mine, ended, foreign = a_start(tenant), a_start(tenant), a_start(tenant, worker_id="other")
    await rows.insert([mine, ended, foreign])
    await rows.conclude(ended.id, DONE)
    await rows.write({each.id: Progress(7.0, 1, 2, "de") for each in (mine, ended, foreign)})
    figures = [(await store.get(tenant, each.id)).utterance_count for each in (mine, ended, foreign)]
    assert figures == [1, 3, 0]
    await rows.write({mine.id: Progress(6.0, 2, 2, "de")})
    record = await store.get(tenant, mine.id)
    assert (record.audio_duration_seconds, record.utterance_count, record.language) == (7.0, 2, "de")


async def test_only_the_owner_writes_to_a_session(
    database: Database, rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    start = a_start(tenant)
    await rows.insert([start])
    other = SessionRows(database, "other")
    part = StoredPart("upload", 1, '"etag"', 5)
    for write in (
        other.conclude(start.id, DONE),
        other.set_stored(start.id, StoredObjects("s3://b/a", None)),
        other.mark_tails_deleted(start.id),
        other.delete_upload(start.id),
    ):
        with pytest.raises(NotOwner):
            await write
    assert await other.add_parts([(start.id, part)]) == frozenset()
    await other.write({}, [NumberedUtterance(start.id, 0, HELLO)])
    await other.end_refused("late", NOON, [start.id])
    await other.write({start.id: Progress(7.0)})
    record = await store.get(tenant, start.id)
    assert (record.status, record.audio_uri, record.audio_duration_seconds) == ("active", None, 0.0)
    assert await rows.upload(start.id) == Upload(None, ())
    assert await rows.utterances(start.id) == []


async def test_parts_of_many_sessions_are_written_and_replaced(rows: SessionRows, tenant: uuid.UUID) -> None:
    one, two, foreign = a_start(tenant), a_start(tenant), a_start(tenant, worker_id="other")
    await rows.insert([one, two, foreign])
    second, third = StoredPart("u1", 2, '"b"', 5), StoredPart("u1", 3, '"c"', 5)
    noted = await rows.add_parts(
        [(one.id, second), (one.id, third), (two.id, StoredPart("u2", 2, '"x"', 5)), (foreign.id, second)]
    )
    assert noted == {one.id, two.id}
    again = replace(third, etag='"d"', size=4)
    await rows.add_parts([(one.id, again)])
    assert await rows.upload(one.id) == Upload("u1", (second, again))
    await rows.delete_upload(one.id)
    assert await rows.upload(one.id) == Upload(None, ())
    await rows.set_stored(two.id, StoredObjects("s3://b/a", None))
    assert await rows.upload(two.id) == Upload(None, (), is_stored=True)


async def test_repeated_writes_of_utterances_have_no_effect(rows: SessionRows, tenant: uuid.UUID) -> None:
    one, two = a_start(tenant), a_start(tenant)
    await rows.insert([one, two])
    words = replace(HELLO, text="bye now", words=(TimedWord("bye", 1.0, 1.5, 0.9), TimedWord("now", 1.5, 2.0, 0.8)))
    batch = [NumberedUtterance(one.id, 1, words), NumberedUtterance(one.id, 0, HELLO)]
    await rows.write({}, [*batch, NumberedUtterance(two.id, 0, HELLO)])
    await rows.write({}, [*batch, NumberedUtterance(one.id, 0, words)])
    assert await rows.utterances(one.id) == [HELLO, words]
    assert await rows.utterances(two.id) == [HELLO]


async def test_adoption_takes_unfinished_sessions_and_those_in_the_spool(
    database: Database, rows: SessionRows, store: SessionStore, tenant: uuid.UUID
) -> None:
    spooled, lost, done, living = (a_start(tenant, worker_id=name) for name in ("dead", "dead", "dead", "living"))
    await rows.insert([spooled, lost, done, living])
    dead = SessionRows(database, "dead")
    await dead.conclude(done.id, DONE)
    await dead.set_stored(done.id, StoredObjects("s3://b/a", "s3://b/t"))
    await Lease(database, "living", 60.0, 5.0).register()
    adopter = Ownership(database, "adopter")
    taken = await adopter.adopt(["dead"], [spooled.id, living.id], EndReason("interrupted", "died"), NOON)
    assert taken == {spooled.id, lost.id}
    owners = [(await store.get(tenant, each.id)).worker_id for each in (spooled, lost, done, living)]
    assert owners == ["adopter", "adopter", "dead", "living"]
    record = await store.get(tenant, spooled.id)
    assert (record.status, record.error, record.ended_at) == ("interrupted", "died", NOON)
    # The adopting process dies, too: the next process with the spool takes the session.
    assert await Ownership(database, "next").adopt([], [spooled.id], EndReason("interrupted"), NOON) == {spooled.id}


# A plan depends on the number of rows and their statistics, so the test inserts its own rows.
_FILL = """
INSERT INTO realtime_sessions (id, tenant_id, status, language, model, encoding, sample_rate, channels, store_audio,
                               store_transcript, enhance_on_end, worker_id, started_at, ended_at)
SELECT gen_random_uuid(), '{tenant}', CASE WHEN n % 50 = 0 THEN 'completed' ELSE 'interrupted' END, 'en', 'fast',
       'pcm_s16le', 16000, 1, false, false, false, 'other', now() - n * interval '1 minute', now()
FROM generate_series(1, 20000) AS n
"""


@pytest.fixture
async def slow_database(make_settings: Callable[..., Any]) -> AsyncIterator[Database]:
    """With a longer deadline, for a transaction that writes thousands of rows on a busy machine."""
    from persistence.postgres.database import open_database

    async with open_database(make_settings(database_deadline_seconds=50)) as database:
        yield database


async def _plans(database: Database, tenant: uuid.UUID, *queries: Any) -> list[str]:
    async with database.transaction() as connection:
        await connection.execute(tenants.insert().values(id=tenant, name=str(tenant)))
        await connection.exec_driver_sql(_FILL.format(tenant=tenant))
        await connection.exec_driver_sql("ANALYZE realtime_sessions")
        await connection.execute(BY_INDEX)
        plans = []
        for query in queries:
            compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
            lines = await connection.execute(text("EXPLAIN " + str(compiled).replace(":", r"\:")))
            plans.append("\n".join(line for (line,) in lines))
        await connection.rollback()
        return plans


@pytest.mark.parametrize("cursor", [None, Cursor(NOON, uuid.uuid4())])
@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (SessionFilter(), "ix_realtime_sessions_list "),
        (SessionFilter(since=NOON, until=NOON + timedelta(days=1)), "ix_realtime_sessions_list "),
        (SessionFilter(status="completed"), "ix_realtime_sessions_list_status "),
    ],
)
async def test_a_page_is_read_from_one_index_in_its_order(
    slow_database: Database, cursor: Cursor | None, wanted: SessionFilter, index: str
) -> None:
    tenant = uuid.uuid4()
    page, count = await _plans(
        slow_database, tenant, page_query(tenant, wanted, 50, 0, cursor), count_query(tenant, wanted)
    )
    assert f"Index Only Scan using {index}" in page
    outer = page.split("SubPlan")[0]
    assert "Sort" not in outer
    assert "Filter:" not in outer
    assert f"Index Only Scan using {index.rstrip() if wanted.status is None else index}" in count


async def test_an_outage_raises_storage_unavailable_until_it_ends(
    proxied: Callable[..., Any], postgres_proxy: Any, tenant: uuid.UUID
) -> None:
    from persistence.postgres.database import open_database

    async with open_database(proxied(database_deadline_seconds=0.5)) as database:
        store = SessionStore(database)
        await store.list(tenant)
        postgres_proxy.refuse()
        for _ in range(3):
            with pytest.raises(StorageUnavailable):
                await store.list(tenant)
        postgres_proxy.restore()
        await store.list(tenant)
        postgres_proxy.cut()
        await store.list(tenant)


async def test_a_hung_database_is_unavailable_after_the_deadline(
    proxied: Callable[..., Any], postgres_proxy: Any, tenant: uuid.UUID
) -> None:
    import asyncio

    from persistence.postgres.database import open_database

    async with open_database(proxied(database_deadline_seconds=0.5)) as database:
        store = SessionStore(database)
        await store.list(tenant)
        postgres_proxy.stall()
        began = asyncio.get_running_loop().time()
        with pytest.raises(StorageUnavailable):
            await store.list(tenant)
        assert asyncio.get_running_loop().time() - began < 2.5
        postgres_proxy.cut()
        postgres_proxy.restore()
        await store.list(tenant)


async def test_a_final_reads_back_with_its_language_probability(rows: SessionRows, tenant: uuid.UUID) -> None:
    start = a_start(tenant)
    await rows.insert([start])
    detected, requested = Utterance(0.0, 1.0, "one", 0.9, "en", 0.75), Utterance(1.0, 2.0, "two", 0.9, "en")
    await rows.write({}, [NumberedUtterance(start.id, index, each) for index, each in enumerate((detected, requested))])
    assert await rows.indexed_utterances(start.id) == {0: detected, 1: requested}
