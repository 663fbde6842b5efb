"""The one writer of transcripts, over rows and a document of the test."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.session_id import format_session_id
from domain.transcript import Utterance, document, utterances_of
from persistence.errors import DatabaseUnavailable, ObjectNotFound
from persistence.postgres.finals import NumberedUtterance
from persistence.s3.keys import transcript_key
from persistence.storing.transcript_writer import TranscriptWriter

SESSION = uuid4()
ONE, TWO, THREE = (Utterance(float(at), at + 1.0, f"final {at}", 0.9, "en", 0.75) for at in range(3))


class Rows:
    """The rows of one session; `refuses` makes writing do nothing, as for a session of another process."""

    def __init__(self, *finals: Utterance) -> None:
        self.finals = dict(enumerate(finals))
        self.refuses = False

    async def indexed_utterances(self, _: UUID) -> dict[int, Utterance]:
        return dict(self.finals)

    async def write(self, _: Any, finals: list[NumberedUtterance]) -> None:
        if not self.refuses:
            self.finals = {each.index: each.utterance for each in finals} | self.finals

    async def exists(self, _: UUID) -> bool:
        return True


class Objects:
    def __init__(self, *finals: Utterance) -> None:
        self.stored: dict[str, bytes] = {}
        if finals:
            self.stored[transcript_key(SESSION)] = document(format_session_id(SESSION), "en", 3.0, finals)

    async def read(self, key: str) -> bytes:
        if key not in self.stored:
            raise ObjectNotFound("no such object")
        return self.stored[key]

    async def put(self, key: str, body: bytes, _: str) -> None:
        self.stored[key] = body

    def uri(self, key: str) -> str:
        return f"s3://bucket/{key}"


def writer(rows: Rows, objects: Objects) -> TranscriptWriter:
    sources: Any = objects, rows
    return TranscriptWriter(*sources)


async def test_finals_of_all_sources_are_in_the_rewritten_transcript() -> None:
    rows, objects = Rows(ONE), Objects(ONE, TWO)
    transcripts = writer(rows, objects)
    transcript = await transcripts.collect(SESSION, "auto", spooled=[ONE, TWO, THREE], from_document=True)
    await transcripts.put(SESSION, transcript, 3.0)
    assert transcript.finals == [ONE, TWO, THREE]
    assert transcript.language == "en"
    assert utterances_of(objects.stored[transcript_key(SESSION)]) == [ONE, TWO, THREE]


async def test_finals_of_the_document_alone_are_restored_to_the_rows() -> None:
    rows = Rows(ONE)
    transcript = await writer(rows, Objects(ONE, TWO)).collect(SESSION, "en", from_document=True)
    assert (transcript.finals, transcript.restored) == ([ONE, TWO], 1)
    assert rows.finals == {0: ONE, 1: TWO}


async def test_a_document_is_not_replaced_before_the_rows_have_its_finals() -> None:
    rows, objects = Rows(ONE), Objects(ONE, TWO)
    rows.refuses = True
    with pytest.raises(DatabaseUnavailable):
        await writer(rows, objects).collect(SESSION, "en", from_document=True)


async def test_spooled_finals_that_the_rows_do_not_take_are_an_error() -> None:
    rows = Rows(ONE)
    rows.refuses = True
    with pytest.raises(DatabaseUnavailable):
        await writer(rows, Objects()).collect(SESSION, "en", spooled=[ONE, TWO])


async def test_a_transcript_without_a_document_is_that_of_the_rows() -> None:
    transcript = await writer(Rows(ONE, TWO), Objects()).collect(SESSION, "en", from_document=True)
    assert (transcript.finals, transcript.restored) == ([ONE, TWO], 0)
