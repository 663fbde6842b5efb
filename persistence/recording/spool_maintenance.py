"""Once a second, for the spools of all running sessions: sync their files and review their degradations."""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

from persistence.spool.session_spool import SessionSpool, sync_files
from persistence.storing.degradations import ROWS, Degradations
from telemetry.logs import get_logger

log = get_logger(__name__)

_sync_seconds = Histogram("dalston_spool_sync_seconds", "Duration of syncing all spools of the process once")
_sync_failures = Counter("dalston_spool_sync_failures_total", "Syncs of the spool that failed")
_degraded = Gauge("dalston_sessions_degraded", "Running sessions that are not stored as they should be")

REVIEW_SECONDS: Final = 1.0


class SpoolMaintenance:
    """Maintains the spools of one process."""

    def __init__(self, fsync_seconds: float, rows_failing_since: Callable[[], float | None]) -> None:
        """
        Args:
            fsync_seconds: the pause between two syncs.
            rows_failing_since: returns since when rows cannot be written, in monotonic time; None while they can.
        """
        self._fsync_seconds = fsync_seconds
        self._rows_failing_since = rows_failing_since
        self._open: dict[UUID, tuple[SessionSpool, Degradations]] = {}

    @property
    def degraded(self) -> int:
        """Running sessions that were not stored as they should be at the latest review."""
        return sum(bool(degradations.lasting) for _, degradations in self._open.values())

    @property
    def degraded_since(self) -> dict[str, float]:
        """The degradations of running sessions by name, and when the earliest of each began, in monotonic time."""
        since: dict[str, float] = {}
        for _, degradations in self._open.values():
            for name, began in degradations.lasting_since.items():
                since[name] = min(began, since.get(name, began))
        return since

    def add(self, spool: SessionSpool, degradations: Degradations) -> None:
        """Begins to maintain the spool of a session."""
        self._open[spool.manifest.start.id] = (spool, degradations)

    def remove(self, spool: SessionSpool) -> None:
        """Stops touching the files of a spool."""
        self._open.pop(spool.manifest.start.id, None)

    async def run(self) -> None:
        """Syncs and reviews until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sync_periodically())
            group.create_task(self._review_periodically())

    async def sync(self) -> None:
        """Waits until everything that was appended to any spool is on disk.

        Raises:
            OSError: the disk fails.
        """
        descriptors: list[int] = []
        try:
            for spool, _ in self._open.values():
                descriptors += spool.take_unsynced()
        finally:
            if descriptors:
                with _sync_seconds.time():
                    # The thread closes the descriptors even if this task is cancelled.
                    await asyncio.to_thread(sync_files, descriptors)

    def review(self) -> None:
        """Updates the degradations of all sessions."""
        failing_since = self._rows_failing_since()
        for _, degradations in self._open.values():
            if failing_since is None:
                degradations.end(ROWS)
            else:
                degradations.begin(ROWS, failing_since)
            degradations.review()
        _degraded.set(self.degraded)

    async def _sync_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._fsync_seconds)
            try:
                await self.sync()
            except OSError:
                # What was appended survives the process, but not a loss of power.
                _sync_failures.inc()
                log.exception("the spool cannot be synced")

    async def _review_periodically(self) -> None:
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            self.review()
