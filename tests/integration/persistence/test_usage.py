"""Quotas of storage on a real Postgres."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY

from persistence.database import Database
from persistence.errors import StorageQuotaExceeded
from persistence.records import Conclusion, Ending, Progress, SessionStart, StoredObjects
from persistence.rows import SessionRows
from persistence.session_id import format_session_id
from persistence.sessions import SessionStore
from persistence.tenancy import Caller, TenantLimits
from persistence.tenants import TenantStore
from persistence.usage import REMEMBERED_SECONDS, StorageUsage
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
    rows._usage = StorageUsage(clock)
    return rows


def storing(tenant: uuid.UUID, rows: SessionRows, **more: Any) -> SessionStart:
    return a_start(tenant, worker_id=rows.worker_id, store_audio=True, store_transcript=False, **more)


async def store(rows: SessionRows, start: SessionStart, size: int) -> None:
    """Ends a session with so many bytes of audio."""
    await rows.conclude(start.id, Conclusion(Ending("completed"), datetime.now(UTC), Progress(audio_seconds=1.0)))
    await rows.set_stored(start.id, StoredObjects(audio_uri="s3://b/k"), stored_bytes=size)


def caller_of(tenant: uuid.UUID, limit: int | None = LIMIT) -> Caller:
    return Caller(tenant, TenantLimits(max_storage_bytes=limit))


async def test_a_tenant_that_stores_as_much_as_it_may_begins_no_session_that_stores_and_any_other(
    rows: SessionRows, tenant: uuid.UUID, clock: Clock
) -> None:
    first = storing(tenant, rows)
    await rows.admit(first, caller_of(tenant))
    await rows.write({first.id: Progress(audio_seconds=1.0, stored_bytes=LIMIT)})
    await rows.admit(storing(tenant, rows), caller_of(tenant))
    clock.now += REMEMBERED_SECONDS + 1
    for start in (storing(tenant, rows), replace(storing(tenant, rows), store_audio=False, store_transcript=True)):
        with pytest.raises(StorageQuotaExceeded):
            await rows.admit(start, caller_of(tenant))
    await rows.admit(replace(storing(tenant, rows), store_audio=False), caller_of(tenant))
    await rows.admit(storing(tenant, rows), caller_of(tenant, None))
    # The one that runs goes on.
    await rows.write({first.id: Progress(audio_seconds=2.0, stored_bytes=2 * LIMIT)})
    assert REGISTRY.get_sample_value("dalston_tenant_stored_bytes", {"tenant_id": str(tenant)}) == LIMIT


async def test_a_deletion_makes_room_within_seconds(
    rows: SessionRows, tenant: uuid.UUID, clock: Clock, database: Database
) -> None:
    first = storing(tenant, rows)
    await rows.admit(first, caller_of(tenant))
    await store(rows, first, LIMIT)
    clock.now += REMEMBERED_SECONDS + 1
    with pytest.raises(StorageQuotaExceeded):
        await rows.admit(storing(tenant, rows), caller_of(tenant))
    await SessionStore(database).bury(tenant, format_session_id(first.id))
    clock.now += 6
    await rows.admit(storing(tenant, rows), caller_of(tenant))


async def test_who_continues_a_session_may_go_a_tenth_beyond(
    rows: SessionRows, tenant: uuid.UUID, clock: Clock
) -> None:
    first = storing(tenant, rows)
    await rows.admit(first, caller_of(tenant))
    await store(rows, first, LIMIT)
    clock.now += REMEMBERED_SECONDS + 1
    second = replace(storing(tenant, rows), previous_session_id=first.id)
    await rows.admit(second, caller_of(tenant))
    await rows.write({second.id: Progress(audio_seconds=1.0, stored_bytes=LIMIT // 10)})
    clock.now += REMEMBERED_SECONDS + 1
    with pytest.raises(StorageQuotaExceeded):
        await rows.admit(replace(storing(tenant, rows), previous_session_id=second.id), caller_of(tenant))


async def test_what_others_store_does_not_count(rows: SessionRows, tenant: uuid.UUID, database: Database) -> None:
    other = await TenantStore(database).ensure(f"other {uuid.uuid4().hex}")
    start = storing(other.id, rows)
    await rows.admit(start, caller_of(other.id))
    await store(rows, start, LIMIT)
    await rows.admit(storing(tenant, rows), caller_of(tenant))
    stored = {each.id: each.stored_bytes for each in await TenantStore(database).list()}
    assert (stored[other.id], stored[tenant]) == (LIMIT, 0)


async def test_a_tenant_without_room_may_store_nothing(rows: SessionRows, tenant: uuid.UUID) -> None:
    with pytest.raises(StorageQuotaExceeded):
        await rows.admit(storing(tenant, rows), caller_of(tenant, 0))
