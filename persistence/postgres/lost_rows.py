"""Rows that Postgres has lost: how a lost row is told from a deleted one, and how it is inserted again.

A failover to an asynchronous standby loses the last transactions of the primary, whoever was told that they are
committed. A running session cannot be deleted, and a delete leaves an entry in `deleted_sessions` that outlives the
row, so a session with neither row nor entry was lost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import ARRAY, Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.session_id import created_at
from persistence.postgres.tables import deleted_sessions, realtime_sessions
from persistence.records import SessionStart
from telemetry.logs import get_logger

log = get_logger(__name__)

DELETES_KEPT_DAYS: Final = 400
"""How long a delete is remembered. Whoever comes with a spool that is older finds nothing out and removes nothing."""

_SINCE: Final = UUID(int=0)
"""Under this id stands since when deletes have been noted."""

_restored = Counter("dalston_rows_restored_total", "Rows that Postgres had lost and that are written again", ["table"])

_t = realtime_sessions.c

_FATE = text("""
    SELECT s.id IS NOT NULL AS has_row, coalesce(s.deleted_at IS NULL, false) AS lives, d.id IS NOT NULL AS is_deleted,
        CAST(:created_at AS timestamptz) < greatest(
            (SELECT deleted_at FROM deleted_sessions WHERE id = :since), now() - make_interval(days => :days)
        ) AS is_old
    FROM (SELECT CAST(:id AS uuid) AS id) AS wanted
    LEFT JOIN realtime_sessions AS s ON s.id = wanted.id LEFT JOIN deleted_sessions AS d ON d.id = wanted.id
""")
_RESTORE_TENANT = text("""
    INSERT INTO tenants (id, name)
    SELECT :id, CAST(:name AS text) WHERE NOT EXISTS (SELECT FROM tenants WHERE id = :id)
    ON CONFLICT DO NOTHING RETURNING id
""").bindparams(bindparam("id", type_=Uuid))
# The session that it continues may be lost, too, or may have been continued by another since. The second statement sees
# what was committed before the lock of the first was had.
_LOCK_PREVIOUS = text("SELECT id FROM realtime_sessions WHERE id = :id AND deleted_at IS NULL FOR NO KEY UPDATE")
_IS_CONTINUED = text("""
    SELECT EXISTS (SELECT FROM realtime_sessions WHERE previous_session_id = :id AND deleted_at IS NULL)
""")
_LOOK = text("""
    SELECT wanted.id, s.id IS NULL AS is_missing, coalesce(s.worker_id = :worker_id, false) AS is_own,
        s.deleted_at IS NULL AND (s.status = 'active' OR (s.store_audio AND s.audio_uri IS NULL)
            OR (s.store_transcript AND s.transcript_uri IS NULL)) IS TRUE AS is_unstored,
        coalesce(s.has_tails, false) AS has_tails,
        (SELECT count(*) FROM session_utterances AS u WHERE u.session_id = wanted.id) AS utterances
    FROM unnest(:ids) AS wanted(id) LEFT JOIN realtime_sessions AS s ON s.id = wanted.id
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))
_FORGET = text("""
    DELETE FROM deleted_sessions WHERE id IN (
        SELECT id FROM deleted_sessions
        WHERE deleted_at < now() - make_interval(days => :days) AND id <> :since LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")


class Fate(Enum):
    """What became of a session's row."""

    LIVES = "it is there"
    DELETED = "its tenant has deleted the session"
    LOST = "it is gone, and nobody has deleted the session"
    UNKNOWN = "it is gone, and the session is older than what is remembered of deletes"


@dataclass(frozen=True, slots=True)
class RowState:
    """What Postgres has of a session."""

    id: UUID
    is_missing: bool
    is_own: bool
    """Whether the row is of the process that asks."""
    is_unstored: bool
    """Whether it runs, or its objects are not in its row."""
    has_tails: bool
    """Whether its tail objects are still to be removed, by its row."""
    utterances: int


@dataclass(frozen=True, slots=True)
class Restored:
    """What was inserted again."""

    tenants: frozenset[UUID]
    sessions: frozenset[UUID]


async def fate(connection: AsyncConnection, session_id: UUID) -> Fate:
    """What became of a session's row, whoever owns it."""
    names = {
        "id": session_id,
        "since": _SINCE,
        "days": DELETES_KEPT_DAYS,
        "created_at": created_at(session_id),
    }
    found = (await connection.execute(_FATE, names)).one()
    if found.has_row:
        return Fate.LIVES if found.lives else Fate.DELETED
    if found.is_deleted:
        return Fate.DELETED
    return Fate.UNKNOWN if found.is_old else Fate.LOST


async def deleted_among(connection: AsyncConnection, session_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Which of these sessions have been deleted."""
    query = select(deleted_sessions.c.id).where(deleted_sessions.c.id.in_(list(session_ids)))
    return frozenset((await connection.execute(query)).scalars())


async def row_states(connection: AsyncConnection, worker_id: str, session_ids: Sequence[UUID]) -> list[RowState]:
    """What there is of these sessions."""
    found = await connection.execute(_LOOK, {"ids": list(session_ids), "worker_id": worker_id})
    return [RowState(**row) for row in found.mappings()]


async def restore(connection: AsyncConnection, worker_id: str, starts: Sequence[SessionStart]) -> Restored:
    """Inserts rows again that were lost, as active sessions of this process; they come in the order of their starts.

    Nothing happens for one that is there or was deleted. Its tenant is made again if that is lost, too: the operator
    gives it its name back. Figures, finals and parts are to follow.
    """
    deleted = await deleted_among(connection, (start.id for start in starts))
    tenants: set[UUID] = set()
    sessions: set[UUID] = set()
    for start in starts:
        if start.id in deleted:
            continue
        tenant = {"id": start.tenant_id, "name": f"restored-{start.tenant_id}"}
        tenants.update((await connection.execute(_RESTORE_TENANT, tenant)).scalars())
        sessions.update(await _restore_one(connection, worker_id, start))
    return Restored(frozenset(tenants), frozenset(sessions))


def note_restored(table: str, owner: object, count: int = 1) -> None:
    """Counts and logs rows that were restored, once they are committed: the database loses what it says it has, and a
    person is to know.

    Args:
        owner: the session or the tenant that they are of.
    """
    _restored.labels(table).inc(count)
    log.error("the database had lost rows: they are written again", table=table, owner=str(owner), count=count)


async def delete_old_tombstones(connection: AsyncConnection, limit: int) -> None:
    """Forgets deletes that are older than what is promised to be remembered."""
    await connection.execute(_FORGET, {"days": DELETES_KEPT_DAYS, "since": _SINCE, "limit": limit})


async def _restore_one(connection: AsyncConnection, worker_id: str, start: SessionStart) -> Sequence[UUID]:
    values = asdict(start) | {"worker_id": worker_id}
    if start.previous_session_id is not None and not await _may_continue(connection, start.previous_session_id):
        values |= {"previous_session_id": None, "resume_from_seconds": None}
    statement = insert(realtime_sessions).values(values).on_conflict_do_nothing(index_elements=["id"]).returning(_t.id)
    return list((await connection.execute(statement)).scalars())


async def _may_continue(connection: AsyncConnection, previous: UUID) -> bool:
    """Whether the session is there and no other continues it; none does until the transaction ends."""
    if (await connection.execute(_LOCK_PREVIOUS, {"id": previous})).one_or_none() is None:
        return False
    return not (await connection.execute(_IS_CONTINUED, {"id": previous})).scalar_one()
