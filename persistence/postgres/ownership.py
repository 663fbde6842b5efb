"""Whose session is whose: how sessions pass from processes that are gone to one that lives.

A session belongs to the process that its row names. It passes in two ways: a start that finds the spool of a dead
process takes what is in it, and a reaper takes what nobody came back for in time.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, select, text

from domain.session import EndReason
from persistence.postgres.database import Database
from persistence.postgres.lease import clock, timeline_of
from persistence.postgres.lost_rows import delete_old_tombstones, deleted_among
from persistence.postgres.stored_session import STORED_SESSION_COLUMNS, stored_session
from persistence.postgres.tables import UNFINISHED, realtime_sessions
from persistence.records import StoredSession

# What is in no spool is left to the reaper, at once. What is stored stays as it is: its spool may have more.
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
""").bindparams(bindparam("homes", type_=ARRAY(Text)), bindparam("spooled", type_=ARRAY(Uuid)))  # noqa: S608 - no input


# Only a process that is alive itself buries another. Whoever of the two locks the row first, the other sees it: a
# renewal that waits for this finds no row, and a row that is being renewed is skipped.
_DELETE_EXPIRED = text("""
    DELETE FROM workers WHERE id IN (
        SELECT id FROM workers
        WHERE lease_expires_at < now() AND id <> :worker_id
            AND EXISTS (SELECT FROM workers WHERE id = :worker_id AND lease_expires_at > now())
        FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")

_LAPSED = text("SELECT EXISTS (SELECT FROM workers WHERE lease_expires_at < now() AND id <> :worker_id)")

# Not what is this process's own: it lives.
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
""").bindparams(bindparam("owners", type_=ARRAY(Text)))  # noqa: S608 - no input

# A statement of its own: it sees what was committed before the locks were had, above all the row of a new owner.
_TAKE_LOST = text(f"""
    UPDATE realtime_sessions AS s SET
        worker_id = :worker_id,
        recover_after = now() + make_interval(secs => :grace_seconds),
        error = CASE WHEN status = 'active' THEN :error ELSE error END,
        ended_at = coalesce(ended_at, :ended_at),
        status = CASE WHEN status = 'active' THEN :status ELSE status END
    WHERE id = ANY(:ids) AND ({UNFINISHED}) AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id)
    RETURNING id
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))  # noqa: S608 - no input

# What this process has the spool of is not ended without it.
_DUE = text(f"""
    SELECT id FROM realtime_sessions
    WHERE worker_id = :worker_id AND recover_after <= now() AND ({UNFINISHED}) AND NOT (id = ANY(:spooled))
    ORDER BY recover_after LIMIT :limit
""").bindparams(bindparam("spooled", type_=ARRAY(Uuid)))  # noqa: S608 - no input

# Of those who come at once the first finds the owner that it saw. `recover_after` says on a stored session that its
# spool is being added to it, until the row tells of the result.
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

_DELETED = text(f"""
    SELECT id FROM realtime_sessions
    WHERE deleted_at < now() - make_interval(secs => :age_seconds) AND NOT ({UNFINISHED})
    ORDER BY deleted_at LIMIT :limit
""")  # noqa: S608 - no input


_t = realtime_sessions.c


@dataclass(frozen=True, slots=True)
class Reaped:
    """Processes that were found dead, and the sessions taken from them."""

    workers: tuple[str, ...]
    sessions: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class Rowless:
    """Sessions that have no row."""

    deleted: frozenset[UUID]
    unexplained: frozenset[UUID]
    """Nobody has deleted them, as far as is remembered."""


class Ownership:
    """Takes sessions over for one process. All methods raise StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database, worker_id: str, check: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._worker_id = worker_id
        self._check = check
        self._spooled: set[UUID] = set()
        self._recovering: set[UUID] = set()
        # Since when, by this process's clock, owners of unfinished sessions have been seen without a lease.
        self._without_lease: dict[str, float] = {}

    def is_recovering(self, session_id: UUID) -> bool:
        """Whether this process has begun to end a session without its spool, and has not put that off."""
        return session_id in self._recovering

    async def adopt(
        self, homes: Sequence[str], spooled: Sequence[UUID], end_reason: EndReason, ended_at: datetime
    ) -> frozenset[UUID]:
        """Takes over the unfinished sessions of processes that are known to be dead, in one statement.

        Active ones get `ending`. Those in `spooled` are for the caller to finish, also when a reaper has taken them but
        not begun to recover them; this process's reaper leaves them alone from here on. The rest is left to it.

        Args:
            homes: worker ids whose spool directory the caller has locked; its own may be among them.
            spooled: sessions whose spool the caller has.

        Returns:
            the sessions taken.
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
        """Takes the unfinished sessions of processes whose lease ran out, and of those that have none.

        From here on nothing that such a process writes has an effect. Active sessions get `ending` at once; their audio
        is recovered after the grace, for a restarted process may come back with a spool that has more.

        Args:
            lost_lease_wait_seconds: a process without a lease may have lost it to a failover of Postgres, and renews it
                within this time if it is alive.
            timeline: where this process has renewed its own lease; elsewhere, the others have not had the time to.
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
            owners = self._given_up(frozenset(without), frozenset(workers), lost_lease_wait_seconds)
            lost: list[UUID] = []
            if owners:
                lost = list((await connection.execute(_FIND_LOST, {"limit": limit, "owners": owners})).scalars())
            if not lost:
                return Reaped(tuple(workers), frozenset())
            taken = (await connection.execute(_TAKE_LOST, {**parameters, "ids": lost})).scalars()
            return Reaped(tuple(workers), frozenset(taken))

    def _given_up(self, without: frozenset[str], expired: frozenset[str], lost_lease_wait_seconds: float) -> list[str]:
        """Which of the processes without a lease are dead: those buried here, and those that have none for long."""
        now = clock()
        since = dict.fromkeys(expired, -math.inf) | self._without_lease
        self._without_lease = {owner: since.get(owner, now) for owner in without}
        return [owner for owner, at in self._without_lease.items() if now - at >= lost_lease_wait_seconds]

    async def has_lapsed(self) -> bool:
        """Whether another process's lease has run out or is gone; after an outage of Postgres neither is a sign of
        death."""
        async with self._database.transaction() as connection:
            names = {"worker_id": self._worker_id}
            if (await connection.execute(_LAPSED, names)).scalar_one():
                return True
            return (await connection.execute(_WITHOUT_LEASE, names)).first() is not None

    async def due(self, limit: int) -> list[UUID]:
        """Sessions taken by this process whose grace is over."""
        async with self._database.transaction() as connection:
            parameters = {"worker_id": self._worker_id, "limit": limit, "spooled": list(self._spooled)}
            return list((await connection.execute(_DUE, parameters)).scalars())

    async def begin_recovery(self, session_id: UUID) -> bool:
        """From here on no spool claims the session back; says whether none has."""
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
        """A session's recovery has ended, or was taken from this process."""
        self._recovering.discard(session_id)

    async def reclaim(self, session_id: UUID, owner: str) -> bool:
        """Takes a stored session to add its spool to it, from the owner that was seen; says whether it was still so.

        A session that is deleted, or not stored, is never taken.
        """
        self._check()
        parameters = {"worker_id": self._worker_id, "id": session_id, "owner": owner}
        async with self._database.transaction() as connection:
            return (await connection.execute(_RECLAIM, parameters)).one_or_none() is not None

    async def defer_recovery(self, session_id: UUID, seconds: float) -> None:
        """Leaves a session whose recovery failed for later."""
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

    async def half_deleted(self, age_seconds: float, limit: int) -> list[UUID]:
        """Sessions whose delete began so long ago and did not end, and that no process works on."""
        async with self._database.transaction() as connection:
            return list((await connection.execute(_DELETED, {"age_seconds": age_seconds, "limit": limit})).scalars())

    async def without_row(self, session_ids: Sequence[UUID]) -> Rowless:
        """Which of these sessions have no row, and why."""
        query = select(_t.id).where(_t.id.in_(list(session_ids)))
        async with self._database.transaction() as connection:
            rowless = frozenset(session_ids) - frozenset((await connection.execute(query)).scalars())
            deleted = await deleted_among(connection, rowless) if rowless else frozenset()
        return Rowless(deleted, rowless - deleted)

    async def delete_old_tombstones(self, limit: int) -> None:
        """Forgets deletes of long ago."""
        async with self._database.transaction() as connection:
            await delete_old_tombstones(connection, limit)
