"""Which sessions of a tenant continue one another."""

from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, literal, select

from domain.errors import InvalidFilter, SessionNotFound
from domain.session_id import format_session_id
from persistence.postgres.database import Database
from persistence.postgres.tables import realtime_sessions
from persistence.s3.linked import Link

MAX_LINKS: Final = 1000

_t = realtime_sessions.c
_columns = [
    _t.id,
    _t.status,
    _t.language,
    _t.encoding,
    _t.sample_rate,
    _t.channels,
    _t.store_audio,
    _t.store_transcript,
    _t.audio_uri,
    _t.transcript_uri,
    _t.audio_duration_seconds,
    _t.utterance_count,
    _t.word_count,
    _t.stored_bytes,
    _t.resume_from_seconds,
]


class ChainStore:
    """Reads a session together with those it continues. All methods raise StorageUnavailable while Postgres is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, tenant_id: UUID, session_id: UUID, *, linked: bool) -> tuple[Link, ...]:
        """A session, after those it continues if they are asked for, oldest first; it begins after a deleted one.

        Raises:
            SessionNotFound: the tenant has none of this id.
            InvalidFilter: there are more than 1000.
        """

        def mine() -> tuple[ColumnElement[bool], ...]:
            return _t.tenant_id == tenant_id, _t.deleted_at.is_(None)

        asked = select(_t.id, _t.previous_session_id, literal(1).label("place"))
        chain = asked.where(_t.id == session_id, *mine()).cte("chain", recursive=True)
        if linked:
            before = select(_t.id, _t.previous_session_id, chain.c.place + 1)
            before = before.where(_t.id == chain.c.previous_session_id, *mine(), chain.c.place <= MAX_LINKS)
            chain = chain.union_all(before)
        query = select(*_columns).join(chain, chain.c.id == _t.id).order_by(chain.c.place.desc())
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).mappings().all()
        if not rows:
            raise SessionNotFound(format_session_id(session_id))
        if len(rows) > MAX_LINKS:
            raise InvalidFilter("linked", f"the session continues more than {MAX_LINKS - 1} others")
        return tuple(Link(**{str(name): value for name, value in row.items()}) for row in rows)
