"""This process's sign of life in Postgres, and whether it may write.

A process renews one row of its own. While that is fresh its sessions are its own. When it could not be renewed in time
the process writes nothing, for another may have taken its sessions; its streams go on into the spool. The next renewal
tells: the row is still there and all goes on, or somebody has removed it and has the sessions. Then the lease is lost
for good, and the process ends its streams and itself. A row that is gone while nobody has taken a session was lost by
Postgres, with the last transactions before a failover, and is written again.

Each renewal also reads the timeline of Postgres, which changes with every failover: what was confirmed on another one
may be gone.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge
from sqlalchemy import ARRAY, Uuid, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import StorageUnavailable
from persistence.errors import DatabaseUnavailable, LeaseLost
from persistence.postgres.database import Database
from persistence.postgres.lost_rows import note_restored
from telemetry.logs import get_logger

log = get_logger(__name__)

_RETRY_SECONDS: Final = 1.0

_lost = Counter("dalston_leases_lost_total", "Times this process was taken for dead and gave its sessions up")
_lapsed = Counter("dalston_leases_lapsed_total", "Times the lease ran out before it could be renewed, lost or not")
_is_held = Gauge("dalston_lease_held", "1 while this process may write to its sessions")

_failovers = Counter("dalston_database_failovers_total", "Times another timeline of Postgres has answered")

_TIMELINE: Final = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"

_REGISTER = text("""
    INSERT INTO workers (id, started_at, lease_expires_at)
    VALUES (:id, :started_at, now() + make_interval(secs => :seconds))
    ON CONFLICT (id) DO UPDATE SET started_at = excluded.started_at, lease_expires_at = excluded.lease_expires_at
""")
_RENEW = """
    WITH before AS (
        SELECT id, lease_expires_at < now() AS lapsed FROM workers
        WHERE id = :id AND started_at = :started_at FOR UPDATE
    )
    UPDATE workers AS w SET lease_expires_at = now() + make_interval(secs => :seconds)
    FROM before WHERE w.id = before.id RETURNING before.lapsed, {timeline} AS timeline
"""
# Another life of the same name keeps its row: it has the sessions.
_REGISTER_AGAIN = text("""
    INSERT INTO workers (id, started_at, lease_expires_at)
    VALUES (:id, :started_at, now() + make_interval(secs => :seconds))
    ON CONFLICT (id) DO NOTHING RETURNING id
""")
# Whoever takes a session writes its own name to it. One that runs here cannot be deleted unless somebody has taken and
# ended it; one that has ended here can.
_TAKEN = text("""
    SELECT EXISTS (SELECT FROM realtime_sessions WHERE id = ANY(:own) AND worker_id <> :id)
        OR EXISTS (SELECT FROM deleted_sessions WHERE id = ANY(:running))
""").bindparams(bindparam("own", type_=ARRAY(Uuid)), bindparam("running", type_=ARRAY(Uuid)))
_END = text("UPDATE workers SET lease_expires_at = now() WHERE id = :id AND started_at = :started_at")
_REMOVE = text("DELETE FROM workers WHERE id = :id AND started_at = :started_at")


def clock() -> float:
    """Seconds that also pass while the machine sleeps: the others' clocks go on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


async def timeline_of(connection: AsyncConnection) -> str:
    """The timeline of the Postgres that answers: eight hexadecimal digits, others after each failover."""
    return str((await connection.execute(text(f"SELECT {_TIMELINE}"))).scalar_one())


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
        self._renew = text(_RENEW.format(timeline="NULL"))
        self._is_unsure = False
        self._is_timeline_due = False
        self.timeline: str | None = None
        """Of the Postgres that answered the last renewal; None where it tells of none."""
        self.running: Callable[[], Sequence[UUID]] | None = None
        """The sessions that this process runs; without it a row that is gone is a lease that is lost."""
        self.ended: Callable[[], Sequence[UUID]] = tuple
        """Those that have ended here and are this process's to store."""
        self.doubted: Callable[[], None] = lambda: None
        """Called when Postgres may have lost what it had confirmed."""

    @property
    def is_established(self) -> bool:
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
            raise DatabaseUnavailable("the lease of this server has run out and cannot be renewed now")

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
        await self._learn_timeline()

    async def _learn_timeline(self) -> None:
        try:
            async with self._database.transaction() as connection:
                self.timeline = await timeline_of(connection)
        except StorageUnavailable:
            self._is_timeline_due = True
        except DBAPIError:
            # Some services that speak its language have none. Whether rows are as they were left tells as much, later.
            log.warning("the database reports no timeline: a failover shows only in the rows that it has lost")
            self._is_timeline_due = False
        else:
            self._renew = text(_RENEW.format(timeline=_TIMELINE))
            self._is_timeline_due = False

    async def renew(self) -> None:
        """Renews the lease, or finds that it is lost.

        Raises:
            StorageUnavailable: Postgres is away.
        """
        # Taken before the statement: Postgres counts from a later moment, so this deadline comes first.
        began = clock()
        async with self._database.transaction() as connection:
            renewed = (await connection.execute(self._renew, self._parameters)).one_or_none()
        if renewed is not None and self._is_unsure:
            if await self._is_taken():
                self._lose()
                return
            self._is_unsure = False
        if renewed is None:
            if not await self._register_again():
                self._lose()
                return
            self._held_since = began
            self.doubted()
        elif renewed.lapsed or began > self._deadline:
            _lapsed.inc()
            log.warning("the lease had run out and is renewed: nobody has taken the sessions")
            self._held_since = began
            self.doubted()
        elif renewed.timeline != self.timeline:
            # The others' leases are as old as what was lost: they have the time of a lease to renew them.
            self._held_since = began
        if renewed is not None and renewed.timeline != self.timeline:
            _failovers.inc()
            log.warning("another database answers, after a failover: what was written is compared with what it has")
            self.timeline = renewed.timeline
            self.doubted()
        self._deadline = began + self._seconds
        _is_held.set(1)
        if self._is_timeline_due:
            await self._learn_timeline()
            if self.timeline is not None:
                # A failover since the start would have gone unnoticed.
                self.doubted()

    async def _register_again(self) -> bool:
        """Writes a lease again whose row is gone, unless somebody has taken this process for dead; says whether."""
        if self.running is None:
            return False
        names = self._names_of_sessions()
        async with self._database.transaction() as connection:
            if (await connection.execute(_REGISTER_AGAIN, self._parameters)).one_or_none() is None:
                return False
            if (await connection.execute(_TAKEN, names)).scalar_one():
                await connection.execute(_REMOVE, self._parameters)
                return False
        # Whoever was about to take them has not seen this row.
        self._is_unsure = True
        note_restored("workers", self._parameters["id"])
        return True

    async def _is_taken(self) -> bool:
        async with self._database.transaction() as connection:
            return bool((await connection.execute(_TAKEN, self._names_of_sessions())).scalar_one())

    def _names_of_sessions(self) -> dict[str, object]:
        running = list(self.running()) if self.running is not None else []
        return {"id": self._parameters["id"], "running": running, "own": [*running, *self.ended()]}

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
            except Exception:
                # A database that answers with nonsense, such as a standby without our tables, may be replaced: without
                # this task the process would never write again, nor find out that it was taken for dead.
                if not is_failing:
                    log.exception("the lease cannot be renewed")
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
