"""The task that renews the lease."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from domain.errors import StorageUnavailable
from persistence.postgres import lease as lease_module
from persistence.postgres.lease import Lease


async def test_errors_of_the_database_do_not_end_the_renewals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For example of a standby that lacks a table, which is not an outage."""
    monkeypatch.setattr(lease_module, "_RETRY_SECONDS", 0.01)
    nothing: Any = None
    lease, renewed, attempts = Lease(nothing, "worker", 15.0, 0.01), asyncio.Event(), []

    async def renew() -> None:
        attempts.append(True)
        if len(attempts) < 3:
            raise LookupError("no such table")
        renewed.set()

    monkeypatch.setattr(lease, "renew", renew)
    running = asyncio.create_task(lease.run())
    try:
        async with asyncio.timeout(10):
            await renewed.wait()
    finally:
        running.cancel()


async def test_a_timeline_missed_in_an_outage_is_read_at_the_next_renewal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Renewed:
        lapsed, timeline = False, None

    class Answer:
        rowcount = 1

        def one_or_none(self) -> Renewed:
            return Renewed()

    class Connection:
        async def execute(self, *_: Any) -> Answer:
            return Answer()

    class Database:
        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[Connection]:
            yield Connection()

    answers: list[str | Exception] = [StorageUnavailable("away"), "00000002"]

    async def timeline_of(_connection: Any) -> str:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    monkeypatch.setattr(lease_module, "timeline_of", timeline_of)
    database: Any = Database()
    lease, doubts = Lease(database, "worker", 15.0, 5.0), []
    lease.doubted = lambda: doubts.append(True)
    await lease.register()
    assert lease.timeline is None
    await lease.renew()
    assert lease.timeline == "00000002"
    assert doubts, "a failover in between would go unnoticed"
    await lease.renew()
    assert answers == []
