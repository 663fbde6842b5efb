"""Wakes a worker when a job may be due, over one listening connection. A lost notification is only a delay."""

import asyncio
from typing import Final

from domain.errors import StorageUnavailable
from persistence.backoff import Backoff
from persistence.errors import DatabaseUnavailable
from persistence.postgres.database import Database
from telemetry.logs import get_logger

log = get_logger(__name__)

CHANNEL: Final = "dalston_jobs"
"""Where a trigger notifies of jobs that are queued."""
_CHECK_SECONDS: Final = 10.0


class JobNotifier:
    """One per worker; `run` listens. `due` is set when a job may be due; the worker clears it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.due = asyncio.Event()

    async def run(self) -> None:
        """Listens until cancelled, across outages of Postgres."""
        backoff = Backoff()
        while True:
            try:
                await self._listen(backoff)
            except StorageUnavailable:
                log.warning("notifications of jobs are not received: the database does not answer")
            await asyncio.sleep(backoff.next())

    async def _listen(self, backoff: Backoff) -> None:
        lost = asyncio.Event()
        async with self._database.listening({CHANNEL: lambda _: self.due.set()}, lost.set) as check:
            backoff.reset()
            # Notifications sent before the connection listened are lost.
            self.due.set()
            while True:
                try:
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await lost.wait()
                    raise DatabaseUnavailable("the database has closed the connection")
                except TimeoutError:
                    await check()
