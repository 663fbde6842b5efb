"""Verify finds every kind of damage of versions and jobs, and the reaper deletes what is left of versions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from domain.errors import StorageUnavailable, TranscriptNotFound
from domain.session_id import parse_session_id
from domain.tenancy import DEFAULT_TENANT_ID
from domain.transcript import Utterance
from persistence.postgres.chains import ChainStore
from persistence.s3.keys import transcript_key, version_key
from persistence.verify import verify
from tests.integration.persistence.test_delete_steps import Killed, kill_at
from tests.integration.persistence.test_reaper import a_reaper
from tests.integration.persistence.test_verify import SHORT_LEASE, kinds, recorded
from tests.versions import VersionWriter

pytestmark = pytest.mark.usefixtures("empty_store")

BETTER = [Utterance(0.0, 0.2, "better words", 0.5, "en", 0.9), Utterance(0.3, 0.5, "and more", 0.5, "en")]


class Planted:
    """A session with a version, and what damages it."""

    def __init__(self, harness: Any, session_id: str) -> None:
        self.harness = harness
        self.session_id = session_id
        self.id: UUID = parse_session_id(session_id)
        self.writer = VersionWriter(harness.database, harness.objects)

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.harness.database.transaction() as connection:
            await connection.execute(text(statement), {"id": self.id, **values} if ":id" in statement else values)

    async def one(self, query: str) -> Any:
        async with self.harness.database.transaction() as connection:
            return (await connection.execute(text(query), {"id": self.id})).scalar_one()

    @property
    def key(self) -> str:
        return version_key(self.id, 2)


async def lose_the_object(planted: Planted) -> None:
    await planted.harness.objects.delete(planted.key)


async def damage_the_object(planted: Planted) -> None:
    await planted.harness.objects.put(planted.key, b"{", "application/json")


async def change_the_object(planted: Planted) -> None:
    await planted.harness.objects.put(planted.key, b'{"utterances": [], "language": "en"}', "application/json")


async def lose_the_utterances(planted: Planted) -> None:
    await planted.execute("DELETE FROM transcript_utterances WHERE session_id = :id")


async def lose_an_utterance_and_the_object(planted: Planted) -> None:
    await planted.execute("DELETE FROM transcript_utterances WHERE session_id = :id AND index = 1")
    await lose_the_object(planted)


async def lose_the_row(planted: Planted) -> None:
    await planted.execute("DELETE FROM transcripts WHERE session_id = :id")


async def interrupt_a_deletion(planted: Planted) -> None:
    await planted.execute("UPDATE realtime_sessions SET current_version = NULL WHERE id = :id")
    await lose_the_row(planted)
    await lose_the_utterances(planted)


async def plant_an_object(planted: Planted) -> None:
    await planted.harness.objects.put(version_key(planted.id, 9), b"{}", "application/json")


async def name_a_current_version_that_is_not_there(planted: Planted) -> None:
    await planted.execute("UPDATE realtime_sessions SET current_version = 7 WHERE id = :id")


async def fail_a_job_without_cleaning_up(planted: Planted) -> None:
    await planted.writer.job(planted.id, 3, BETTER, status="failed")


async def leave_a_job_running(planted: Planted) -> None:
    await planted.writer.job(planted.id, 3, BETTER, status="running", worker_id="dead")


async def lose_the_job(planted: Planted) -> None:
    await planted.execute("UPDATE realtime_sessions SET enhance_on_end = true, current_version = NULL WHERE id = :id")
    for table in ("transcripts", "transcript_utterances", "transcription_jobs"):
        await planted.execute(f"DELETE FROM {table} WHERE session_id = :id")  # noqa: S608
    await lose_the_object(planted)


@pytest.mark.parametrize(
    ("damage", "found", "remaining"),
    [
        (lose_the_object, ["version_missing"], []),
        (damage_the_object, ["version_damaged"], []),
        (change_the_object, ["version_differs"], []),
        (lose_the_utterances, ["version_utterances"], []),
        (lose_an_utterance_and_the_object, ["version_missing", "version_utterances"], None),
        (lose_the_row, ["current_version", "job_without_version"], []),
        (interrupt_a_deletion, ["version_left"], []),
        (plant_an_object, ["version_without_row"], None),
        (name_a_current_version_that_is_not_there, ["current_version"], []),
        (fail_a_job_without_cleaning_up, ["utterances_left"], []),
        (leave_a_job_running, ["job_without_worker"], []),
        (lose_the_job, ["job_missing"], []),
    ],
)
async def test_every_kind_of_damage_of_versions_is_found_and_repaired_where_safe(
    build_harness: Any,
    client_of: Any,
    damage: Callable[[Planted], Awaitable[None]],
    found: list[str],
    remaining: list[str] | None,
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        session_id = await recorded(harness, client_of)
        planted = Planted(harness, session_id)
        await planted.writer.version(planted.id, 2, BETTER)
        before = await harness.objects.read(planted.key)
        settings = harness.settings.model_copy(update=SHORT_LEASE)
        assert kinds(await verify(settings), session_id) == []
        await damage(planted)
        assert kinds(await verify(settings), session_id) == found
        await verify(settings, repair=True)
        assert kinds(await verify(settings), session_id) == (found if remaining is None else remaining)
        if found[0].startswith("version_") and remaining == [] and damage is not interrupt_a_deletion:
            assert await harness.objects.read(planted.key) == before
        await harness.delete_session(session_id)
        assert await harness.objects.list(f"sessions/{session_id}/") == []


async def test_a_restored_row_of_the_current_version_is_accepted(build_harness: Any, client_of: Any) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        planted = Planted(harness, await recorded(harness, client_of))
        await planted.writer.version(planted.id, 2, BETTER)
        columns = "t.version, t.kind, t.model, t.language, t.linked, t.audio_seconds, t.utterance_count, t.word_count"
        query = f"SELECT ROW({columns}, t.verdict, t.uri)::text FROM transcripts AS t WHERE session_id = :id"  # noqa: S608
        before = await planted.one(query)
        await lose_the_row(planted)
        await verify(harness.settings.model_copy(update=SHORT_LEASE), repair=True)
        assert await planted.one(query) == before


@pytest.fixture
async def without_foreign_key(database: Any) -> AsyncIterator[None]:
    """The constraint forbids what the test plants."""
    name = "fk_transcription_jobs_session_id"
    async with database.transaction() as connection:
        query = text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")
        definition = (await connection.execute(query, {"name": name})).scalar_one()
        await connection.exec_driver_sql(f"ALTER TABLE transcription_jobs DROP CONSTRAINT {name}")
    yield
    async with database.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM transcription_jobs")
        await connection.exec_driver_sql(f"ALTER TABLE transcription_jobs ADD CONSTRAINT {name} {definition}")


@pytest.mark.usefixtures("without_foreign_key")
async def test_a_job_whose_session_has_no_row_is_found_and_deleted(build_harness: Any, client_of: Any) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        planted = Planted(harness, await recorded(harness, client_of))
        await planted.writer.job(planted.id, None, status="queued")
        async with harness.database.transaction() as connection:
            await connection.exec_driver_sql("DELETE FROM realtime_sessions WHERE id = $1", (planted.id,))
        settings = harness.settings.model_copy(update=SHORT_LEASE)
        assert "job_without_session" in kinds(await verify(settings), planted.session_id)
        await verify(settings, repair=True)
        assert "job_without_session" not in kinds(await verify(settings), planted.session_id)
        async with harness.database.transaction() as connection:
            await connection.exec_driver_sql("INSERT INTO deleted_sessions VALUES ($1, now())", (planted.id,))
        await verify(settings.model_copy(update={"orphan_age_seconds": 0.0}), repair=True)


async def test_a_version_that_contains_a_deleted_session_is_found_and_deleted(
    build_harness: Any, client_of: Any
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        first, last = [Planted(harness, await recorded(harness, client_of)) for _ in range(2)]
        await last.execute("UPDATE realtime_sessions SET previous_session_id = :first WHERE id = :id", first=first.id)
        tenant_id = (await harness.row_of(last.session_id))["tenant_id"]
        chain = await ChainStore(harness.database).read(tenant_id, last.id, linked=True)
        await last.writer.version(last.id, 2, BETTER, chain=chain)
        await first.execute("UPDATE realtime_sessions SET deleted_at = now() WHERE id = :id")
        settings = harness.settings.model_copy(update=SHORT_LEASE)
        assert kinds(await verify(settings), last.session_id) == ["version_has_deleted"]
        await verify(settings, repair=True)
        assert kinds(await verify(settings), last.session_id) == []
        assert (await harness.record(last.session_id)).transcript_version == 1


async def test_a_running_job_of_a_living_worker_is_left_alone(build_harness: Any, client_of: Any) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        planted = Planted(harness, await recorded(harness, client_of))
        await planted.writer.job(planted.id, 2, BETTER, worker_id=harness.settings.worker_id)
        # Its document is written before its row.
        await planted.harness.objects.put(planted.key, b"{}", "application/json")
        assert kinds(await verify(harness.settings), planted.session_id) == []


async def test_the_reaper_deletes_what_is_left_of_versions_and_nothing_else(build_harness: Any, client_of: Any) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        left, kept, lost = [Planted(harness, await recorded(harness, client_of)) for _ in range(3)]
        for planted in (left, kept, lost):
            await planted.writer.version(planted.id, 2, BETTER)
        await interrupt_a_deletion(left)
        await lose_the_row(lost)
        await plant_an_object(lost)
        await kept.writer.job(kept.id, 3, BETTER)
        await kept.harness.objects.put(version_key(kept.id, 3), b"{}", "application/json")
        reaper, _ = await a_reaper(harness, orphan_age_seconds=-1.0, delete_age_seconds=1000.0)
        for _ in range(3):
            await reaper.run_once()
        for planted in (left, kept, lost):
            assert await harness.objects.size(transcript_key(planted.id))
        assert await harness.objects.list(f"sessions/{left.session_id}/transcripts/") == []
        listed = await harness.objects.list(f"sessions/{kept.session_id}/transcripts/")
        assert listed == [version_key(kept.id, 2), version_key(kept.id, 3)]
        listed = await harness.objects.list(f"sessions/{lost.session_id}/transcripts/")
        assert listed == [version_key(lost.id, 2), version_key(lost.id, 9)]


async def test_the_deletion_of_a_version_killed_at_any_step_is_completed_by_the_reaper(
    build_harness: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 0
    async with build_harness(reap_seconds=1000.0) as harness:
        planted = Planted(harness, await recorded(harness, client_of))
        for step in range(10):
            version = step + 2
            await planted.writer.version(planted.id, version, BETTER)
            is_over = True
            with monkeypatch.context() as patch:
                kill_at(step, patch)
                try:
                    await harness.persistence.delete_transcript(DEFAULT_TENANT_ID, planted.id, version)
                except Killed:
                    is_over = False
                    kills += 1
            record = await harness.record(planted.session_id)
            # Before its rows are deleted the version is there as it was.
            assert record.transcript_version == (version if step == 0 else 1)
            if step == 0:
                await harness.persistence.delete_transcript(DEFAULT_TENANT_ID, planted.id, version)
            reaper, _ = await a_reaper(harness, orphan_age_seconds=-1.0, delete_age_seconds=1000.0)
            for _ in range(2):
                await reaper.run_once()
            assert await harness.objects.list(f"sessions/{planted.session_id}/transcripts/") == []
            assert kinds(await verify(harness.settings), planted.session_id) == []
            if is_over:
                break
    assert kills >= 2


async def test_a_version_is_deleted_although_s3_is_away_and_its_object_is_deleted_later(
    build_harness: Any, client_of: Any
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        planted = Planted(harness, await recorded(harness, client_of))
        await planted.writer.version(planted.id, 2, BETTER)
        harness.s3.refuse()
        await harness.persistence.delete_transcript(DEFAULT_TENANT_ID, planted.id, 2)
        assert (await harness.record(planted.session_id)).transcript_version == 1
        assert await harness.objects.size(planted.key)
        harness.s3.restore()
        settings = harness.settings.model_copy(update=SHORT_LEASE)
        assert kinds(await verify(settings), planted.session_id) == ["version_left"]
        reaper, _ = await a_reaper(harness, orphan_age_seconds=-1.0, delete_age_seconds=1000.0)
        await reaper.run_once()
        assert await harness.objects.list(f"sessions/{planted.session_id}/transcripts/") == []


async def test_a_version_that_is_deleted_while_it_is_read_is_unavailable_and_not_found_afterwards(
    build_harness: Any, client_of: Any
) -> None:
    async with build_harness(reap_seconds=1000.0) as harness:
        planted = Planted(harness, await recorded(harness, client_of))
        await planted.writer.version(planted.id, 2, BETTER)
        chosen = await harness.transcript_of(planted.session_id, 2)
        await harness.persistence.delete_transcript(DEFAULT_TENANT_ID, planted.id, 2)
        with pytest.raises(StorageUnavailable):
            await harness.persistence.archive.document_file(chosen.document_key)
        with pytest.raises(TranscriptNotFound):
            await harness.transcript_of(planted.session_id, 2)
