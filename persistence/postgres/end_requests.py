"""Running sessions that must end: by request, or because the key that began them was revoked or has expired."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, or_, select

from persistence.postgres.database import Database
from persistence.postgres.tables import api_keys, realtime_sessions


@dataclass(frozen=True, slots=True)
class Due:
    """Sessions and keys that have ended from outside."""

    sessions: frozenset[UUID]
    """The sessions whose end was requested."""
    keys: frozenset[UUID]
    """The keys that were revoked or have expired: every session begun with one of them must end."""


class EndRequests:
    """Reads requests to end sessions. All methods raise StorageUnavailable while Postgres is unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, session_ids: Collection[UUID], key_ids: Collection[UUID]) -> Due:
        """The given sessions and keys that must end.

        A key without a row has not ended: a failover of Postgres may have lost the row.
        """
        session, key = realtime_sessions.c, api_keys.c
        requested = select(session.id).where(session.id.in_(session_ids), session.end_requested_at.is_not(None))
        ended = select(key.id).where(
            key.id.in_(key_ids), or_(key.revoked_at.is_not(None), key.expires_at <= func.now())
        )
        async with self._database.transaction() as connection:
            return Due(
                frozenset((await connection.execute(requested)).scalars()) if session_ids else frozenset(),
                frozenset((await connection.execute(ended)).scalars()) if key_ids else frozenset(),
            )
