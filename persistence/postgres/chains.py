"""Which sessions of a tenant continue one another."""

from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, literal, select

from domain.errors import InvalidFilter, SessionNotFound
from domain.session_id import parse_session_id
from persistence.postgres.database import Database
from persistence.postgres.stored_session import STORED_SESSION_COLUMNS, stored_session
from persistence.postgres.tables import realtime_sessions
from persistence.records import StoredSession

MAX_LINKS: Final = 1000

_t = realtime_sessions.c


class ChainStore:
    """Reads a session together with those it continues. All methods raise StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, tenant_id: UUID, session_id: str, *, linked: bool) -> tuple[StoredSession, ...]:
        """A session, after those it continues if they are asked for, oldest first; it begins after a deleted one.

        Raises:
            InvalidSessionId: the text is none.
            SessionNotFound: the tenant has none of this id.
            InvalidFilter: there are more than 1000.
        """

        def mine() -> tuple[ColumnElement[bool], ...]:
            return _t.tenant_id == tenant_id, _t.deleted_at.is_(None)

        asked = select(_t.id, _t.previous_session_id, literal(1).label("place"))
        chain = asked.where(_t.id == parse_session_id(session_id), *mine()).cte("chain", recursive=True)
        if linked:
            before = select(_t.id, _t.previous_session_id, chain.c.place + 1)
            before = before.where(_t.id == chain.c.previous_session_id, *mine(), chain.c.place <= MAX_LINKS)
            chain = chain.union_all(before)
        query = select(*STORED_SESSION_COLUMNS).join(chain, chain.c.id == _t.id).order_by(chain.c.place.desc())
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).mappings().all()
        if not rows:
            raise SessionNotFound(session_id)
        if len(rows) > MAX_LINKS:
            raise InvalidFilter("linked", f"the session continues more than {MAX_LINKS - 1} others")
        return tuple(stored_session(row) for row in rows)
