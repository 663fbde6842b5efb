"""What running recordings need once a second, all of them together: their files synced, their troubles reviewed."""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

from persistence.spool.session_spool import SessionSpool, sync_files
from persistence.storing.degradations import ROWS, Degradations
from telemetry.logs import get_logger

log = get_logger(__name__)

_sync_seconds = Histogram("dalston_spool_sync_seconds", "All spools of the process synced to disk once")
_sync_failures = Counter("dalston_spool_sync_failures_total", "Syncs of the spool that the disk refused")
_degraded = Gauge("dalston_sessions_degraded", "Running sessions that are not stored as they should be")

REVIEW_SECONDS: Final = 1.0


class Upkeep:
    """One for a process."""

    def __init__(self, fsync_seconds: float, rows_failing_since: Callable[[], float | None]) -> None:
        self._fsync_seconds = fsync_seconds
        self._rows_failing_since = rows_failing_since
        self._open: dict[UUID, tuple[SessionSpool, Degradations]] = {}

    def add(self, spool: SessionSpool, degradations: Degradations) -> None:
        """A recording begins."""
        self._open[spool.manifest.start.id] = (spool, degradations)

    def remove(self, spool: SessionSpool) -> None:
        """A recording ends: its files are not touched any more."""
        self._open.pop(spool.manifest.start.id, None)

    async def run(self) -> None:
        """Both tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sync_forever())
            group.create_task(self._review_forever())

    async def sync(self) -> None:
        """Waits until what was appended to all spools is on disk.

        Raises:
            OSError: the disk refuses.
        """
        descriptors: list[int] = []
        try:
            for spool, _ in self._open.values():
                descriptors += spool.take_unsynced()
        finally:
            if descriptors:
                with _sync_seconds.time():
                    # Shielded by the thread: the descriptors are closed whatever becomes of this task.
                    await asyncio.to_thread(sync_files, descriptors)

    def review(self) -> None:
        """Looks at the troubles of all sessions."""
        failing_since = self._rows_failing_since()
        for _, degradations in self._open.values():
            if failing_since is None:
                degradations.end(ROWS)
            else:
                degradations.begin(ROWS, failing_since)
            degradations.review()
        _degraded.set(sum(bool(degradations.lasting) for _, degradations in self._open.values()))

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._fsync_seconds)
            try:
                await self.sync()
            except OSError:
                # What was appended still survives the process, if not the power.
                _sync_failures.inc()
                log.exception("the spool cannot be synced")

    async def _review_forever(self) -> None:
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            self.review()
