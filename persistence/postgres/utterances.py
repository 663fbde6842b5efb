"""Reading the utterances of sessions from the rows."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import select

from domain.errors import InvalidFilter
from domain.transcript import Utterance
from persistence.postgres.database import Database
from persistence.postgres.finals import NumberedUtterance, final_of
from persistence.postgres.tables import session_utterances
from persistence.s3.linked import SessionSpan

MAX_LIMIT: Final = 1000

_u = session_utterances.c


class UtteranceStore:
    """Reads utterances. All methods raise StorageUnavailable while Postgres is unavailable.

    They name no tenant: the caller must have read the session as its tenant before.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, session_id: UUID, offset: int, limit: int) -> tuple[list[NumberedUtterance], bool]:
        """At most `limit` (1 to 1000) utterances from index `offset` on, and whether there are more.

        Raises:
            InvalidFilter: a parameter is out of range.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidFilter("limit", f"limit must be 1 to {MAX_LIMIT}")
        if offset < 0:
            raise InvalidFilter("offset", "offset must be 0 or more")
        found = await self._rows([session_id], offset, limit + 1)
        return found[:limit], len(found) > limit

    async def joined(self, session_spans: Sequence[SessionSpan]) -> AsyncGenerator[Utterance, None]:
        """The utterances of linked sessions on their common time axis, read in batches."""
        for group in _groups(session_spans):
            by_session = {span.session.id: span for span in group}
            async for found in self._all(list(by_session)):
                span = by_session[found.session_id]
                if span.includes(found.utterance):
                    yield span.moved(found.utterance)

    async def _all(self, session_ids: list[UUID]) -> AsyncGenerator[NumberedUtterance, None]:
        """All utterances of sessions, in the order of the sessions; page by page for a single one."""
        if len(session_ids) > 1:
            place = {session_id: at for at, session_id in enumerate(session_ids)}
            found = await self._rows(session_ids, 0, None)
            for each in sorted(found, key=lambda each: (place[each.session_id], each.index)):
                yield each
            return
        offset, has_more = 0, True
        while has_more:
            found, has_more = await self.page(session_ids[0], offset, MAX_LIMIT)
            for each in found:
                yield each
            if found:
                offset = found[-1].index + 1

    async def _rows(self, session_ids: list[UUID], offset: int, limit: int | None) -> list[NumberedUtterance]:
        query = (
            select(session_utterances)
            .where(_u.session_id.in_(session_ids), _u.index >= offset)
            .order_by(_u.session_id, _u.index)
            .limit(limit)
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [final_of(row) for row in rows]


def _groups(session_spans: Iterable[SessionSpan]) -> Iterator[list[SessionSpan]]:
    """Groups of sessions to read with one statement: about a thousand utterances, or one session."""
    group: list[SessionSpan] = []
    count = 0
    for span in session_spans:
        if group and count + span.session.utterance_count > MAX_LIMIT:
            yield group
            group, count = [], 0
        group.append(span)
        count += span.session.utterance_count
    if group:
        yield group
