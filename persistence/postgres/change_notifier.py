"""Wakes those who watch a tenant's sessions when one has changed: one connection that listens, for the whole process.

A bell carries no news: whoever is woken looks for himself. So nothing is lost when it does not ring, it is only late.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge

from domain.errors import StorageUnavailable
from persistence.backoff import Backoff
from persistence.errors import DatabaseUnavailable
from persistence.postgres.database import Database
from telemetry.logs import get_logger

log = get_logger(__name__)

CHANNEL: Final = "dalston_sessions"
"""Where the triggers on the table of sessions notify the tenant."""
_CHECK_SECONDS: Final = 10.0

_is_listening = Gauge("dalston_changes_listening", "1 while Postgres can tell this process of changes of sessions")
_rings = Counter("dalston_changes_notified_total", "Notifications of changed sessions that came to this process")


class ChangeNotifier:
    """One for a process; `run` listens."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sleepers: dict[UUID, set[asyncio.Event]] = {}

    @contextmanager
    def rung(self, tenant_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set when the tenant's sessions have changed, or may have; whoever waits clears it."""
        event = asyncio.Event()
        self._sleepers.setdefault(tenant_id, set()).add(event)
        try:
            yield event
        finally:
            self._sleepers[tenant_id].discard(event)
            if not self._sleepers[tenant_id]:
                del self._sleepers[tenant_id]

    def sleepers(self, tenant_id: UUID) -> int:
        """How many wait for this tenant's."""
        return len(self._sleepers.get(tenant_id, ()))

    async def run(self) -> None:
        """Listens until cancelled, over all outages of Postgres."""
        backoff = Backoff()
        while True:
            try:
                await self._listen(backoff)
            except StorageUnavailable:
                log.warning("changes of sessions are not heard: the database does not answer")
            finally:
                _is_listening.set(0)
            await asyncio.sleep(backoff.next())

    async def _listen(self, backoff: Backoff) -> None:
        lost = asyncio.Event()
        async with self._database.listening(CHANNEL, self._heard, lost.set) as check:
            backoff.reset()
            _is_listening.set(1)
            # What was notified meanwhile was notified to nobody.
            for tenant_id in self._sleepers:
                self._wake(tenant_id)
            while True:
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await lost.wait()
                    raise DatabaseUnavailable("the database has closed the connection")
                except TimeoutError:
                    await check()

    def _heard(self, payload: str) -> None:
        _rings.inc()
        try:
            self._wake(UUID(payload))
        except ValueError:
            log.warning("a notification is none of ours")

    def _wake(self, tenant_id: UUID) -> None:
        for event in self._sleepers.get(tenant_id, ()):
            event.set()
