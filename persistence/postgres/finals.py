"""Finals in `session_utterances`: writing them, and reading a row."""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BindParameter, Double, Integer, RowMapping, Text, Uuid, text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.transcript import TimedWord, Utterance
from persistence.postgres.arrays import arrays

_BATCH: Final = 1_000


def utterance_arrays() -> tuple[BindParameter[Any], ...]:
    """The parameters of a statement that inserts utterances; `utterance_parameters` returns their values."""
    return arrays(
        indexes=Integer,
        starts=Double,
        ends=Double,
        texts=Text,
        confidences=Double,
        languages=Text,
        words=Text,
        language_probabilities=Double,
    )


_INSERT = text("""
    WITH new AS (
        SELECT * FROM unnest(
            :ids, :indexes, :starts, :ends, :texts, :confidences, :languages, :words, :language_probabilities
        ) AS n(id, index, start, "end", text, confidence, language, words, language_probability)
    ), owned AS (
        SELECT id FROM realtime_sessions
        WHERE id IN (SELECT id FROM new) AND worker_id = :worker_id AND deleted_at IS NULL
        FOR SHARE
    )
    INSERT INTO session_utterances (
        session_id, index, start, "end", text, confidence, language, words, language_probability
    )
    SELECT n.id, n.index, n.start, n."end", n.text, n.confidence, n.language, n.words::jsonb, n.language_probability
    FROM new AS n JOIN owned USING (id)
    ON CONFLICT (session_id, index) DO NOTHING
""").bindparams(*arrays(ids=Uuid), *utterance_arrays())


@dataclass(frozen=True, slots=True)
class NumberedUtterance:
    """A final of a session with its index; the first is 0."""

    session_id: UUID
    index: int
    utterance: Utterance


def final_of(row: RowMapping) -> NumberedUtterance:
    """The final in a row of `session_utterances`."""
    words = tuple(TimedWord(**word) for word in row["words"])
    utterance = Utterance(
        start=row["start"],
        end=row["end"],
        text=row["text"],
        confidence=row["confidence"],
        language=row["language"],
        language_probability=row["language_probability"],
        words=words,
    )
    return NumberedUtterance(row["session_id"], row["index"], utterance)


def numbered(session_id: UUID, finals: Sequence[Utterance]) -> Iterator[Sequence[NumberedUtterance]]:
    """All finals of a session with their indexes, in batches of one statement."""
    yield from batches(missing(session_id, finals, ()))


def missing(session_id: UUID, finals: Sequence[Utterance], known: Container[int]) -> list[NumberedUtterance]:
    """The finals of a session whose indexes are not in `known`."""
    return [
        NumberedUtterance(session_id, index, utterance) for index, utterance in enumerate(finals) if index not in known
    ]


def uncovered(session_id: UUID, stored: Sequence[Utterance], known: Mapping[int, Utterance]) -> list[NumberedUtterance]:
    """The stored finals whose speech no final in `known` covers, at free indexes.

    Finals are matched by their times. The index is no criterion: in a transcript that was written with a gap, the
    finals after the gap have lower indexes. A final for which no index is free is left out.
    """
    places = dict(sorted(known.items()))
    found = []
    for utterance in stored:
        if any(_is_same_speech(utterance, each) for each in known.values()):
            continue
        place = 1 + max((index for index, each in places.items() if each.start <= utterance.start), default=-1)
        if place not in places:
            places[place] = utterance
            found.append(NumberedUtterance(session_id, place, utterance))
    return found


def _is_same_speech(one: Utterance, other: Utterance) -> bool:
    """Whether they overlap by more than half of the shorter one's duration."""
    common = min(one.end, other.end) - max(one.start, other.start)
    return common > 0.5 * min(one.end - one.start, other.end - other.start) or one.start == other.start


def batches(finals: Sequence[NumberedUtterance]) -> Iterator[Sequence[NumberedUtterance]]:
    """Batches of one statement."""
    for at in range(0, len(finals), _BATCH):
        yield finals[at : at + _BATCH]


async def insert_finals(connection: AsyncConnection, worker_id: str, finals: Sequence[NumberedUtterance]) -> None:
    """Writes finals of sessions of this process; existing ones stay unchanged."""
    await connection.execute(_INSERT, _parameters(worker_id, finals))


def _parameters(worker_id: str, utterances: Sequence[NumberedUtterance]) -> dict[str, object]:
    values = utterance_parameters([each.utterance for each in utterances], 0)
    indexes = [each.index for each in utterances]
    return values | {"worker_id": worker_id, "ids": [each.session_id for each in utterances], "indexes": indexes}


def utterance_parameters(finals: Sequence[Utterance], first_index: int) -> dict[str, object]:
    """The values of utterances with consecutive indexes, for a statement with `utterance_arrays`."""
    return {
        "indexes": list(range(first_index, first_index + len(finals))),
        "starts": [each.start for each in finals],
        "ends": [each.end for each in finals],
        "texts": [_clean(each.text) for each in finals],
        "confidences": [each.confidence for each in finals],
        "languages": [each.language for each in finals],
        "words": [json.dumps([asdict(word) | {"word": _clean(word.word)} for word in each.words]) for each in finals],
        "language_probabilities": [each.language_probability for each in finals],
    }


def _clean(spoken: str) -> str:
    # The one character that Postgres cannot store.
    return spoken.replace("\0", "")
