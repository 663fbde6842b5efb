"""Sessions that continue one another, on a real Postgres and a real S3 server."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text, update

from domain.errors import AudioNotStored, InvalidFilter, SessionNotFound, StorageUnavailable
from domain.session import EndReason
from domain.session_id import format_session_id, new_uuid7
from domain.transcript import TimedWord, Utterance
from persistence.archive import Archive
from persistence.errors import ObjectNotFound
from persistence.postgres.chains import ChainStore
from persistence.postgres.database import Database
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.rows import SessionRows
from persistence.postgres.tables import realtime_sessions
from persistence.postgres.utterances import UtteranceStore
from persistence.s3.keys import audio_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects, StoredSession
from persistence.transcript_choice import CURRENT, LIVE, TranscriptPart, join
from persistence.wav import WavFormat
from tests.versions import a_live_version

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WAV = WavFormat("pcm_s16le", 8000, 1)


@pytest.fixture
def rows(database: Database) -> SessionRows:
    return SessionRows(database, "worker")


@pytest.fixture
def chains(database: Database) -> ChainStore:
    return ChainStore(database)


@pytest.fixture
def utterances(database: Database) -> UtteranceStore:
    return UtteranceStore(database)


def live_parts(chain: Sequence[StoredSession]) -> tuple[TranscriptPart, ...]:
    return join(chain, {each.id: [a_live_version(each)] for each in chain}, LIVE).parts


class Writer:
    """Stores sessions in Postgres and S3 as the service does."""

    def __init__(self, database: Database, rows: SessionRows, objects: ObjectStore, tenant: uuid.UUID) -> None:
        self._database = database
        self._rows = rows
        self._objects = objects
        self._tenant = tenant

    async def session(
        self,
        audio: bytes | None = b"",
        finals: Sequence[Utterance] = (),
        previous: uuid.UUID | None = None,
        resume: float | None = None,
    ) -> uuid.UUID:
        start = SessionStart(
            id=new_uuid7(), tenant_id=self._tenant, worker_id="worker", started_at=NOON,
            language="auto", model="fast", encoding=WAV.encoding, sample_rate=WAV.sample_rate, channels=1,
            store_audio=audio is not None, store_transcript=True,
            previous_session_id=previous,
        )  # fmt: skip
        await self._rows.insert([start])
        async with self._database.transaction() as connection:
            await connection.execute(
                update(realtime_sessions).where(realtime_sessions.c.id == start.id).values(resume_from_seconds=resume)
            )
        seconds = WAV.seconds(len(audio or b""))
        progress = Progress(seconds, len(finals), sum(each.word_count for each in finals), "en")
        numbered = [NumberedUtterance(start.id, at, each) for at, each in enumerate(finals)]
        for at in range(0, len(numbered), 250):
            await self._rows.write({}, numbered[at : at + 250])
        await self._rows.conclude(start.id, Conclusion(EndReason("completed"), NOON + timedelta(hours=1), progress))
        uris = StoredObjects("s3://b/a" if audio is not None else None, "s3://b/t")
        await self._rows.set_stored(start.id, uris, stored_bytes=len(audio or b""))
        if audio is not None:
            await self._objects.put(audio_key(start.id), WAV.header(len(audio)) + audio, "audio/wav")
        return start.id


@pytest.fixture
def writer(database: Database, rows: SessionRows, objects: ObjectStore, tenant: uuid.UUID) -> Writer:
    return Writer(database, rows, objects, tenant)


def an_utterance(start: float, words: str) -> Utterance:
    spoken = tuple(TimedWord(word, start, start + 0.5, 0.5) for word in words.split())
    return Utterance(start, start + 1.0, words, 0.5, "en", words=spoken)


async def test_a_chain_is_read_oldest_first_and_alone_unless_linked(
    writer: Writer, chains: ChainStore, tenant: uuid.UUID
) -> None:
    first = await writer.session(bytes(16_000))
    second = await writer.session(bytes(8_000), previous=first, resume=0.5)
    third = await writer.session(bytes(4_000), previous=second, resume=0.25)
    chain = await chains.read(tenant, third, linked=True)
    assert [session.id for session in chain] == [first, second, third]
    assert [session.stored_bytes for session in chain] == [16_000, 8_000, 4_000]
    assert [session.resume_from_seconds for session in chain] == [None, 0.5, 0.25]
    assert [session.id for session in await chains.read(tenant, third, linked=False)] == [third]
    assert [session.id for session in await chains.read(tenant, second, linked=True)] == [first, second]


async def test_a_chain_belongs_to_its_tenant_and_begins_after_a_deleted_session(
    writer: Writer, chains: ChainStore, database: Database, tenant: uuid.UUID
) -> None:
    first = await writer.session()
    second = await writer.session(previous=first)
    third = await writer.session(previous=second)
    for linked in (True, False):
        with pytest.raises(SessionNotFound):
            await chains.read(uuid.uuid4(), third, linked=linked)
    hide = update(realtime_sessions).where(realtime_sessions.c.id == second)
    async with database.transaction() as connection:
        await connection.execute(hide.values(deleted_at=NOON))
    assert [session.id for session in await chains.read(tenant, third, linked=True)] == [third]
    with pytest.raises(SessionNotFound):
        await chains.read(tenant, second, linked=True)


async def _long_chain(database: Database, tenant: uuid.UUID, count: int) -> uuid.UUID:
    ids = [new_uuid7() for _ in range(count)]
    values = [
        {
            "id": each, "tenant_id": tenant, "status": "completed", "language": "en", "model": "fast",
            "encoding": "pcm_s16le", "sample_rate": 8000, "channels": 1, "store_audio": True, "store_transcript": True,
            "enhance_on_end": False, "worker_id": "worker", "started_at": NOON, "ended_at": NOON,
            "audio_uri": "s3://b/a", "transcript_uri": "s3://b/t", "stored_bytes": 800, "utterance_count": 3,
            "previous_session_id": before, "resume_from_seconds": 0.1 if before else None,
        }
        for each, before in zip(ids, (None, *ids), strict=False)
    ]  # fmt: skip
    async with database.transaction() as connection:
        await connection.execute(insert(realtime_sessions), values)
        await connection.execute(
            text(
                "INSERT INTO session_utterances SELECT id, n, n * 0.01, n * 0.01, 'word ' || n, 1, 'en', '[]'"
                " FROM realtime_sessions, generate_series(0, 2) AS n WHERE tenant_id = :tenant"
            ),
            {"tenant": tenant},
        )
    return ids[-1]


async def test_a_chain_of_a_thousand_is_one_file(
    database: Database, chains: ChainStore, utterances: UtteranceStore, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    chain = await chains.read(tenant, await _long_chain(database, tenant, 1000), linked=True)
    file = await Archive(objects).audio_file(chain)
    assert file.size == WAV.file_bytes(1000 * 800 * 2 - 800 - 999 * 800 + 999 * 800)
    found = [each async for each in utterances.joined(live_parts(chain))]
    assert len(found) == 3000
    assert found[-1].start == pytest.approx(99.92)
    assert [each.start for each in found] == sorted(each.start for each in found)
    current = join(chain, {each.id: [a_live_version(each)] for each in chain}, CURRENT)
    assert current.parts == live_parts(chain)


async def test_a_longer_chain_is_refused_with_the_name_of_the_parameter(
    database: Database, chains: ChainStore, tenant: uuid.UUID
) -> None:
    session_id = await _long_chain(database, tenant, 1001)
    with pytest.raises(InvalidFilter) as refusal:
        await chains.read(tenant, session_id, linked=True)
    assert refusal.value.parameter == "linked"


async def _read(archive: Archive, chain: Sequence[StoredSession], begin: int = 0, end: int | None = None) -> bytes:
    file = await archive.audio_file(chain)
    part = file.between(begin, file.size if end is None else end)
    data = b"".join([chunk async for chunk in archive.read(part)])
    assert len(data) == part.size
    return data


async def test_joined_audio_and_every_range_of_it_come_from_the_objects(
    writer: Writer, chains: ChainStore, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    one, two, three = (bytes([n, 1]) * 80_000 for n in (1, 2, 3))
    first = await writer.session(one)
    second = await writer.session(two, previous=first, resume=5.0)
    third = await writer.session(three, previous=second, resume=11.0)  # a second more than is stored
    chain = await chains.read(tenant, third, linked=True)
    archive = Archive(objects)
    audio = one[: 5 * 16_000] + two + bytes(16_000) + three
    whole = WAV.header(len(audio)) + audio
    assert await _read(archive, chain) == whole
    for begin, end in ((0, 10), (30, 70), (79_000, 82_000), (200_000, 280_000), (len(whole) - 3, len(whole))):
        assert await _read(archive, chain, begin, end) == whole[begin:end]
    alone = await chains.read(tenant, second, linked=False)
    assert await _read(archive, alone) == WAV.header(len(two)) + two


async def test_a_session_without_audio_and_a_missing_object_are_different_errors(
    writer: Writer, chains: ChainStore, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    archive = Archive(objects)
    silent = await writer.session(None)
    last = await writer.session(bytes(16), previous=silent, resume=0.0)
    with pytest.raises(AudioNotStored, match=format_session_id(silent)):
        await archive.audio_file(await chains.read(tenant, last, linked=True))
    await objects.delete(audio_key(last))
    with pytest.raises(ObjectNotFound):
        await archive.audio_file(await chains.read(tenant, last, linked=False))


async def test_an_object_shorter_than_its_row_states_is_an_error(
    writer: Writer, chains: ChainStore, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    first = await writer.session(bytes(16_000))
    last = await writer.session(bytes(16_000), previous=first, resume=1.0)
    await objects.put(audio_key(first), WAV.header(100) + bytes(100), "audio/wav")
    with pytest.raises(StorageUnavailable):
        await _read(Archive(objects), await chains.read(tenant, last, linked=True))


async def test_joined_utterances_before_each_resume_point_are_on_one_time_axis(
    writer: Writer, chains: ChainStore, utterances: UtteranceStore, tenant: uuid.UUID
) -> None:
    first = await writer.session(
        bytes(160_000), [an_utterance(0.5, "one"), an_utterance(4.4, "two"), an_utterance(6.0, "lost")]
    )
    second = await writer.session(bytes(160_000), [an_utterance(0.25, "three")], previous=first, resume=5.0)
    third = await writer.session(bytes(160_000), [an_utterance(0.0, "four")], previous=second, resume=2.0)
    chain = await chains.read(tenant, third, linked=True)
    found = [each async for each in utterances.joined(live_parts(chain))]
    assert [(each.text, each.start) for each in found] == [("one", 0.5), ("two", 4.4), ("three", 5.25), ("four", 7.0)]
    assert found[2].words == (TimedWord("three", 5.25, 5.75, 0.5),)


async def test_utterances_are_paged_by_their_index(
    writer: Writer, utterances: UtteranceStore, chains: ChainStore, tenant: uuid.UUID
) -> None:
    everything = [an_utterance(float(n), f"number {n}") for n in range(1500)]
    session_id = await writer.session(bytes(16), everything)
    page, has_more = await utterances.page(session_id, None, 0, 2)
    assert ([each.index for each in page], has_more) == ([0, 1], True)
    page, has_more = await utterances.page(session_id, None, 1498, 2)
    assert ([each.utterance for each in page], has_more) == (everything[1498:], False)
    assert await utterances.page(session_id, None, 9999, 5) == ([], False)
    chain = await chains.read(tenant, session_id, linked=False)
    assert [each async for each in utterances.joined(live_parts(chain))] == everything
    # A session with more than one page, between two others.
    more = await writer.session(bytes(16), [replace(everything[0], text="last")], previous=session_id, resume=9999.0)
    chain = await chains.read(tenant, more, linked=True)
    found = [each.text async for each in utterances.joined(live_parts(chain))]
    assert found == [each.text for each in everything] + ["last"]


@pytest.mark.parametrize(("name", "values"), [("limit", (0, 0)), ("limit", (0, 1001)), ("offset", (-1, 1))])
async def test_a_page_out_of_range_is_refused_by_name(
    utterances: UtteranceStore, name: str, values: tuple[Any, Any]
) -> None:
    with pytest.raises(InvalidFilter) as refusal:
        await utterances.page(uuid.uuid4(), None, *values)
    assert refusal.value.parameter == name
