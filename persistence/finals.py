"""Finals on their way into the rows of their sessions."""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import ARRAY, Double, Integer, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from persistence.transcript import Utterance

_A_STATEMENT: Final = 1_000

_INSERT = text("""
    WITH new AS (
        SELECT * FROM unnest(:ids, :indexes, :starts, :ends, :texts, :confidences, :languages, :words)
            AS n(id, index, start, "end", text, confidence, language, words)
    ), owned AS (
        SELECT id FROM realtime_sessions
        WHERE id IN (SELECT id FROM new) AND worker_id = :worker_id AND deleted_at IS NULL
        FOR SHARE
    )
    INSERT INTO session_utterances (session_id, index, start, "end", text, confidence, language, words)
    SELECT n.id, n.index, n.start, n."end", n.text, n.confidence, n.language, n.words::jsonb
    FROM new AS n JOIN owned USING (id)
    ON CONFLICT (session_id, index) DO NOTHING
""").bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("indexes", type_=ARRAY(Integer)),
    bindparam("starts", type_=ARRAY(Double)),
    bindparam("ends", type_=ARRAY(Double)),
    bindparam("texts", type_=ARRAY(Text)),
    bindparam("confidences", type_=ARRAY(Double)),
    bindparam("languages", type_=ARRAY(Text)),
    bindparam("words", type_=ARRAY(Text)),
)


@dataclass(frozen=True, slots=True)
class NumberedUtterance:
    """A final of a session in its place; the first has index 0."""

    session_id: UUID
    index: int
    utterance: Utterance


def numbered(session_id: UUID, said: Sequence[Utterance]) -> Iterator[Sequence[NumberedUtterance]]:
    """All finals of a session in their places, as many at a time as one statement takes."""
    yield from batches(missing(session_id, said, ()))


def missing(session_id: UUID, said: Sequence[Utterance], there: Container[int]) -> list[NumberedUtterance]:
    """The finals of a session whose places are not `there`."""
    return [
        NumberedUtterance(session_id, index, utterance) for index, utterance in enumerate(said) if index not in there
    ]


def batches(finals: Sequence[NumberedUtterance]) -> Iterator[Sequence[NumberedUtterance]]:
    """As many at a time as one statement takes."""
    for at in range(0, len(finals), _A_STATEMENT):
        yield finals[at : at + _A_STATEMENT]


async def insert_finals(connection: AsyncConnection, worker_id: str, finals: Sequence[NumberedUtterance]) -> None:
    """Writes finals of sessions of this process; one that is there already stays as it is."""
    await connection.execute(_INSERT, _parameters(worker_id, finals))


def _parameters(worker_id: str, utterances: Sequence[NumberedUtterance]) -> dict[str, object]:
    said = [each.utterance for each in utterances]
    return {
        "worker_id": worker_id,
        "ids": [each.session_id for each in utterances],
        "indexes": [each.index for each in utterances],
        "starts": [each.start for each in said],
        "ends": [each.end for each in said],
        "texts": [_clean(each.text) for each in said],
        "confidences": [each.confidence for each in said],
        "languages": [each.language for each in said],
        "words": [json.dumps([asdict(word) | {"word": _clean(word.word)} for word in each.words]) for each in said],
    }


def _clean(spoken: str) -> str:
    # The one character that Postgres has no place for.
    return spoken.replace("\0", "")
