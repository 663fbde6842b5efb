"""Whose session is whose: how sessions pass from processes that are gone to one that lives.

A session belongs to the process that its row names. It passes in two ways: a start that finds the spool of a dead
process takes what is in it, and a reaper takes what nobody came back for in time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, bindparam, select, text

from persistence.database import Database
from persistence.records import Ending, SessionStatus
from persistence.tables import UNFINISHED, realtime_sessions

# What is in no spool is left to the reaper, at once.
_ADOPT = text(f"""
    WITH gone AS (DELETE FROM workers WHERE id = ANY(:homes) AND id <> :worker_id)
    UPDATE realtime_sessions AS s SET
        worker_id = :worker_id,
        recover_after = CASE WHEN id = ANY(:spooled) THEN NULL ELSE now() END,
        error = CASE WHEN status = 'active' THEN :error ELSE error END,
        ended_at = coalesce(ended_at, :ended_at),
        status = CASE WHEN status = 'active' THEN :status ELSE status END
    WHERE (worker_id = ANY(:homes) AND ({UNFINISHED} OR id = ANY(:spooled)))
        OR (id = ANY(:spooled) AND ({UNFINISHED}) AND (
            recover_after IS NOT NULL
            OR NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id AND w.lease_expires_at > now())
        ))
    RETURNING id
""").bindparams(bindparam("homes", type_=ARRAY(Text)), bindparam("spooled", type_=ARRAY(Uuid)))  # noqa: S608 - no input


# Only a process that is alive itself buries another. Whoever of the two locks the row first, the other sees it: a
# renewal that waits for this finds no row, and a row that is being renewed is skipped.
_BURY = text("""
    DELETE FROM workers WHERE id IN (
        SELECT id FROM workers
        WHERE lease_expires_at < now() AND id <> :worker_id
            AND EXISTS (SELECT FROM workers WHERE id = :worker_id AND lease_expires_at > now())
        FOR UPDATE SKIP LOCKED
    ) RETURNING id
""")

_FIND_LOST = text(f"""
    SELECT id FROM realtime_sessions AS s
    WHERE ({UNFINISHED}) AND NOT EXISTS (SELECT FROM workers AS w WHERE w.id = s.worker_id)
    LIMIT :limit FOR UPDATE SKIP LOCKED
""")  # noqa: S608 - no input

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

_DUE = text(f"""
    SELECT id FROM realtime_sessions
    WHERE worker_id = :worker_id AND recover_after <= now() AND ({UNFINISHED})
    ORDER BY recover_after LIMIT :limit
""")  # noqa: S608 - no input

_BEGIN = text("""
    UPDATE realtime_sessions SET recover_after = NULL
    WHERE id = :id AND worker_id = :worker_id AND recover_after IS NOT NULL RETURNING id
""")

_DEFER = text("""
    UPDATE realtime_sessions SET recover_after = now() + make_interval(secs => :seconds)
    WHERE id = :id AND worker_id = :worker_id
""")

_DELETED = text(f"""
    SELECT id FROM realtime_sessions
    WHERE deleted_at < now() - make_interval(secs => :age_seconds) AND NOT ({UNFINISHED})
    ORDER BY deleted_at LIMIT :limit
""")  # noqa: S608 - no input


@dataclass(frozen=True, slots=True)
class Remains:
    """A session that its process left unfinished, as its row has it."""

    id: UUID
    status: SessionStatus
    language: str
    encoding: str
    sample_rate: int
    channels: int
    store_audio: bool
    store_transcript: bool
    audio_uri: str | None
    transcript_uri: str | None
    audio_duration_seconds: float
    has_tails: bool
    stored_bytes: int
    is_deleted: bool


_t = realtime_sessions.c
_REMAINS = [_t[name] for name in Remains.__slots__ if name != "is_deleted"]


@dataclass(frozen=True, slots=True)
class Reaped:
    """Processes that were found dead, and the sessions taken from them."""

    workers: tuple[str, ...]
    sessions: frozenset[UUID]


class Ownership:
    """Takes sessions over for one process. All methods raise StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database, worker_id: str, check: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._worker_id = worker_id
        self._check = check

    async def adopt(
        self, homes: Sequence[str], spooled: Sequence[UUID], ending: Ending, ended_at: datetime
    ) -> frozenset[UUID]:
        """Takes over the unfinished sessions of processes that are known to be dead, in one statement.

        Active ones get `ending`. Those in `spooled` are for the caller to finish, also when a reaper has taken them but
        not begun to recover them, or when they are stored and only their spool is still there. The rest is left to this
        process's reaper.

        Args:
            homes: worker ids whose spool directory the caller has locked; its own may be among them.
            spooled: sessions whose spool the caller has.

        Returns:
            the sessions taken.
        """
        self._check()
        parameters = {
            "worker_id": self._worker_id,
            "homes": list(homes),
            "spooled": list(spooled),
            "status": ending.status,
            "error": ending.error,
            "ended_at": ended_at,
        }
        async with self._database.transaction() as connection:
            return frozenset((await connection.execute(_ADOPT, parameters)).scalars())

    async def reap(self, grace_seconds: float, limit: int, ending: Ending, ended_at: datetime) -> Reaped:
        """Takes the unfinished sessions of processes whose lease ran out, and of those that have none.

        From here on nothing that such a process writes has an effect. Active sessions get `ending` at once; their audio
        is recovered after the grace, for a restarted process may come back with a spool that has more.
        """
        self._check()
        parameters = {
            "worker_id": self._worker_id,
            "grace_seconds": grace_seconds,
            "status": ending.status,
            "error": ending.error,
            "ended_at": ended_at,
        }
        async with self._database.transaction() as connection:
            workers = (await connection.execute(_BURY, {"worker_id": self._worker_id})).scalars().all()
            lost = list((await connection.execute(_FIND_LOST, {"limit": limit})).scalars())
            if not lost:
                return Reaped(tuple(workers), frozenset())
            taken = (await connection.execute(_TAKE_LOST, {**parameters, "ids": lost})).scalars()
            return Reaped(tuple(workers), frozenset(taken))

    async def due(self, limit: int) -> list[UUID]:
        """Sessions taken by this process whose grace is over."""
        async with self._database.transaction() as connection:
            return list((await connection.execute(_DUE, {"worker_id": self._worker_id, "limit": limit})).scalars())

    async def begin_recovery(self, session_id: UUID) -> bool:
        """From here on no spool claims the session back; says whether none has."""
        self._check()
        async with self._database.transaction() as connection:
            begun = await connection.execute(_BEGIN, {"worker_id": self._worker_id, "id": session_id})
            return begun.one_or_none() is not None

    async def defer_recovery(self, session_id: UUID, seconds: float) -> None:
        """Leaves a session whose recovery failed for later."""
        self._check()
        async with self._database.transaction() as connection:
            await connection.execute(_DEFER, {"worker_id": self._worker_id, "id": session_id, "seconds": seconds})

    async def remains(self, session_id: UUID) -> Remains | None:
        """A session of this process as its row has it, None if it is not there or not its own."""
        query = select(*_REMAINS, _t.deleted_at.is_not(None).label("is_deleted")).where(
            _t.id == session_id, _t.worker_id == self._worker_id
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return None if row is None else Remains(**{str(name): value for name, value in row.items()})

    async def half_deleted(self, age_seconds: float, limit: int) -> list[UUID]:
        """Sessions whose delete began so long ago and did not end, and that no process works on."""
        async with self._database.transaction() as connection:
            return list((await connection.execute(_DELETED, {"age_seconds": age_seconds, "limit": limit})).scalars())

    async def without_row(self, session_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Which of these sessions have no row."""
        query = select(_t.id).where(_t.id.in_(list(session_ids)))
        async with self._database.transaction() as connection:
            return frozenset(session_ids) - frozenset((await connection.execute(query)).scalars())
