"""This process's sign of life in Postgres, and whether it may write.

A process renews one row of its own. While that is fresh its sessions are its own. When it could not be renewed in time
the process writes nothing, for another may have taken its sessions; its streams go on into the spool. The next renewal
tells: the row is still there and all goes on, or somebody has removed it and has the sessions. Then the lease is lost
for good, and the process ends its streams and itself.
"""

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Final

from prometheus_client import Counter, Gauge
from sqlalchemy import text

from persistence.database import Database
from persistence.errors import LeaseLost, StorageUnavailable
from telemetry.logs import get_logger

log = get_logger(__name__)

_RETRY_SECONDS: Final = 1.0

_lost = Counter("dalston_leases_lost_total", "Times this process was taken for dead and gave its sessions up")
_lapsed = Counter("dalston_leases_lapsed_total", "Times the lease ran out before it could be renewed, lost or not")
_is_held = Gauge("dalston_lease_held", "1 while this process may write to its sessions")

_REGISTER = text("""
    INSERT INTO workers (id, started_at, lease_expires_at)
    VALUES (:id, :started_at, now() + make_interval(secs => :seconds))
    ON CONFLICT (id) DO UPDATE SET started_at = excluded.started_at, lease_expires_at = excluded.lease_expires_at
""")
_RENEW = text("""
    WITH before AS (
        SELECT id, lease_expires_at < now() AS lapsed FROM workers
        WHERE id = :id AND started_at = :started_at FOR UPDATE
    )
    UPDATE workers AS w SET lease_expires_at = now() + make_interval(secs => :seconds)
    FROM before WHERE w.id = before.id RETURNING before.lapsed
""")
_END = text("UPDATE workers SET lease_expires_at = now() WHERE id = :id AND started_at = :started_at")
_REMOVE = text("DELETE FROM workers WHERE id = :id AND started_at = :started_at")


def clock() -> float:
    """Seconds that also pass while the machine sleeps: the others' clocks go on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Lease:
    """One process's lease. `run` keeps it; `lost` is set once it is lost for good."""

    def __init__(self, database: Database, worker_id: str, seconds: float, renewal_seconds: float) -> None:
        self._database = database
        self._parameters = {"id": worker_id, "started_at": datetime.now(UTC), "seconds": seconds}
        self._seconds = seconds
        self._renewal_seconds = renewal_seconds
        self._deadline = 0.0
        self._held_since = 0.0
        self.lost = asyncio.Event()

    @property
    def is_seasoned(self) -> bool:
        """Whether this process has held its lease without a break for longer than a lease lasts.

        Before that, a lease of another that ran out may mean no more than that Postgres was away for all of them.
        """
        return self.is_held and clock() - self._held_since > self._seconds

    @property
    def is_held(self) -> bool:
        """Whether it is known that nobody has taken this process's sessions."""
        return not self.lost.is_set() and clock() < self._deadline

    def check(self) -> None:
        """To be asked before every write.

        Raises:
            LeaseLost: it is over for this process.
            StorageUnavailable: the lease has run out; it may be renewed yet.
        """
        if self.lost.is_set():
            raise LeaseLost
        if not self.is_held:
            raise StorageUnavailable("the lease of this server has run out and cannot be renewed now")

    async def register(self) -> None:
        """Begins the lease.

        Raises:
            StorageUnavailable: Postgres is away.
        """
        began = clock()
        async with self._database.transaction() as connection:
            await connection.execute(_REGISTER, self._parameters)
        self._held_since = began
        self._deadline = began + self._seconds
        _is_held.set(1)

    async def renew(self) -> None:
        """Renews the lease, or finds that it is lost.

        Raises:
            StorageUnavailable: Postgres is away.
        """
        # Taken before the statement: Postgres counts from a later moment, so this deadline comes first.
        began = clock()
        async with self._database.transaction() as connection:
            lapsed = (await connection.execute(_RENEW, self._parameters)).scalar_one_or_none()
        if lapsed is None:
            self._lose()
            return
        if lapsed or began > self._deadline:
            _lapsed.inc()
            log.warning("the lease had run out and is renewed: nobody has taken the sessions")
            self._held_since = began
        self._deadline = began + self._seconds
        _is_held.set(1)

    async def run(self) -> None:
        """Renews until the lease is lost or the task is cancelled."""
        is_failing = False
        while not self.lost.is_set():
            pause = _RETRY_SECONDS if is_failing else self._renewal_seconds
            await asyncio.sleep(pause * random.uniform(0.9, 1.0))  # noqa: S311 - jitter, not a secret
            try:
                await self.renew()
                is_failing = False
            except StorageUnavailable:
                if not is_failing:
                    log.warning("the lease cannot be renewed: the database does not answer")
                is_failing = True
            _is_held.set(self.is_held)

    async def end(self, *, has_left_work: bool) -> None:
        """Gives the lease back. What work is left is for others at once.

        Raises:
            StorageUnavailable: Postgres is away; the lease runs out by itself.
        """
        self._deadline = 0.0
        _is_held.set(0)
        async with self._database.transaction() as connection:
            await connection.execute(_END if has_left_work else _REMOVE, self._parameters)

    def _lose(self) -> None:
        self.lost.set()
        _lost.inc()
        _is_held.set(0)
        log.error("lease lost: this server was taken for dead and gives its sessions up")
