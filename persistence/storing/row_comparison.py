"""Runs the comparisons that find rows lost by Postgres, in a task beside the writer's.

A comparison takes longer the more sessions there are to compare and to write again. The figures, the finals and the
begin of other sessions do not wait for it.
"""

import asyncio
import time
from typing import Final

from prometheus_client import Counter, Histogram

from domain.errors import StorageUnavailable
from persistence.errors import LeaseLost
from persistence.storing.restoration import Restoration
from persistence.storing.writer import SessionWriter
from telemetry.logs import get_logger

log = get_logger(__name__)

TICK_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 60.0
"""The deadline of one comparison. What it has written by then stays written, and the next one continues from there."""

_failures = Counter(
    "dalston_row_look_failures_total",
    "Comparisons of rows with what was written that failed; they are repeated",
    ["reason"],
)
for _reason in ("database", "deadline", "unexpected"):
    _failures.labels(_reason)
_seconds = Histogram(
    "dalston_row_look_seconds",
    "Comparisons of rows with what was written, whether they succeeded or failed",
    buckets=(0.01, 0.1, 0.5, 1, 5, 15, 60),
)


class RowComparison:
    """One for a process. The caller runs `run` in a task and cancels it."""

    def __init__(self, writer: SessionWriter, restoration: Restoration) -> None:
        self._writer = writer
        self._restoration = restoration
        self.failing_since: float | None = None
        """When comparisons began to fail, on the monotonic clock; None while they succeed."""

    async def run(self) -> None:
        """Compares at most once a second, while a comparison is due, until cancelled or until the lease is lost."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.look()
            except LeaseLost:
                return
            except Exception as error:
                self._note_failure(error)
            else:
                self._note_success()

    async def look(self) -> None:
        """Compares if that is due. It stays due unless it succeeds.

        Raises:
            StorageUnavailable: Postgres is unavailable.
            TimeoutError: it did not end before the deadline.
            LeaseLost: this process may not write.
        """
        if not self._restoration.is_due:
            return
        known = self._writer.known
        with _seconds.time():
            async with asyncio.timeout(LOOK_SECONDS):
                await self._restoration.look(known)
        self._writer.write_again(known)

    def _note_failure(self, error: Exception) -> None:
        reason = _reason_of(error)
        _failures.labels(reason).inc()
        # Only the first of consecutive failures is logged.
        if self.failing_since is None:
            log.error("rows cannot be compared with what was written", reason=reason, exc_info=error)
            self.failing_since = time.monotonic()

    def _note_success(self) -> None:
        if self.failing_since is not None:
            log.info("rows are compared again", failed_seconds=round(time.monotonic() - self.failing_since, 1))
            self.failing_since = None


def _reason_of(error: Exception) -> str:
    match error:
        case StorageUnavailable():
            return "database"
        case TimeoutError():
            return "deadline"
        case _:
            return "unexpected"
