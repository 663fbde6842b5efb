"""Reading the utterances of sessions from the rows."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, select, tuple_

from domain.errors import InvalidFilter
from domain.transcript import Utterance
from persistence.postgres.database import Database
from persistence.postgres.finals import NumberedUtterance, final_of
from persistence.postgres.tables import session_utterances, transcript_utterances
from persistence.transcript_choice import TranscriptPart

MAX_LIMIT: Final = 1000

_u = session_utterances.c
_v = transcript_utterances.c


class UtteranceStore:
    """Reads utterances. All methods raise StorageUnavailable while Postgres is unavailable.

    They name no tenant: the caller must have read the session as its tenant before.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, session_id: UUID, version: int | None, offset: int, limit: int
    ) -> tuple[list[NumberedUtterance], bool]:
        """At most `limit` (1 to 1000) utterances from index `offset` on, and whether there are more.

        Args:
            version: None is the live transcript.

        Raises:
            InvalidFilter: a parameter is out of range.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidFilter("limit", f"limit must be 1 to {MAX_LIMIT}")
        if offset < 0:
            raise InvalidFilter("offset", "offset must be 0 or more")
        query = _of_live([session_id], offset) if version is None else _of_versions([(session_id, version)], offset)
        found = await self._read(query.limit(limit + 1))
        return found[:limit], len(found) > limit

    async def of_version(self, session_id: UUID, version: int | None) -> AsyncGenerator[Utterance, None]:
        """All utterances of a version in their order, read page by page; None is the live transcript."""
        offset, has_more = 0, True
        while has_more:
            found, has_more = await self.page(session_id, version, offset, MAX_LIMIT)
            for each in found:
                yield each.utterance
            if found:
                offset = found[-1].index + 1

    async def joined(self, parts: Sequence[TranscriptPart]) -> AsyncGenerator[Utterance, None]:
        """The utterances of parts of transcripts on their common time axis, read in batches."""
        for group in _groups(parts):
            async for part, utterance in self._all(group):
                if part.includes(utterance):
                    yield part.moved(utterance)

    async def _all(self, parts: Sequence[TranscriptPart]) -> AsyncGenerator[tuple[TranscriptPart, Utterance], None]:
        """All utterances of parts, in their order; page by page for a single one."""
        if len(parts) > 1:
            for part_and_utterance in await self._of_parts(parts):
                yield part_and_utterance
            return
        version = parts[0].version
        number = None if version.kind == "live" else version.version
        async for utterance in self.of_version(version.session_id, number):
            yield parts[0], utterance

    async def _of_parts(self, parts: Sequence[TranscriptPart]) -> list[tuple[TranscriptPart, Utterance]]:
        """All utterances of parts of different sessions, in the order of the parts."""
        live = [each.version.session_id for each in parts if each.version.kind == "live"]
        others = [(each.version.session_id, each.version.version) for each in parts if each.version.kind != "live"]
        found = await self._read(_of_live(live)) if live else []
        found += await self._read(_of_versions(others)) if others else []
        place = {part.version.session_id: at for at, part in enumerate(parts)}
        found.sort(key=lambda each: (place[each.session_id], each.index))
        return [(parts[place[each.session_id]], each.utterance) for each in found]

    async def _read(self, query: Select[Any]) -> list[NumberedUtterance]:
        async with self._database.transaction() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [final_of(row) for row in rows]


def _of_live(session_ids: Sequence[UUID], offset: int = 0) -> Select[Any]:
    query = select(session_utterances).where(_u.session_id.in_(session_ids), _u.index >= offset)
    return query.order_by(_u.session_id, _u.index)


def _of_versions(versions: Sequence[tuple[UUID, int]], offset: int = 0) -> Select[Any]:
    is_wanted = tuple_(_v.session_id, _v.version).in_(versions)
    return select(transcript_utterances).where(is_wanted, _v.index >= offset).order_by(_v.session_id, _v.index)


def _groups(parts: Iterable[TranscriptPart]) -> Iterator[list[TranscriptPart]]:
    """Groups of parts to read together: about a thousand utterances, or one part."""
    group: list[TranscriptPart] = []
    count = 0
    for part in parts:
        if group and count + part.version.utterance_count > MAX_LIMIT:
            yield group
            group, count = [], 0
        group.append(part)
        count += part.version.utterance_count
    if group:
        yield group
