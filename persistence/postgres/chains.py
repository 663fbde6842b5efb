"""Linked sessions: a session together with those that it continues."""

from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import InvalidFilter, SessionNotFound
from domain.session_id import format_session_id
from persistence.postgres.database import Database
from persistence.postgres.stored_session import STORED_SESSION_COLUMNS, stored_session
from persistence.postgres.tables import realtime_sessions
from persistence.session_values import StoredSession

MAX_LINKED: Final = 1000

_t = realtime_sessions.c


class ChainStore:
    """Reads linked sessions. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, tenant_id: UUID, session_id: UUID, *, linked: bool) -> tuple[StoredSession, ...]:
        """A session, oldest first after the sessions that it continues if `linked`, as far as none is deleted.

        Raises:
            SessionNotFound: the tenant has no session of this id.
            InvalidFilter: there are more than 1000.
        """
        async with self._database.transaction() as connection:
            return await read_chain(connection, tenant_id, session_id, linked=linked)


async def read_chain(
    connection: AsyncConnection, tenant_id: UUID, session_id: UUID, *, linked: bool
) -> tuple[StoredSession, ...]:
    """`ChainStore.read` in the caller's transaction."""

    def owned() -> tuple[ColumnElement[bool], ...]:
        return _t.tenant_id == tenant_id, _t.deleted_at.is_(None)

    asked = select(_t.id, _t.previous_session_id, literal(1).label("place"))
    chain = asked.where(_t.id == session_id, *owned()).cte("chain", recursive=True)
    if linked:
        before = select(_t.id, _t.previous_session_id, chain.c.place + 1)
        before = before.where(_t.id == chain.c.previous_session_id, *owned(), chain.c.place <= MAX_LINKED)
        chain = chain.union_all(before)
    query = select(*STORED_SESSION_COLUMNS).join(chain, chain.c.id == _t.id).order_by(chain.c.place.desc())
    rows = (await connection.execute(query)).mappings().all()
    if not rows:
        raise SessionNotFound(format_session_id(session_id))
    if len(rows) > MAX_LINKED:
        raise InvalidFilter("linked", f"the session continues more than {MAX_LINKED - 1} others")
    return tuple(stored_session(row) for row in rows)
