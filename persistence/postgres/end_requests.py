"""Which of the sessions that run here are to end: somebody asked for it, or the key that began them is not good any
more."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, or_, select

from persistence.postgres.database import Database
from persistence.postgres.tables import api_keys, realtime_sessions


@dataclass(frozen=True, slots=True)
class Due:
    """What is to end."""

    sessions: frozenset[UUID]
    """Of which the end was requested."""
    keys: frozenset[UUID]
    """That were revoked or have expired: all that was begun with them."""


class EndRequests:
    """Raises StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, session_ids: Collection[UUID], key_ids: Collection[UUID]) -> Due:
        """Those of the sessions and keys that are to end.

        A key without a row has not ended: a row may be missing because a database lost its last seconds.
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
