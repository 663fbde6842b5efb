"""The owners of sessions, and how sessions pass from dead processes to living ones.

A session belongs to the process that its row names. A starting process that finds the spool of a dead one adopts its
sessions; a reaper takes the sessions that no process has adopted in time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Text, Uuid, select, text

from domain.session import EndReason
from persistence.postgres.arrays import arrays
from persistence.postgres.database import Database
from persistence.postgres.lease import clock, timeline_of
from persistence.postgres.lost_rows import delete_old_tombstones, deleted_among
from persistence.postgres.stored_session import STORED_SESSION_COLUMNS, stored_session
from persistence.postgres.tables import UNFINISHED, realtime_sessions
from persistence.session_values import StoredSession

# Sessions that are in no spool are due for the reaper at once. Stored sessions stay as they are: their spool may hold
# more.
_ADOPT = text(f"""
    WITH gone AS (DELETE FROM workers WHERE id = ANY(:homes) AND id <> :worker_id)
    UPDATE realtime_sessions AS s SET
        worker_id = :worker_id,
        recover_after = CASE WHEN id = ANY(:spooled) THEN NULL ELSE now() END,
        error = CASE WHEN status = 'active' THEN :error ELSE error END,
        ended_at = coalesce(ended_at, :ended_at),
        status = CASE WHEN status = 'active' THEN :status ELSE status END
    WHERE ({UNFINISHED}) AND (
        worker_id = ANY(:homes)
        OR (id = ANY(:spooled) AND (
            recover_after IS NOT NULL
            OR NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id AND w.lease_expires_at > now())
        ))
    )
    RETURNING id
""").bindparams(*arrays(homes=Text, spooled=Uuid))  # noqa: S608 - no input


# Only a process with a valid lease deletes the expired lease of another. A renewal that waits for this statement finds
# no row; a row that is being renewed is skipped.
_DELETE_EXPIRED = text("""
    DELETE FROM workers WHERE id IN (
        SELECT id FROM workers
        WHERE lease_expires_at < now() AND id <> :worker_id
            AND EXISTS (SELECT FROM workers WHERE id = :worker_id AND lease_expires_at > now())
        FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")

_HAS_EXPIRED = text("SELECT EXISTS (SELECT FROM workers WHERE lease_expires_at < now() AND id <> :worker_id)")

# Sessions of this process are excluded: it is alive.
_WITHOUT_LEASE = text(f"""
    SELECT DISTINCT s.worker_id FROM realtime_sessions AS s
    WHERE ({UNFINISHED}) AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id)
        AND s.worker_id <> :worker_id
""")  # noqa: S608 - no input

_FIND_LOST = text(f"""
    SELECT id FROM realtime_sessions AS s
    WHERE ({UNFINISHED}) AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id)
        AND s.worker_id = ANY(:owners)
    LIMIT :limit FOR UPDATE SKIP LOCKED
""").bindparams(*arrays(owners=Text))  # noqa: S608 - no input

# A separate statement sees what was committed before the locks were acquired, above all the lease of a new owner.
_TAKE_LOST = text(f"""
    UPDATE realtime_sessions AS s SET
        worker_id = :worker_id,
        recover_after = now() + make_interval(secs => :grace_seconds),
        error = CASE WHEN status = 'active' THEN :error ELSE error END,
        ended_at = coalesce(ended_at, :ended_at),
        status = CASE WHEN status = 'active' THEN :status ELSE status END
    WHERE id = ANY(:ids) AND ({UNFINISHED}) AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id)
    RETURNING id
""").bindparams(*arrays(ids=Uuid))  # noqa: S608 - no input

# A session whose spool this process has is not ended without the spool.
_DUE = text(f"""
    SELECT id FROM realtime_sessions
    WHERE worker_id = :worker_id AND recover_after <= now() AND ({UNFINISHED}) AND NOT (id = ANY(:spooled))
    ORDER BY recover_after LIMIT :limit
""").bindparams(*arrays(spooled=Uuid))  # noqa: S608 - no input

# Of several processes that reclaim at the same time, only the first finds the owner that it saw. `recover_after` of a
# stored session means that its spool is being added to it, until the result is in the row.
_RECLAIM = text(f"""
    UPDATE realtime_sessions SET worker_id = :worker_id, recover_after = now()
    WHERE id = :id AND worker_id = :owner AND deleted_at IS NULL AND NOT ({UNFINISHED}) RETURNING id
""")  # noqa: S608 - no input

_BEGIN = text("""
    UPDATE realtime_sessions SET recover_after = NULL
    WHERE id = :id AND worker_id = :worker_id AND recover_after IS NOT NULL RETURNING id
""")

_DEFER = text(f"""
    UPDATE realtime_sessions SET recover_after = now() + make_interval(secs => :seconds)
    WHERE id = :id AND worker_id = :worker_id AND ({UNFINISHED})
""")  # noqa: S608 - no input

_UNFINISHED_DELETIONS = text(f"""
    SELECT id FROM realtime_sessions
    WHERE deleted_at < now() - make_interval(secs => :age_seconds) AND NOT ({UNFINISHED})
    ORDER BY deleted_at LIMIT :limit
""")  # noqa: S608 - no input

_EXPIRE = text(f"""
    UPDATE realtime_sessions SET deleted_at = now() WHERE id IN (
        SELECT s.id FROM realtime_sessions AS s
        WHERE s.expires_at < now() AND s.deleted_at IS NULL AND NOT ({UNFINISHED})
            AND NOT EXISTS (
                SELECT FROM transcription_jobs AS j WHERE j.session_id = s.id AND j.status IN ('queued', 'running')
            )
        ORDER BY s.expires_at LIMIT :limit FOR UPDATE OF s SKIP LOCKED
    )
""")  # noqa: S608 - no input

_t = realtime_sessions.c


@dataclass(frozen=True, slots=True)
class Reaped:
    """Processes that were considered dead, and the sessions taken from them."""

    workers: tuple[str, ...]
    sessions: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Rowless:
    """Sessions that have no row."""

    deleted: frozenset[UUID]
    unexplained: frozenset[UUID]
    """There is no tombstone for them."""


class Ownership:
    """Takes sessions over for one process. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database, worker_id: str, check: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._worker_id = worker_id
        self._check = check
        self._spooled: set[UUID] = set()
        self._recovering: set[UUID] = set()
        # When each owner of unfinished sessions was first seen without a lease, by this process's clock.
        self._without_lease: dict[str, float] = {}

    def is_recovering(self, session_id: UUID) -> bool:
        """Whether this process is ending a session without its spool."""
        return session_id in self._recovering

    async def adopt(
        self, homes: Sequence[str], spooled: Sequence[UUID], end_reason: EndReason, ended_at: datetime
    ) -> frozenset[UUID]:
        """Takes over the unfinished sessions of processes that are known to be dead, in one statement.

        Active sessions end with `end_reason`. The caller finishes those in `spooled`, also the ones that a reaper has
        taken but not begun to recover; this process's reaper skips them from now on. The others are left to the reaper.

        Args:
            homes: worker ids whose spool directory the caller has locked; its own may be among them.
            spooled: sessions whose spool the caller has.

        Returns:
            the sessions that were taken.
        """
        self._check()
        self._spooled.update(spooled)
        parameters = {
            "worker_id": self._worker_id,
            "homes": list(homes),
            "spooled": list(spooled),
            "status": end_reason.status,
            "error": end_reason.error,
            "ended_at": ended_at,
        }
        async with self._database.transaction() as connection:
            return frozenset((await connection.execute(_ADOPT, parameters)).scalars())

    async def reap(
        self,
        grace_seconds: float,
        limit: int,
        end_reason: EndReason,
        ended_at: datetime,
        *,
        lost_lease_wait_seconds: float = 0.0,
        timeline: str | None = None,
    ) -> Reaped:
        """Takes the unfinished sessions of processes whose lease has expired or is missing.

        Nothing that such a process writes has an effect afterwards. Active sessions end with `end_reason` at once;
        their audio is recovered after the grace period, because a restarted process may return with a fuller spool.

        Args:
            lost_lease_wait_seconds: a process without a lease may have lost it to a failover of Postgres, and renews it
                within this time if it is alive.
            timeline: the timeline of Postgres on which this process has renewed its own lease. On another one the other
                processes have not had time to renew theirs, and nothing is taken.
        """
        self._check()
        parameters = {
            "worker_id": self._worker_id,
            "grace_seconds": grace_seconds,
            "status": end_reason.status,
            "error": end_reason.error,
            "ended_at": ended_at,
        }
        async with self._database.transaction() as connection:
            if timeline is not None and timeline != await timeline_of(connection):
                return Reaped((), frozenset())
            workers = (await connection.execute(_DELETE_EXPIRED, {"worker_id": self._worker_id})).scalars().all()
            without = (await connection.execute(_WITHOUT_LEASE, {"worker_id": self._worker_id})).scalars()
            owners = self._dead_owners(frozenset(without), frozenset(workers), lost_lease_wait_seconds)
            lost: list[UUID] = []
            if owners:
                lost = list((await connection.execute(_FIND_LOST, {"limit": limit, "owners": owners})).scalars())
            if not lost:
                return Reaped(tuple(workers), frozenset())
            taken = (await connection.execute(_TAKE_LOST, {**parameters, "ids": lost})).scalars()
            return Reaped(tuple(workers), frozenset(taken))

    def _dead_owners(
        self, without: frozenset[str], expired: frozenset[str], lost_lease_wait_seconds: float
    ) -> list[str]:
        """The dead processes among those without a lease: with a lease that expired, or without any for long enough."""
        now = clock()
        since = dict.fromkeys(expired, -math.inf) | self._without_lease
        self._without_lease = {owner: since.get(owner, now) for owner in without}
        return [owner for owner, at in self._without_lease.items() if now - at >= lost_lease_wait_seconds]

    async def has_expired(self) -> bool:
        """Whether a lease of another process has expired or is missing. After an outage of Postgres neither means that
        the process is dead."""
        async with self._database.transaction() as connection:
            names = {"worker_id": self._worker_id}
            if (await connection.execute(_HAS_EXPIRED, names)).scalar_one():
                return True
            return (await connection.execute(_WITHOUT_LEASE, names)).first() is not None

    async def due(self, limit: int) -> list[UUID]:
        """Sessions taken by this process whose grace period is over."""
        async with self._database.transaction() as connection:
            parameters = {"worker_id": self._worker_id, "limit": limit, "spooled": list(self._spooled)}
            return list((await connection.execute(_DUE, parameters)).scalars())

    async def begin_recovery(self, session_id: UUID) -> bool:
        """Prevents the session from being reclaimed with its spool; returns False if it already was."""
        self._check()
        if session_id in self._spooled:
            return False
        self._recovering.add(session_id)
        async with self._database.transaction() as connection:
            begun = await connection.execute(_BEGIN, {"worker_id": self._worker_id, "id": session_id})
            has_begun = begun.one_or_none() is not None
        if not has_begun:
            self._recovering.discard(session_id)
        return has_begun

    def end_recovery(self, session_id: UUID) -> None:
        """Notes that the recovery of a session has ended, or was taken over by another process."""
        self._recovering.discard(session_id)

    async def reclaim(self, session_id: UUID, owner: str) -> bool:
        """Takes a stored session from `owner` to add its spool to it; returns whether `owner` still owned it.

        A session that is deleted, or not stored, is never taken.
        """
        self._check()
        parameters = {"worker_id": self._worker_id, "id": session_id, "owner": owner}
        async with self._database.transaction() as connection:
            return (await connection.execute(_RECLAIM, parameters)).one_or_none() is not None

    async def defer_recovery(self, session_id: UUID, seconds: float) -> None:
        """Postpones the recovery of a session, after it failed."""
        self._check()
        async with self._database.transaction() as connection:
            await connection.execute(_DEFER, {"worker_id": self._worker_id, "id": session_id, "seconds": seconds})
        self._recovering.discard(session_id)

    async def read_own(self, session_id: UUID) -> StoredSession | None:
        """The row of a session of this process; None if there is none, or another process owns the session."""
        session = await self.read(session_id)
        return session if session is not None and session.worker_id == self._worker_id else None

    async def read(self, session_id: UUID) -> StoredSession | None:
        """The row of a session, whichever process owns it; None if there is none."""
        query = select(*STORED_SESSION_COLUMNS).where(_t.id == session_id)
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else stored_session(row)

    async def expire(self, limit: int) -> int:
        """Soft-deletes sessions whose time is over and that have no job in progress; returns their number."""
        self._check()
        async with self._database.transaction() as connection:
            return (await connection.execute(_EXPIRE, {"limit": limit})).rowcount

    async def unfinished_deletions(self, age_seconds: float, limit: int) -> list[UUID]:
        """Sessions that were soft-deleted longer ago than this, whose row still exists and that no process works on."""
        async with self._database.transaction() as connection:
            return list(
                (
                    await connection.execute(_UNFINISHED_DELETIONS, {"age_seconds": age_seconds, "limit": limit})
                ).scalars()
            )

    async def without_row(self, session_ids: Sequence[UUID]) -> Rowless:
        """The sessions among these that have no row, and whether they were deleted."""
        query = select(_t.id).where(_t.id.in_(list(session_ids)))
        async with self._database.transaction() as connection:
            rowless = frozenset(session_ids) - frozenset((await connection.execute(query)).scalars())
            deleted = await deleted_among(connection, rowless) if rowless else frozenset()
        return Rowless(deleted, rowless - deleted)

    async def delete_old_tombstones(self, limit: int) -> None:
        """Deletes old tombstones."""
        async with self._database.transaction() as connection:
            await delete_old_tombstones(connection, limit)
