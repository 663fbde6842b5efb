"""The changes of a tenant's sessions since a position."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, and_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import InvalidFilter, StorageUnavailable
from domain.session import STATUSES, SessionFilter, SessionRecord
from persistence.errors import DatabaseUnavailable
from persistence.postgres.cursor import Cursor
from persistence.postgres.database import Database
from persistence.postgres.position import Position
from persistence.postgres.sessions import BY_INDEX, place_of, record_columns, record_of, snapshot_query
from persistence.postgres.tables import realtime_sessions, session_changes
from telemetry.logs import get_logger

log = get_logger(__name__)

TOKEN_SECONDS: Final = 3600.0
"""How long a position can be resumed from after it was issued."""
_KEPT_SECONDS: Final = 2 * TOKEN_SECONDS
"""Longer than TOKEN_SECONDS by the duration of transactions and the differences of clocks."""
_CLEANUP_SECONDS: Final = 600.0
_DELETED_AT_ONCE: Final = 5_000
_PAGE: Final = 200
_MOST_READS: Final = 2
"""At a time in this process, so that watches do not exhaust the connection pool."""

_WAIT_SECONDS: Final = 5.0
"""The longest wait for one of these reads."""

_c = session_changes.c
_t = realtime_sessions.c
_NOW = text("SELECT pg_current_snapshot()::text, extract(epoch FROM clock_timestamp())::float8")
# Two servers that delete at the same time skip each other's rows.
_DELETE_EXPIRED = text("""
    DELETE FROM session_changes WHERE session_id IN (
        SELECT session_id FROM session_changes WHERE changed_at < now() - make_interval(secs => :seconds)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class Change:
    """A changed session in its current state."""

    session_id: UUID
    record: SessionRecord | None
    """None: it is deleted, or no longer has the watched status."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some of the newest sessions, newest first."""

    sessions: tuple[SessionRecord, ...]
    position: Position
    """The position from which changes after this page are found."""
    next: Cursor | None
    """Where the next page begins; None after the last."""


@dataclass(frozen=True, slots=True)
class ChangePage:
    """A page of changes, each session once."""

    changes: tuple[Change, ...]
    position: Position
    """The position from which changes after this page are found."""
    next: tuple[int, UUID] | None
    """Where the next page begins; None after the last."""


class ChangeStore:
    """Reads changes, of one tenant at a time. All methods raise StorageUnavailable while Postgres is
    unavailable.

    A change is seen once its transaction has committed, whatever the order of commits. A session that changed several
    times between two reads is returned once, in its state at the second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads = asyncio.Semaphore(_MOST_READS)

    async def resume(self, tenant_id: UUID, status: str | None, token: str) -> Position | None:
        """The position that a token encodes; None if it is too old, or of another service, tenant or status.

        Raises:
            InvalidFilter: there is no such status.
        """
        if status is not None and status not in STATUSES:
            raise InvalidFilter("status", f"status must be one of {', '.join(STATUSES)}")
        position = Position.decode(token, tenant_id, status) if token else None
        if position is None:
            return None
        async with self._reading() as connection:
            now = await _now(connection)
        # A restored database may reuse transaction ids.
        is_of_the_past = position.xmax <= now.xmax and position.at <= now.at + 1
        return position if is_of_the_past and now.at - position.at <= TOKEN_SECONDS else None

    async def snapshot(self, tenant_id: UUID, status: str | None, after: Cursor | None = None) -> Snapshot:
        """One page of the current sessions. The position of the first page is that of all."""
        query = snapshot_query(tenant_id, SessionFilter(status=status), _PAGE, after)
        async with self._reading() as connection:
            position = await _now(connection)
            await connection.execute(BY_INDEX)
            rows = (await connection.execute(query)).mappings().all()
        sessions = tuple(record_of(row) for row in rows)
        return Snapshot(sessions, position, place_of(sessions[-1]) if len(sessions) == _PAGE else None)

    async def page(
        self, tenant_id: UUID, status: str | None, since: Position, after: tuple[int, UUID] | None = None
    ) -> ChangePage:
        """One page of the changes that the position has not seen. The position of the first page is that of all."""
        async with self._reading() as connection:
            # Read first: a change that commits between the two statements is reported twice rather than never.
            position = await _now(connection)
            query = _changed(tenant_id, since, after)
            rows = [dict(row) for row in (await connection.execute(query)).mappings()]
        last = rows[-1] if len(rows) == _PAGE else None
        following = None if last is None else (int(last["xid"]), UUID(str(last["changed_id"])))
        changes = (_change(row, status, since) for row in rows)
        return ChangePage(tuple(change for change in changes if change is not None), position, following)

    async def delete_expired(self) -> None:
        """Deletes changes that are older than any valid token."""
        deleted = _DELETED_AT_ONCE
        while deleted == _DELETED_AT_ONCE:
            async with self._database.transaction() as connection:
                deleted = (
                    await connection.execute(_DELETE_EXPIRED, {"seconds": _KEPT_SECONDS, "limit": _DELETED_AT_ONCE})
                ).rowcount

    async def run(self) -> None:
        """Deletes expired changes periodically until cancelled."""
        while True:
            await asyncio.sleep(_CLEANUP_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            try:
                await self.delete_expired()
            except StorageUnavailable:
                log.warning("expired changes of sessions are not deleted: the database does not answer")

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._reads.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("too many readers wait for the database") from None
        try:
            async with self._database.transaction() as connection:
                yield connection
        finally:
            self._reads.release()


async def _now(connection: AsyncConnection) -> Position:
    snapshot, at = (await connection.execute(_NOW)).one()
    return Position.of(snapshot, at)


def _changed(tenant_id: UUID, since: Position, after: tuple[int, UUID] | None) -> Select[*tuple[Any, ...]]:
    unseen = text("NOT pg_visible_in_snapshot(session_changes.xid::text::xid8, CAST(:seen AS text)::pg_snapshot)")
    visible = and_(_t.id == _c.session_id, _t.tenant_id == _c.tenant_id, _t.deleted_at.is_(None))
    query = (
        select(_c.session_id.label("changed_id"), _c.xid, _c.moved_xid, *record_columns)
        .select_from(session_changes.outerjoin(realtime_sessions, visible))
        .where(_c.tenant_id == tenant_id, _c.xid >= since.xmin, unseen.bindparams(seen=since.snapshot))
    )
    if after is not None:
        query = query.where(tuple_(_c.xid, _c.session_id) > tuple_(*after))
    return query.order_by(_c.xid, _c.session_id).limit(_PAGE)


def _change(row: Mapping[Any, Any], status: str | None, since: Position) -> Change | None:
    values = dict(row)
    session_id = values.pop("changed_id")
    moved = values.pop("moved_xid")
    del values["xid"]
    if values["id"] is not None and status in (None, values["status"]):
        return Change(session_id, record_of(values))
    # A session that neither has nor had this status is not reported.
    return Change(session_id, None) if moved is not None and not since.has_seen(moved) else None
