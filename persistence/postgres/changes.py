"""What has changed of a tenant's sessions since a reader last looked."""

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
"""How long after it was given a position may be resumed from."""
_KEPT_SECONDS: Final = 2 * TOKEN_SECONDS
"""Longer than that, by what transactions take to commit and clocks differ."""
_PURGE_SECONDS: Final = 600.0
_PURGED_AT_ONCE: Final = 5_000
_PAGE: Final = 200
_MOST_READS: Final = 2
"""At a time, in the whole process: those who watch take the other connections from nobody."""

_WAIT_SECONDS: Final = 5.0
"""For one's turn to read."""

_c = session_changes.c
_t = realtime_sessions.c
_NOW = text("SELECT pg_current_snapshot()::text, extract(epoch FROM clock_timestamp())::float8")
# Two servers that purge at once take what the other has not.
_PURGE = text("""
    DELETE FROM session_changes WHERE session_id IN (
        SELECT session_id FROM session_changes WHERE changed_at < now() - make_interval(secs => :seconds)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
""")


@dataclass(frozen=True, slots=True)
class Change:
    """A session as it is now."""

    session_id: UUID
    record: SessionRecord | None
    """None: it is gone, or not of the status that is watched any more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Some of the newest sessions, newest first."""

    sessions: tuple[SessionRecord, ...]
    position: Position
    """What changed after this page was read is found from here."""
    next: Cursor | None
    """Where the next page begins; None after the last."""


@dataclass(frozen=True, slots=True)
class ChangePage:
    """Some of what changed, each session once."""

    changes: tuple[Change, ...]
    position: Position
    """What changed after this page was read is found from here."""
    next: tuple[int, UUID] | None
    """Where the next page begins; None after the last."""


class ChangeStore:
    """Reads changes, of one tenant at a time. All methods raise StorageUnavailable while Postgres is away.

    A change is seen once its transaction has committed, in whatever order they do. A session that changed several times
    between two looks is seen once, as it is at the second.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads = asyncio.Semaphore(_MOST_READS)

    async def resume(self, tenant_id: UUID, status: str | None, token: str) -> Position | None:
        """The position that a token stands for; None if it is too old, or not of this service, tenant and status.

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
        # A database that was restored may count again what it has counted before.
        is_of_the_past = position.xmax <= now.xmax and position.at <= now.at + 1
        return position if is_of_the_past and now.at - position.at <= TOKEN_SECONDS else None

    async def snapshot(self, tenant_id: UUID, status: str | None, after: Cursor | None = None) -> Snapshot:
        """One page of the sessions as they are. The position of the first page is that of the whole."""
        query = snapshot_query(tenant_id, SessionFilter(status=status), _PAGE, after)
        async with self._reading() as connection:
            position = await _now(connection)
            await connection.execute(BY_INDEX)
            sessions = tuple(record_of(row) for row in (await connection.execute(query)).mappings())
        return Snapshot(sessions, position, place_of(sessions[-1]) if len(sessions) == _PAGE else None)

    async def page(
        self, tenant_id: UUID, status: str | None, since: Position, after: tuple[int, UUID] | None = None
    ) -> ChangePage:
        """One page of what the position has not seen. The position of the first page is that of the whole."""
        async with self._reading() as connection:
            # Taken first: what commits between the two statements is told twice rather than never.
            position = await _now(connection)
            query = _changed(tenant_id, since, after)
            rows = [dict(row) for row in (await connection.execute(query)).mappings()]
        last = rows[-1] if len(rows) == _PAGE else None
        following = None if last is None else (int(last["xid"]), UUID(str(last["changed_id"])))
        changes = (_change(row, status, since) for row in rows)
        return ChangePage(tuple(change for change in changes if change is not None), position, following)

    async def purge(self) -> None:
        """Forgets changes that no token can ask for any more."""
        removed = _PURGED_AT_ONCE
        while removed == _PURGED_AT_ONCE:
            async with self._database.transaction() as connection:
                removed = (
                    await connection.execute(_PURGE, {"seconds": _KEPT_SECONDS, "limit": _PURGED_AT_ONCE})
                ).rowcount

    async def run(self) -> None:
        """Purges now and then, until cancelled."""
        while True:
            await asyncio.sleep(_PURGE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
            try:
                await self.purge()
            except StorageUnavailable:
                log.warning("old changes of sessions stay: the database does not answer")

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
    living = and_(_t.id == _c.session_id, _t.tenant_id == _c.tenant_id, _t.deleted_at.is_(None))
    query = (
        select(_c.session_id.label("changed_id"), _c.xid, _c.moved_xid, *record_columns)
        .select_from(session_changes.outerjoin(realtime_sessions, living))
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
    # One that is not of this status now, and was not before, is no news.
    return Change(session_id, None) if moved is not None and not since.has_seen(moved) else None
