"""Rows that Postgres has lost: distinguishing them from deleted ones, and inserting them again.

A failover to an asynchronous standby loses the last committed transactions of the primary. A running session cannot be
deleted, and a deletion leaves a tombstone in `deleted_sessions` that outlives the row, so a session with neither row
nor tombstone was lost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy import Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.session_id import created_at
from persistence.postgres import enhancements
from persistence.postgres.arrays import arrays
from persistence.postgres.tables import deleted_sessions, realtime_sessions
from persistence.session_values import SessionStart
from telemetry.logs import get_logger

log = get_logger(__name__)

TOMBSTONE_DAYS: Final = 400
"""How long tombstones are kept. The fate of an older session without a row is unknown, and its spool is kept."""

_SINCE: Final = UUID(int=0)
"""The row of this id states when the recording of tombstones began."""

_restored = Counter("dalston_rows_restored_total", "Rows that Postgres had lost and that were written again", ["table"])

_t = realtime_sessions.c

_FATE = text("""
    SELECT s.id IS NOT NULL AS has_row, coalesce(s.deleted_at IS NULL, false) AS exists, d.id IS NOT NULL AS is_deleted,
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
# The session that it continues may be lost, too, or another session may continue it now. The second statement sees what
# was committed before the first acquired its lock.
_LOCK_PREVIOUS = text("SELECT id FROM realtime_sessions WHERE id = :id AND deleted_at IS NULL FOR NO KEY UPDATE")
_IS_CONTINUED = text("""
    SELECT EXISTS (SELECT FROM realtime_sessions WHERE previous_session_id = :id AND deleted_at IS NULL)
""")
_ROW_STATES = text("""
    SELECT wanted.id, s.id IS NULL AS is_missing, coalesce(s.worker_id = :worker_id, false) AS is_own,
        s.deleted_at IS NULL AND (s.status = 'active' OR (s.store_audio AND s.audio_uri IS NULL)
            OR (s.store_transcript AND s.transcript_uri IS NULL)) IS TRUE AS is_unstored,
        coalesce(s.has_tails, false) AS has_tails,
        (SELECT count(*) FROM session_utterances AS u WHERE u.session_id = wanted.id) AS utterances
    FROM unnest(:ids) AS wanted(id) LEFT JOIN realtime_sessions AS s ON s.id = wanted.id
""").bindparams(*arrays(ids=Uuid))
_DELETE_OLD_TOMBSTONES = text("""
    DELETE FROM deleted_sessions WHERE id IN (
        SELECT id FROM deleted_sessions
        WHERE deleted_at < now() - make_interval(days => :days) AND id <> :since LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")


class Fate(Enum):
    """The fate of a session's row."""

    EXISTS = "the row exists"
    DELETED = "the tenant has deleted the session"
    LOST = "the row is missing, and the session was not deleted"
    UNKNOWN = "the row is missing, and the session is older than the oldest tombstone"


@dataclass(frozen=True, slots=True)
class RowState:
    """The state of a session in Postgres."""

    id: UUID
    is_missing: bool
    is_own: bool
    """Whether the asking process owns it."""
    is_unstored: bool
    """Whether it is active, or its row lacks the URI of an object."""
    has_tails: bool
    """Whether its tail objects still have to be deleted, by its row."""
    utterances: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The rows that were inserted again."""

    tenants: frozenset[UUID]
    sessions: frozenset[UUID]


async def fate(connection: AsyncConnection, session_id: UUID) -> Fate:
    """The fate of a session's row, whichever process owns it."""
    parameters = {
        "id": session_id,
        "since": _SINCE,
        "days": TOMBSTONE_DAYS,
        "created_at": created_at(session_id),
    }
    found = (await connection.execute(_FATE, parameters)).one()
    if found.has_row:
        return Fate.EXISTS if found.exists else Fate.DELETED
    if found.is_deleted:
        return Fate.DELETED
    return Fate.UNKNOWN if found.is_old else Fate.LOST


async def deleted_among(connection: AsyncConnection, session_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Which of these sessions have been deleted."""
    query = select(deleted_sessions.c.id).where(deleted_sessions.c.id.in_(list(session_ids)))
    return frozenset((await connection.execute(query)).scalars())


async def row_states(connection: AsyncConnection, worker_id: str, session_ids: Sequence[UUID]) -> list[RowState]:
    """The states of these sessions in Postgres."""
    found = await connection.execute(_ROW_STATES, {"ids": list(session_ids), "worker_id": worker_id})
    return [RowState(**row) for row in found.mappings()]


async def restore(connection: AsyncConnection, worker_id: str, starts: Sequence[SessionStart]) -> Restored:
    """Inserts lost rows again, as active sessions of this process; `starts` is in the order of their starts.

    Rows that exist or were deleted are skipped. A tenant that is lost, too, is made again with a generated name, which
    the operator corrects. The caller writes progress, finals and parts afterwards.
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
    """Counts and logs restored rows, once they are committed: the operator must know that the database loses rows.

    Args:
        owner: the session or the tenant of the rows.
    """
    _restored.labels(table).inc(count)
    log.error("the database had lost rows, which were written again", table=table, owner=str(owner), count=count)


async def delete_old_tombstones(connection: AsyncConnection, limit: int) -> None:
    """Deletes tombstones that are older than TOMBSTONE_DAYS."""
    await connection.execute(_DELETE_OLD_TOMBSTONES, {"days": TOMBSTONE_DAYS, "since": _SINCE, "limit": limit})


async def _restore_one(connection: AsyncConnection, worker_id: str, start: SessionStart) -> Sequence[UUID]:
    values = start.as_row() | {"worker_id": worker_id}
    if start.previous_session_id is not None and not await _may_continue(connection, start.previous_session_id):
        values |= {"previous_session_id": None, "resume_from_seconds": None}
    statement = insert(realtime_sessions).values(values).on_conflict_do_nothing(index_elements=["id"]).returning(_t.id)
    restored = list((await connection.execute(statement)).scalars())
    if restored and start.enhance_on_end:
        await enhancements.settle_predecessors(connection, start.id)
    return restored


async def _may_continue(connection: AsyncConnection, previous: UUID) -> bool:
    """Whether the session exists and no other continues it; this holds until the transaction ends."""
    if (await connection.execute(_LOCK_PREVIOUS, {"id": previous})).one_or_none() is None:
        return False
    return not (await connection.execute(_IS_CONTINUED, {"id": previous})).scalar_one()
