"""The versions of a session's transcript, on a real Postgres and a real S3 server."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from domain.errors import InvalidFilter, SessionActive, SessionNotFound, TranscriptNotFound, TranscriptNotStored
from domain.session_id import format_session_id
from domain.transcript import Utterance, document, utterances_of
from persistence.archive import delete_session, delete_transcript
from persistence.errors import ObjectNotFound
from persistence.postgres.chains import ChainStore
from persistence.postgres.database import Database
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.postgres.utterances import UtteranceStore
from persistence.s3.keys import session_prefix, source_key, transcript_key, version_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import StoredSession
from persistence.transcripts import Transcripts
from tests.integration.persistence.test_chains import Writer, an_utterance
from tests.versions import VersionWriter

LIVE = [an_utterance(0.5, "the live words"), an_utterance(4.0, "and more")]
BETTER = [an_utterance(0.4, "the better words"), an_utterance(4.1, "and more")]


class Store:
    """Sessions of one tenant with their versions."""

    def __init__(self, database: Database, objects: ObjectStore, tenant: uuid.UUID) -> None:
        self.database = database
        self.objects = objects
        self.tenant = tenant
        self.sessions = SessionStore(database)
        self.chains = ChainStore(database)
        self.versions = TranscriptVersions(database)
        self.transcripts = Transcripts(self.chains, self.versions, UtteranceStore(database))
        self.writer = VersionWriter(database, objects)
        self._writer = Writer(database, SessionRows(database, "worker"), objects, tenant)

    async def session(
        self,
        finals: Sequence[Utterance] = LIVE,
        seconds: int = 10,
        previous: uuid.UUID | None = None,
        resume: Any = None,
    ) -> uuid.UUID:
        session_id = await self._writer.session(bytes(160_000), finals, previous, resume)
        body = document(format_session_id(session_id), "en", 10.0, finals)
        await self.objects.put(transcript_key(session_id), body, "application/json")
        return session_id

    async def chain(self, session_id: uuid.UUID) -> tuple[StoredSession, ...]:
        return await self.chains.read(self.tenant, session_id, linked=True)

    async def listed(self, session_id: uuid.UUID) -> list[tuple[int, str, bool]]:
        found = await self.transcripts.versions(self.tenant, session_id)
        return [(each.version, each.kind, each.is_current) for each in found]

    async def read(self, session_id: uuid.UUID, version: int = 0, *, linked: bool = False) -> list[tuple[float, str]]:
        chosen = await self.transcripts.choose(self.tenant, session_id, version, linked=linked)
        found = [(each.start, each.text) async for each in self.transcripts.utterances(chosen)]
        if chosen.document_key is not None:
            stored = utterances_of(await self.objects.read(chosen.document_key))
            assert [(each.start, each.text) for each in stored] == found
        return found

    async def number(self, session_id: uuid.UUID, version: int = 0, *, linked: bool = False) -> int | None:
        return (await self.transcripts.choose(self.tenant, session_id, version, linked=linked)).number

    async def delete(self, session_id: uuid.UUID, version: int) -> None:
        await delete_transcript(self.versions, self.objects, self.tenant, session_id, version)

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(text(statement), values)


@pytest.fixture
def store(database: Database, objects: ObjectStore, tenant: uuid.UUID) -> Store:
    return Store(database, objects, tenant)


def spoken(utterances: Sequence[Utterance]) -> list[tuple[float, str]]:
    return [(each.start, each.text) for each in utterances]


async def test_the_live_transcript_is_the_only_version_of_a_session_without_jobs(store: Store) -> None:
    session_id = await store.session()
    assert await store.listed(session_id) == [(1, "live", True)]
    assert await store.read(session_id) == await store.read(session_id, 1) == spoken(LIVE)
    (live,) = await store.transcripts.versions(store.tenant, session_id)
    assert (live.utterance_count, live.word_count, live.model, live.audio_seconds) == (2, 5, "fast", 10.0)


async def test_an_accepted_version_is_read_where_none_is_asked_for_and_the_live_one_stays(store: Store) -> None:
    session_id = await store.session()
    job_id = await store.writer.version(session_id, 2, BETTER)
    assert await store.listed(session_id) == [(1, "live", False), (2, "enhanced", True)]
    assert await store.read(session_id) == await store.read(session_id, 2) == spoken(BETTER)
    assert await store.read(session_id, 1) == spoken(LIVE)
    assert [await store.number(session_id, each) for each in (0, 1, 2)] == [2, 1, 2]
    record = await store.sessions.get(store.tenant, session_id)
    assert (record.transcript_version, record.transcript_count, record.word_count) == (2, 2, 5)
    assert (await store.transcripts.versions(store.tenant, session_id))[1].job_id == job_id


async def test_a_version_whose_job_still_runs_is_not_listed(store: Store) -> None:
    session_id = await store.session()
    await store.writer.job(session_id, 2, BETTER)
    assert await store.listed(session_id) == [(1, "live", True)]
    with pytest.raises(TranscriptNotFound):
        await store.read(session_id, 2)
    with pytest.raises(TranscriptNotFound):
        await store.versions.set_current(store.tenant, session_id, 2)


async def test_a_doubtful_version_becomes_the_current_one_only_by_the_tenant(store: Store) -> None:
    session_id = await store.session()
    await store.writer.version(session_id, 2, BETTER, verdict="doubtful")
    assert await store.read(session_id) == spoken(LIVE)
    assert (await store.versions.set_current(store.tenant, session_id, 2)).is_current
    assert await store.read(session_id) == spoken(BETTER)
    assert (await store.versions.set_current(store.tenant, session_id, 1)).kind == "live"
    assert await store.read(session_id) == spoken(LIVE)


@pytest.mark.parametrize("version", [0, -1, 3])
async def test_a_version_that_does_not_exist_can_be_neither_read_chosen_nor_deleted(store: Store, version: int) -> None:
    session_id = await store.session()
    await store.writer.version(session_id, 2, BETTER)
    with pytest.raises(TranscriptNotFound):
        await store.versions.set_current(store.tenant, session_id, version)
    with pytest.raises(TranscriptNotFound):
        await store.delete(session_id, version)
    if version > 0:
        with pytest.raises(TranscriptNotFound, match="version 3"):
            await store.read(session_id, version)
    if version < 0:
        with pytest.raises(InvalidFilter):
            await store.read(session_id, version)


async def test_a_deleted_current_version_is_replaced_by_the_newest_accepted_one_before_it(store: Store) -> None:
    session_id = await store.session()
    for version, verdict in ((2, "accepted"), (3, "doubtful"), (4, "accepted"), (5, "accepted")):
        await store.writer.version(session_id, version, BETTER, verdict=verdict)
    await store.delete(session_id, 5)
    assert await store.number(session_id) == 4
    await store.delete(session_id, 4)
    assert await store.number(session_id) == 2
    await store.delete(session_id, 2)
    assert await store.number(session_id) == 1
    assert await store.listed(session_id) == [(1, "live", True), (3, "enhanced", False)]
    assert await store.objects.list(f"{session_prefix(session_id)}transcripts/") == [version_key(session_id, 3)]


async def test_a_version_of_the_joined_recording_does_not_replace_a_deleted_one(store: Store) -> None:
    _, last = await a_chain(store)
    await store.writer.version(last, 2, JOINED, chain=await store.chain(last))
    await store.writer.version(last, 3, BETTER)
    await store.delete(last, 3)
    assert await store.number(last) == 1
    assert await store.number(last, linked=True) == 2


async def test_the_deletion_of_another_version_leaves_the_current_one(store: Store) -> None:
    session_id = await store.session()
    await store.writer.version(session_id, 2, BETTER)
    await store.writer.version(session_id, 3, BETTER)
    await store.delete(session_id, 2)
    assert await store.number(session_id) == 3
    await store.versions.set_current(store.tenant, session_id, 1)
    await store.delete(session_id, 3)
    assert await store.listed(session_id) == [(1, "live", True)]


async def test_the_live_version_is_deleted_with_its_session_only(store: Store) -> None:
    session_id = await store.session()
    await store.writer.version(session_id, 2, BETTER)
    with pytest.raises(InvalidFilter) as refusal:
        await store.delete(session_id, 1)
    assert refusal.value.parameter == "version"
    await store.objects.put(source_key(session_id), b"what an upload was sent as", "audio/mpeg")
    await store.objects.create_upload(source_key(session_id), "audio/mpeg")
    await delete_session(store.sessions, store.objects, store.tenant, session_id)
    assert await store.objects.list(session_prefix(session_id)) == []
    assert await store.objects.uploads_below(session_prefix(session_id)) == []
    with pytest.raises(SessionNotFound):
        await store.listed(session_id)


async def test_another_tenant_can_neither_read_nor_change_versions(store: Store, database: Database) -> None:
    session_id = await store.session()
    await store.writer.version(session_id, 2, BETTER)
    other = Store(database, store.objects, uuid.uuid4())
    for call in (
        other.listed(session_id),
        other.read(session_id, 2),
        other.transcripts.page(other.tenant, session_id, 2, 0, 10),
        other.versions.set_current(other.tenant, session_id, 1),
        other.delete(session_id, 2),
    ):
        with pytest.raises(SessionNotFound):
            await call
    assert await store.listed(session_id) == [(1, "live", False), (2, "enhanced", True)]


async def test_utterances_of_a_version_are_paged_by_their_index(store: Store) -> None:
    session_id = await store.session()
    everything = [an_utterance(float(at), f"number {at}") for at in range(1200)]
    await store.writer.version(session_id, 2, everything)

    async def page(version: int, offset: int, limit: int) -> tuple[list[str], bool]:
        found, has_more = await store.transcripts.page(store.tenant, session_id, version, offset, limit)
        return [each.utterance.text for each in found], has_more

    assert await page(2, 0, 2) == (["number 0", "number 1"], True)
    assert await page(2, 1198, 2) == (["number 1198", "number 1199"], False)
    assert await page(0, 0, 10) == await page(1, 0, 10) == (["the live words", "and more"], False)
    assert await store.read(session_id) == spoken(everything)
    with pytest.raises(TranscriptNotFound):
        await page(3, 0, 2)
    with pytest.raises(InvalidFilter):
        await page(-1, 0, 2)


async def an_upload(store: Store) -> uuid.UUID:
    session_id = await store.session([])
    await store.execute("UPDATE realtime_sessions SET source = 'upload' WHERE id = :id", id=session_id)
    await store.objects.delete(transcript_key(session_id))
    return session_id


async def test_the_first_version_of_an_upload_is_that_of_its_job(store: Store) -> None:
    session_id = await an_upload(store)
    with pytest.raises(TranscriptNotStored):
        await store.read(session_id)
    job_id = await store.writer.job(session_id, 1, BETTER, kind="upload")
    for wanted in (0, 1):
        with pytest.raises(SessionActive, match="is not transcribed to its end yet"):
            await store.read(session_id, wanted)
        with pytest.raises(SessionActive):
            await store.transcripts.page(store.tenant, session_id, wanted, 0, 10)
    await store.execute("DELETE FROM transcription_jobs WHERE id = :id", id=job_id)
    await store.execute("DELETE FROM transcript_utterances WHERE session_id = :id", id=session_id)
    await store.writer.version(session_id, 1, BETTER, kind="upload")
    assert await store.listed(session_id) == [(1, "upload", True)]
    assert await store.read(session_id) == await store.read(session_id, 1) == spoken(BETTER)
    page, _ = await store.transcripts.page(store.tenant, session_id, 0, 0, 10)
    assert [each.utterance.text for each in page] == ["the better words", "and more"]
    with pytest.raises(InvalidFilter):
        await store.delete(session_id, 1)


async def test_a_session_without_a_live_transcript_may_have_an_enhanced_one(store: Store) -> None:
    session_id = await store.session([])
    await store.execute(
        "UPDATE realtime_sessions SET store_transcript = false, transcript_uri = NULL WHERE id = :id", id=session_id
    )
    with pytest.raises(TranscriptNotStored):
        await store.listed(session_id)
    await store.writer.version(session_id, 2, BETTER)
    assert await store.read(session_id) == spoken(BETTER)
    assert (await store.sessions.get(store.tenant, session_id)).transcript_version == 2
    with pytest.raises(TranscriptNotStored):
        await store.read(session_id, 1)


async def a_chain(store: Store) -> tuple[uuid.UUID, uuid.UUID]:
    """Two sessions; the second begins 5 s after the first."""
    first = await store.session([an_utterance(0.5, "one"), an_utterance(4.0, "two"), an_utterance(6.0, "lost")])
    return first, await store.session([an_utterance(1.0, "three")], previous=first, resume=5.0)


JOINED = [an_utterance(0.5, "one"), an_utterance(4.0, "two and"), an_utterance(6.0, "three better")]


async def test_the_joined_transcript_is_the_join_of_the_current_versions(store: Store) -> None:
    first, last = await a_chain(store)
    live = [(0.5, "one"), (4.0, "two"), (6.0, "three")]
    assert await store.read(last, linked=True) == live
    assert await store.number(last, linked=True) == 1
    await store.writer.version(first, 2, [an_utterance(0.6, "ONE"), an_utterance(5.5, "lost too")])
    assert await store.read(last, linked=True) == [(0.6, "ONE"), (6.0, "three")]
    assert await store.number(last, linked=True) is None
    assert await store.read(last, 1, linked=True) == live
    await store.writer.version(last, 2, [an_utterance(1.5, "THREE")])
    assert await store.read(last, linked=True) == [(0.6, "ONE"), (6.5, "THREE")]
    with pytest.raises(InvalidFilter) as refusal:
        await store.read(last, 2, linked=True)
    assert refusal.value.parameter == "version"


async def test_the_newest_version_of_the_joined_recording_is_the_joined_transcript(store: Store) -> None:
    first, last = await a_chain(store)
    chain = await store.chain(last)
    await store.writer.version(last, 2, JOINED[:1], chain=chain, seconds=15.0)
    await store.writer.version(last, 3, JOINED, chain=chain, seconds=15.0)
    await store.writer.version(last, 4, JOINED[:2], chain=chain, seconds=15.0, verdict="doubtful")
    assert await store.read(last, linked=True) == spoken(JOINED)
    assert await store.read(last, 2, linked=True) == spoken(JOINED[:1])
    assert await store.number(last, linked=True) == 3
    chosen = await store.transcripts.choose(store.tenant, last, 0, linked=True)
    assert (chosen.document_key, chosen.seconds) == (version_key(last, 3), 15.0)
    # The live one, once it is the current one again.
    await store.versions.set_current(store.tenant, last, 1)
    assert await store.read(last, linked=True) == [(0.5, "one"), (4.0, "two"), (6.0, "three")]
    assert await store.read(first) == [(0.5, "one"), (4.0, "two"), (6.0, "lost")]


async def test_a_session_alone_reads_its_own_part_of_a_version_of_the_joined_recording(store: Store) -> None:
    _, last = await a_chain(store)
    torn = [*JOINED[:2], an_utterance(4.8, "across"), *JOINED[2:]]
    await store.writer.version(last, 2, torn, chain=await store.chain(last), seconds=15.0)
    assert await store.read(last) == [(1.0, "three")]
    await store.versions.set_current(store.tenant, last, 2)
    assert await store.read(last) == await store.read(last, 2) == [(0.0, "across"), (1.0, "three better")]
    chosen = await store.transcripts.choose(store.tenant, last, 0, linked=False)
    assert (chosen.number, chosen.seconds, chosen.document_key) == (2, 10.0, None)
    assert await store.read(last, 1) == [(1.0, "three")]


async def test_a_chain_that_has_grown_uses_a_version_of_its_beginning(store: Store) -> None:
    _, second = await a_chain(store)
    await store.writer.version(second, 2, JOINED, chain=await store.chain(second), seconds=15.0)
    third = await store.session([an_utterance(1.0, "four")], previous=second, resume=1.4)
    # "three better" begins before the third session, at 6.4 s, and its middle is after it.
    assert await store.read(third, linked=True) == [(0.5, "one"), (4.0, "two and"), (7.4, "four")]
    assert await store.read(second, linked=True) == spoken(JOINED)
    assert await store.read(third, 1, linked=True) == [(0.5, "one"), (4.0, "two"), (7.4, "four")]


async def test_a_version_of_a_recording_that_has_changed_is_read_by_its_number_only(store: Store) -> None:
    first, last = await a_chain(store)
    await store.writer.version(last, 2, JOINED, chain=await store.chain(last), seconds=15.0)
    await store.execute("UPDATE realtime_sessions SET stored_bytes = stored_bytes + 2 WHERE id = :id", id=first)
    assert await store.read(last, linked=True) == [(0.5, "one"), (4.0, "two"), (6.0, "three")]
    assert await store.read(last, 2, linked=True) == spoken(JOINED)


async def test_a_session_without_a_transcript_is_named_where_its_chain_is_read(store: Store) -> None:
    first, last = await a_chain(store)
    await store.execute(
        "UPDATE realtime_sessions SET store_transcript = false, transcript_uri = NULL WHERE id = :id", id=first
    )
    with pytest.raises(TranscriptNotStored, match=format_session_id(first)):
        await store.read(last, linked=True)


async def test_a_deleted_session_takes_the_versions_that_contain_it_with_it(store: Store) -> None:
    first, last = await a_chain(store)
    chain = await store.chain(last)
    await store.writer.version(last, 2, [an_utterance(0.5, "alone")])
    await store.writer.version(last, 3, JOINED, chain=chain)
    await delete_session(store.sessions, store.objects, store.tenant, first)
    assert await store.listed(last) == [(1, "live", False), (2, "enhanced", True)]
    with pytest.raises(ObjectNotFound):
        await store.objects.size(version_key(last, 3))
    assert await store.objects.size(version_key(last, 2))


async def test_a_waiting_job_of_a_recording_with_a_deleted_session_begins_anew(store: Store) -> None:
    first, last = await a_chain(store)
    await store.writer.job(last, 2, JOINED, chain=await store.chain(last), status="queued")
    await store.sessions.soft_delete(store.tenant, first)
    query = text("""
        SELECT j.status, j.chain,
            (SELECT count(*) FROM transcript_utterances AS u WHERE u.session_id = j.session_id) AS spoken
        FROM transcription_jobs AS j WHERE j.session_id = :id
    """)
    async with store.database.transaction() as connection:
        assert tuple((await connection.execute(query, {"id": last})).one()) == ("queued", None, 0)


async def test_a_deletion_waits_for_a_version_that_is_being_stored(store: Store) -> None:
    first, last = await a_chain(store)
    chain = await store.chain(last)
    job_id = await store.writer.job(last, 2, JOINED, chain=chain)
    async with store.database.transaction() as connection:
        lock = text("SELECT id FROM realtime_sessions WHERE id = :id FOR NO KEY UPDATE")
        await connection.execute(lock, {"id": last})
        deletion = asyncio.create_task(store.sessions.soft_delete(store.tenant, first))
        await asyncio.sleep(0.2)
        assert not deletion.done()
        insert = text("""
            INSERT INTO transcripts (session_id, version, kind, job_id, model, language, linked, audio_seconds,
                utterance_count, word_count, uri, verdict)
            VALUES (:id, 2, 'enhanced', :job_id, 'accurate', 'en', true, 15, 3, 5, 's3://b/t', 'accepted')
        """)
        await connection.execute(insert, {"id": last, "job_id": job_id})
        done = "UPDATE transcription_jobs SET status = 'completed', ended_at = now(), worker_id = NULL WHERE id = :id"
        await connection.execute(text(done), {"id": job_id})
    assert list(await deletion) == [(last, 2)]
    assert await store.listed(last) == [(1, "live", True)]
