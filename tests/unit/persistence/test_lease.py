"""The task that renews the lease."""

import asyncio
from typing import Any

import pytest

from persistence import lease as lease_module
from persistence.lease import Lease


async def test_a_database_that_answers_with_nonsense_does_not_end_the_renewals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A standby that lacks a table, for example: that is a mistake in a statement, and no outage."""
    monkeypatch.setattr(lease_module, "_RETRY_SECONDS", 0.01)
    nothing: Any = None
    lease, renewed, tries = Lease(nothing, "worker", 15.0, 0.01), asyncio.Event(), []

    async def renew() -> None:
        tries.append(True)
        if len(tries) < 3:
            raise LookupError("no such table")
        renewed.set()

    monkeypatch.setattr(lease, "renew", renew)
    running = asyncio.create_task(lease.run())
    try:
        async with asyncio.timeout(10):
            await renewed.wait()
    finally:
        running.cancel()
