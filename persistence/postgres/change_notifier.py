"""Wakes the watches of a tenant when one of its sessions has changed, over one listening connection per process.

A notification carries no data: a watch that is woken reads the changes itself. A lost notification is only a delay.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
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
_NO_OTHERS: Final[Mapping[str, Callable[[str], None]]] = {}

_is_listening = Gauge(
    "dalston_changes_listening", "1 while this process receives notifications of changed sessions from Postgres"
)
_notifications = Counter(
    "dalston_changes_notified_total", "Notifications of changed sessions that this process received"
)


class ChangeNotifier:
    """One per process; `run` listens."""

    def __init__(self, database: Database, others: Mapping[str, Callable[[str], None]] = _NO_OTHERS) -> None:
        """`others`: further channels of the connection, and what receives their notifications."""
        self._database = database
        self._channels = {CHANNEL: self._on_notification, **others}
        self._watches: dict[UUID, set[asyncio.Event]] = {}

    @contextmanager
    def watching(self, tenant_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set when the tenant's sessions may have changed; the caller clears it."""
        event = asyncio.Event()
        self._watches.setdefault(tenant_id, set()).add(event)
        try:
            yield event
        finally:
            self._watches[tenant_id].discard(event)
            if not self._watches[tenant_id]:
                del self._watches[tenant_id]

    def watches(self, tenant_id: UUID) -> int:
        """The number of watches of a tenant."""
        return len(self._watches.get(tenant_id, ()))

    async def run(self) -> None:
        """Listens until cancelled, across outages of Postgres."""
        backoff = Backoff()
        while True:
            try:
                await self._listen(backoff)
            except StorageUnavailable:
                log.warning("notifications of changed sessions are not received: the database does not answer")
            finally:
                _is_listening.set(0)
            await asyncio.sleep(backoff.next())

    async def _listen(self, backoff: Backoff) -> None:
        lost = asyncio.Event()
        async with self._database.listening(self._channels, lost.set) as check:
            backoff.reset()
            _is_listening.set(1)
            # Notifications sent before the connection listened are lost.
            for tenant_id in self._watches:
                self._wake(tenant_id)
            while True:
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await lost.wait()
                    raise DatabaseUnavailable("the database has closed the connection")
                except TimeoutError:
                    await check()

    def _on_notification(self, payload: str) -> None:
        _notifications.inc()
        try:
            self._wake(UUID(payload))
        except ValueError:
            log.warning("a notification has an unknown payload")

    def _wake(self, tenant_id: UUID) -> None:
        for event in self._watches.get(tenant_id, ()):
            event.set()
