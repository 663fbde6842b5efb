"""Quotas of storage on a real Postgres."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from domain.errors import StorageQuotaExceeded
from domain.session import EndReason
from domain.tenancy import Caller, TenantLimits
from persistence.postgres.database import Database
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.postgres.storage_usage import _SUM, CACHED_SECONDS, StorageUsage
from persistence.postgres.tenants import TenantStore
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects
from tests.integration.persistence.test_sessions import a_start

LIMIT = 1_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rows(database: Database, clock: Clock) -> SessionRows:
    rows = SessionRows(database, f"worker-{uuid.uuid4().hex}")
    rows.usage = StorageUsage(clock)
    return rows


def storing(tenant: uuid.UUID, rows: SessionRows, **more: Any) -> SessionStart:
    return a_start(tenant, worker_id=rows.worker_id, store_audio=True, store_transcript=False, **more)


async def store(rows: SessionRows, start: SessionStart, size: int) -> None:
    """Ends a session with `size` bytes of audio."""
    await rows.conclude(start.id, Conclusion(EndReason("completed"), datetime.now(UTC), Progress(audio_seconds=1.0)))
    await rows.set_stored(start.id, StoredObjects(audio_uri="s3://b/k"), stored_bytes=size)


def caller_of(tenant: uuid.UUID, limit: int | None = LIMIT) -> Caller:
    return Caller(tenant, TenantLimits(max_storage_bytes=limit))


async def test_with_its_quota_used_up_a_tenant_begins_only_unstored_sessions(
    rows: SessionRows, tenant: uuid.UUID, clock: Clock
) -> None:
    first = storing(tenant, rows)
    await rows.admit(first, caller_of(tenant))
    await rows.write({first.id: Progress(audio_seconds=1.0, stored_bytes=LIMIT)})
    await rows.admit(storing(tenant, rows), caller_of(tenant))
    clock.now += CACHED_SECONDS + 1
    for start in (storing(tenant, rows), replace(storing(tenant, rows), store_audio=False, store_transcript=True)):
        with pytest.raises(StorageQuotaExceeded):
            await rows.admit(start, caller_of(tenant))
    await rows.admit(replace(storing(tenant, rows), store_audio=False), caller_of(tenant))
    await rows.admit(storing(tenant, rows), caller_of(tenant, None))
    # The running session continues.
    await rows.write({first.id: Progress(audio_seconds=2.0, stored_bytes=2 * LIMIT)})
    assert REGISTRY.get_sample_value("dalston_tenant_stored_bytes", {"tenant_id": str(tenant)}) == LIMIT


async def test_a_deletion_frees_quota_within_seconds(
    rows: SessionRows, tenant: uuid.UUID, clock: Clock, database: Database
) -> None:
    first = storing(tenant, rows)
    await rows.admit(first, caller_of(tenant))
    await store(rows, first, LIMIT)
    clock.now += CACHED_SECONDS + 1
    with pytest.raises(StorageQuotaExceeded):
        await rows.admit(storing(tenant, rows), caller_of(tenant))
    await SessionStore(database).soft_delete(tenant, first.id)
    clock.now += 6
    await rows.admit(storing(tenant, rows), caller_of(tenant))


async def test_a_resumed_session_may_exceed_the_quota_by_a_tenth(
    rows: SessionRows, tenant: uuid.UUID, clock: Clock
) -> None:
    first = storing(tenant, rows)
    await rows.admit(first, caller_of(tenant))
    await store(rows, first, LIMIT)
    clock.now += CACHED_SECONDS + 1
    second = replace(storing(tenant, rows), previous_session_id=first.id)
    await rows.admit(second, caller_of(tenant))
    await rows.write({second.id: Progress(audio_seconds=1.0, stored_bytes=LIMIT // 10)})
    clock.now += CACHED_SECONDS + 1
    with pytest.raises(StorageQuotaExceeded):
        await rows.admit(replace(storing(tenant, rows), previous_session_id=second.id), caller_of(tenant))


async def test_storage_of_other_tenants_does_not_count(
    rows: SessionRows, tenant: uuid.UUID, database: Database
) -> None:
    other = await TenantStore(database).ensure(f"other {uuid.uuid4().hex}")
    start = storing(other.id, rows)
    await rows.admit(start, caller_of(other.id))
    await store(rows, start, LIMIT)
    await rows.admit(storing(tenant, rows), caller_of(tenant))
    stored = {each.id: each.stored_bytes for each in await TenantStore(database).list()}
    assert (stored[other.id], stored[tenant]) == (LIMIT, 0)


async def test_a_tenant_with_a_quota_of_zero_stores_nothing(rows: SessionRows, tenant: uuid.UUID) -> None:
    with pytest.raises(StorageQuotaExceeded):
        await rows.admit(storing(tenant, rows), caller_of(tenant, 0))


async def counted(database: Database, tenant: uuid.UUID) -> int:
    return {each.id: each.stored_bytes for each in await TenantStore(database).list()}[tenant] or 0


async def summed(database: Database, tenant: uuid.UUID) -> int:
    """The sum over the rows of sessions."""
    statement = "SELECT sum(stored_bytes)::bigint FROM realtime_sessions WHERE tenant_id = $1 AND deleted_at IS NULL"
    async with database.transaction() as connection:
        return (await connection.exec_driver_sql(statement, (tenant,))).scalar_one() or 0


async def test_the_maintained_sum_equals_the_sum_over_the_sessions(
    rows: SessionRows, tenant: uuid.UUID, database: Database
) -> None:
    first, second, third = (storing(tenant, rows) for _ in range(3))
    sessions = SessionStore(database)

    async def is_so(expected: int) -> None:
        assert (await counted(database, tenant), await summed(database, tenant)) == (expected, expected)

    await rows.insert([first, second, third])
    await rows.write({each.id: Progress(audio_seconds=1.0, stored_bytes=100) for each in (first, second, third)})
    await is_so(300)
    await store(rows, first, 150)
    await store(rows, second, 70)
    await is_so(320)
    # Additional audio from its spool.
    await rows.set_stored(first.id, StoredObjects(audio_uri="s3://b/k"), stored_bytes=200)
    await is_so(370)
    await sessions.soft_delete(tenant, first.id)
    await is_so(170)
    await rows.delete_row(first.id)
    await rows.end_refused("refused", datetime.now(UTC), [third.id])
    await is_so(170)
    # A row that is lost, or deleted manually, and restored.
    async with database.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM realtime_sessions WHERE id = $1", (second.id,))
    await is_so(100)
    await rows.restore([second])
    await store(rows, second, 70)
    await is_so(170)


async def test_the_storage_of_a_tenant_is_known_without_reading_its_sessions(
    tenant: uuid.UUID, database: Database, postgres_url: str
) -> None:
    """Counts the pages that Postgres reads for a tenant with 20,000 sessions."""
    many = """
        INSERT INTO realtime_sessions (id, tenant_id, worker_id, started_at, ended_at, status, language, model,
            encoding, sample_rate, channels, store_audio, store_transcript, enhance_on_end, stored_bytes)
        SELECT gen_random_uuid(), $1, 'w', now(), now(), 'completed', 'en', 'fast', 'pcm_s16le', 16000, 1, true, false,
            false, 10
        FROM generate_series(1, 20000)
    """
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(many, tenant)
    await connection.execute("ANALYZE realtime_sessions")  # as Postgres does by itself after a while
    await connection.close()
    async with database.transaction() as transaction:
        explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {_SUM.text}")
        plan = (await transaction.execute(explain, {"tenant_id": tenant})).scalar_one()[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
    assert await counted(database, tenant) == 200_000
