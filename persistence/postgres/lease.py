"""The lease with which this process proves that it is alive, and whether it may write.

A process renews one row of its own, and owns its sessions while the lease is valid. A process whose lease could not be
renewed in time writes nothing, because another may have taken its sessions; its streams continue into the spool. The
next renewal decides. If the row exists, writing continues. If another process has deleted it and taken the sessions,
the lease is lost for good: the process ends its streams and exits. If the row is missing and no session was taken,
Postgres has lost it in a failover, and it is written again.

Each renewal also reads the timeline of Postgres, which changes with every failover: what was committed on an earlier
timeline may be lost.
"""

import asyncio
import functools
import random
import socket
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

from prometheus_client import Counter, Gauge
from sqlalchemy import Uuid, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import StorageUnavailable
from persistence.errors import DatabaseUnavailable, LeaseLost
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.postgres.lost_rows import note_restored
from telemetry.logs import get_logger

log = get_logger(__name__)

_RETRY_SECONDS: Final = 1.0

_lost = Counter("dalston_leases_lost_total", "Times this process was considered dead and lost its sessions")
_lapsed = Counter(
    "dalston_leases_lapsed_total", "Times the lease expired before it could be renewed, whether or not it was lost"
)
_is_held = Gauge("dalston_lease_held", "1 while this process may write to its sessions")

_failovers = Counter("dalston_database_failovers_total", "Times Postgres answered on another timeline")

_TIMELINE: Final = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"

_REGISTER = text("""
    INSERT INTO workers (id, started_at, lease_expires_at, kind, host)
    VALUES (:id, :started_at, now() + make_interval(secs => :seconds), :kind, :host)
    ON CONFLICT (id) DO UPDATE SET started_at = excluded.started_at, lease_expires_at = excluded.lease_expires_at,
        kind = excluded.kind, host = excluded.host, is_behind = false
""")
_RENEW = """
    WITH before AS (
        SELECT id, lease_expires_at < now() AS lapsed FROM workers
        WHERE id = :id AND started_at = :started_at FOR UPDATE
    )
    UPDATE workers AS w SET lease_expires_at = now() + make_interval(secs => :seconds), is_behind = :is_behind
    FROM before WHERE w.id = before.id RETURNING before.lapsed, {timeline} AS timeline
"""
# Another process of the same worker id keeps its row: it owns the sessions.
_REGISTER_AGAIN = text("""
    INSERT INTO workers (id, started_at, lease_expires_at, kind, host)
    VALUES (:id, :started_at, now() + make_interval(secs => :seconds), :kind, :host)
    ON CONFLICT (id) DO NOTHING RETURNING id
""")
# A process that takes a session writes its worker id to it. A session that runs here can only be deleted after another
# process has taken and ended it; a session that has ended here can be deleted by its tenant.
_TAKEN = text("""
    SELECT EXISTS (SELECT FROM realtime_sessions WHERE id = ANY(:own) AND worker_id <> :id)
        OR EXISTS (SELECT FROM deleted_sessions WHERE id = ANY(:running))
""").bindparams(*arrays(own=Uuid, running=Uuid))
_END = text("UPDATE workers SET lease_expires_at = now() WHERE id = :id AND started_at = :started_at")
_DELETE = text("DELETE FROM workers WHERE id = :id AND started_at = :started_at")


def clock() -> float:
    """A clock in seconds that also advances while the machine sleeps, as the clocks of other machines do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@functools.cache
def machine() -> str:
    """Identifies the machine that this process runs on, also from inside of a container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


async def timeline_of(connection: AsyncConnection) -> str:
    """The current timeline of Postgres: eight hexadecimal digits that change with each failover."""
    return str((await connection.execute(text(f"SELECT {_TIMELINE}"))).scalar_one())


class Lease:
    """The lease of a process. `run` renews it; `lost` is set once it is lost for good."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        seconds: float,
        renewal_seconds: float,
        kind: Literal["server", "worker"] = "server",
    ) -> None:
        self._database = database
        self._parameters = {
            "id": worker_id,
            "started_at": datetime.now(UTC),
            "seconds": seconds,
            "kind": kind,
            "host": machine(),
        }
        self._seconds = seconds
        self._renewal_seconds = renewal_seconds
        self._deadline = 0.0
        self._held_since = 0.0
        self.lost = asyncio.Event()
        self._renew = text(_RENEW.format(timeline="NULL"))
        self._is_unconfirmed = False
        self._is_timeline_due = False
        self.timeline: str | None = None
        """The timeline of Postgres at the last renewal; None where Postgres reports none."""
        self.running: Callable[[], Sequence[UUID]] | None = None
        """Returns the sessions that this process runs; without it a missing row means a lost lease."""
        self.ended: Callable[[], Sequence[UUID]] = tuple
        """Returns the sessions that have ended here and that this process has to store."""
        self.doubted: Callable[[], None] = lambda: None
        """Called when Postgres may have lost committed rows."""
        self.is_behind: Callable[[], bool] = lambda: False
        """Returns whether live sessions need all of the machine; workers on it wait meanwhile."""

    @property
    def is_established(self) -> bool:
        """Whether this process has held its lease without a break for longer than the duration of a lease.

        Before that, an expired lease of another process may only mean that Postgres was unavailable to all of them.
        """
        return self.is_held and clock() - self._held_since > self._seconds

    @property
    def started_at(self) -> datetime:
        """When this process began its lease; distinguishes it from others of its worker id."""
        started_at: datetime = self._parameters["started_at"]  # type: ignore[assignment]  # of several types
        return started_at

    @property
    def expires_at(self) -> datetime | None:
        """When the lease ends unless it is renewed, or has ended; None if it was never begun, or is lost for good."""
        if self.lost.is_set() or not self._deadline:
            return None
        return datetime.now(UTC) + timedelta(seconds=self._deadline - clock())

    @property
    def is_held(self) -> bool:
        """Whether it is certain that no other process has taken this process's sessions."""
        return not self.lost.is_set() and clock() < self._deadline

    def check(self) -> None:
        """Must be called before every write.

        Raises:
            LeaseLost: the lease is lost for good.
            StorageUnavailable: the lease has expired, and may still be renewed.
        """
        if self.lost.is_set():
            raise LeaseLost
        if not self.is_held:
            raise DatabaseUnavailable("the lease of this process has expired and cannot be renewed now")

    async def register(self) -> None:
        """Begins the lease.

        Raises:
            StorageUnavailable: Postgres is unavailable.
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
            # Some Postgres-compatible services have none. A failover then shows later, in missing rows.
            log.warning("the database reports no timeline: a failover shows only in lost rows")
            self._is_timeline_due = False
        else:
            self._renew = text(_RENEW.format(timeline=_TIMELINE))
            self._is_timeline_due = False

    async def renew(self) -> None:
        """Renews the lease, or finds that it is lost.

        Raises:
            StorageUnavailable: Postgres is unavailable.
        """
        # Read before the statement: Postgres counts from a later moment, so this deadline is the earlier one.
        began = clock()
        async with self._database.transaction() as connection:
            parameters = self._parameters | {"is_behind": self.is_behind()}
            renewed = (await connection.execute(self._renew, parameters)).one_or_none()
        if renewed is not None and self._is_unconfirmed:
            if await self._is_taken():
                self._lose()
                return
            self._is_unconfirmed = False
        if renewed is None:
            if not await self._register_again():
                self._lose()
                return
            self._held_since = began
            self.doubted()
        elif renewed.lapsed or began > self._deadline:
            _lapsed.inc()
            log.warning("the lease had expired and is renewed: no session was taken")
            self._held_since = began
            self.doubted()
        elif renewed.timeline != self.timeline:
            # The other leases may be lost, too: their processes have the duration of a lease to renew them.
            self._held_since = began
        if renewed is not None and renewed.timeline != self.timeline:
            _failovers.inc()
            log.warning("the database has failed over: rows are compared with what was written")
            self.timeline = renewed.timeline
            self.doubted()
        self._deadline = began + self._seconds
        _is_held.set(1)
        if self._is_timeline_due:
            await self._learn_timeline()
            if self.timeline is not None:
                # A failover before the timeline was known would go unnoticed.
                self.doubted()

    async def _register_again(self) -> bool:
        """Writes a missing row of the lease again, unless this process was considered dead; returns whether it did."""
        if self.running is None:
            return False
        parameters = self._session_parameters()
        async with self._database.transaction() as connection:
            if (await connection.execute(_REGISTER_AGAIN, self._parameters)).one_or_none() is None:
                return False
            if (await connection.execute(_TAKEN, parameters)).scalar_one():
                await connection.execute(_DELETE, self._parameters)
                return False
        # A process that is about to take them has not seen this row.
        self._is_unconfirmed = True
        note_restored("workers", self._parameters["id"])
        return True

    async def _is_taken(self) -> bool:
        async with self._database.transaction() as connection:
            return bool((await connection.execute(_TAKEN, self._session_parameters())).scalar_one())

    def _session_parameters(self) -> dict[str, object]:
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
                # A database that answers with errors, such as a standby without our tables, may be replaced: without
                # this task the process would never write again, nor learn that it was considered dead.
                if not is_failing:
                    log.exception("the lease cannot be renewed")
                is_failing = True
            _is_held.set(self.is_held)

    async def end(self, *, has_left_work: bool) -> None:
        """Ends the lease, so that other processes take the remaining work at once.

        Raises:
            StorageUnavailable: Postgres is unavailable; the lease expires by itself.
        """
        self._deadline = 0.0
        _is_held.set(0)
        async with self._database.transaction() as connection:
            await connection.execute(_END if has_left_work else _DELETE, self._parameters)

    def _lose(self) -> None:
        self.lost.set()
        _lost.inc()
        _is_held.set(0)
        log.error("lease lost: this process was considered dead, and others have taken its work")
