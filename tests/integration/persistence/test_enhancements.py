"""The jobs of `enhance_on_end` on a real Postgres: exactly one for a recording, however often it is stored."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pytest
from sqlalchemy import text

from domain.job import format_job_id
from domain.session import EndReason
from domain.tenancy import Caller
from persistence.postgres.database import Database
from persistence.postgres.finals import NumberedUtterance
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects
from tests.integration.persistence.test_sessions import HELLO, NOON, a_start

Status = Literal["completed", "error", "interrupted"]


@dataclass
class Chain:
    """The sessions of one tenant and their jobs."""

    database: Database
    tenant: uuid.UUID
    rows: SessionRows
    store: SessionStore

    async def begin(self, **changes: Any) -> SessionStart:
        start = a_start(self.tenant, **{"enhance_on_end": True, **changes})
        await self.rows.admit(start, Caller(self.tenant))
        return start

    async def continue_(self, previous: SessionStart, **changes: Any) -> SessionStart:
        return await self.begin(previous_session_id=previous.id, **changes)

    async def conclude(self, start: SessionStart, seconds: float, status: Status = "completed") -> None:
        await self.rows.conclude(start.id, Conclusion(EndReason(status), NOON, Progress(seconds)))

    async def store_audio(self, start: SessionStart, seconds: float) -> None:
        uri = f"s3://b/{start.id}" if start.store_audio else None
        await self.rows.set_stored(
            start.id, StoredObjects(uri, "s3://b/t"), audio_seconds=seconds, stored_bytes=int(seconds * 32_000)
        )

    async def end(self, start: SessionStart, seconds: float, status: Status = "completed") -> None:
        await self.conclude(start, seconds, status)
        await self.store_audio(start, seconds)

    async def jobs(self, *starts: SessionStart) -> Sequence[Any]:
        query = text("SELECT * FROM transcription_jobs WHERE session_id = ANY(:ids) ORDER BY created_at, id")
        async with self.database.transaction() as connection:
            return (await connection.execute(query, {"ids": [start.id for start in starts]})).all()

    async def job(self, start: SessionStart) -> Any:
        (job,) = await self.jobs(start)
        return job

    async def set_job(self, job_id: uuid.UUID, **values: Any) -> None:
        """What a worker writes."""
        ended = ", ended_at = now(), worker_id = NULL" if values["status"] in ("completed", "failed") else ""
        worker = ", worker_id = 'w', started_at = now()" if values["status"] == "running" else ""
        names = ", ".join(f"{name} = :{name}" for name in values)
        async with self.database.transaction() as connection:
            statement = f"UPDATE transcription_jobs SET {names}{ended}{worker} WHERE id = :id"  # noqa: S608
            await connection.execute(text(statement), {**values, "id": job_id})


@pytest.fixture
def chain(database: Database, tenant: uuid.UUID) -> Chain:
    return Chain(database, tenant, SessionRows(database, "worker"), SessionStore(database))


async def test_the_end_of_a_session_creates_one_job_of_its_own_id(chain: Chain) -> None:
    start = await chain.begin(language="es", vocabulary=("Norland", "Dashwood"))
    await chain.conclude(start, 12.5)
    assert await chain.jobs(start) == [], "the audio is not stored yet"
    await chain.store_audio(start, 12.5)
    job = await chain.job(start)
    assert (job.id, job.tenant_id, job.kind, job.status) == (start.id, chain.tenant, "enhance", "queued")
    assert (job.model, job.language, job.vocabulary) == ("accurate", "es", ["Norland", "Dashwood"])
    assert (job.linked, job.audio_seconds, job.requested_by) == (False, 12.5, None)
    assert job.due_at == job.created_at
    record = await chain.store.get(chain.tenant, start.id)
    assert record.enhancement_job_id == format_job_id(start.id)
    assert record.enhancement is not None
    assert record.enhancement.status == "queued"


@pytest.mark.parametrize("times", [2, 5])
async def test_repeating_the_end_creates_no_second_job(chain: Chain, times: int) -> None:
    start = await chain.begin()
    await chain.conclude(start, 8.0)
    for _ in range(times):
        await chain.store_audio(start, 8.0)
    assert (await chain.job(start)).id == start.id
    await chain.set_job(start.id, status="completed")
    await chain.store_audio(start, 8.0)
    assert (await chain.job(start)).status == "completed"


async def test_the_job_of_an_interrupted_session_waits_for_a_client_to_continue_it(chain: Chain) -> None:
    for status in ("interrupted", "error"):
        start = await chain.begin()
        await chain.end(start, 8.0, "interrupted" if status == "interrupted" else "error")
        job = await chain.job(start)
        assert job.due_at - job.created_at == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [({"enhance_on_end": False}, 8.0), ({}, 0.0), ({"enhance_on_end": False, "store_audio": False}, 8.0)],
)
async def test_a_session_that_asked_for_none_or_has_no_audio_gets_no_job(
    chain: Chain, changes: dict[str, Any], seconds: float
) -> None:
    start = await chain.begin(**changes)
    await chain.end(start, seconds)
    assert await chain.jobs(start) == []
    assert (await chain.store.get(chain.tenant, start.id)).enhancement_job_id is None


async def test_a_deleted_session_gets_no_job(chain: Chain) -> None:
    start = await chain.begin()
    await chain.conclude(start, 8.0)
    await chain.store.soft_delete(chain.tenant, start.id)
    await chain.store_audio(start, 8.0)
    assert await chain.jobs(start) == []


async def test_the_language_is_the_one_asked_for_and_not_the_one_detected(chain: Chain) -> None:
    start = await chain.begin(language="auto")
    await chain.rows.write({start.id: Progress(8.0, 1, 1, "fr")})
    await chain.end(start, 8.0)
    assert (await chain.store.get(chain.tenant, start.id)).language == "fr"
    assert (await chain.job(start)).language == "auto"


@pytest.mark.parametrize(("probability", "expected"), [(0.9, "auto"), (None, "fr")])
async def test_a_session_of_the_previous_release_shows_its_language_by_its_finals(
    chain: Chain, probability: float | None, expected: str
) -> None:
    start = await chain.begin(language="auto")
    final = NumberedUtterance(
        start.id, 0, HELLO.__class__(0.5, 1.0, "bon", 0.5, "fr", language_probability=probability)
    )
    await chain.rows.write({start.id: Progress(8.0, 1, 1, "fr")}, [final])
    async with chain.database.transaction() as connection:
        await connection.execute(
            text("UPDATE realtime_sessions SET requested_language = NULL WHERE id = :id"), {"id": start.id}
        )
    await chain.end(start, 8.0)
    assert (await chain.job(start)).language == expected


async def test_audio_that_is_added_after_the_job_makes_another(chain: Chain) -> None:
    start = await chain.begin()
    await chain.end(start, 8.0, "interrupted")
    for status in ("running", "completed"):
        await chain.set_job(start.id, status=status)
        if status == "running":
            await chain.store_audio(start, 11.0)
            assert len(await chain.jobs(start)) == 1, "never two at once"
            await chain.store_audio(start, 8.0)
    await chain.store_audio(start, 11.0)
    first, second = await chain.jobs(start)
    assert (first.id, first.status) == (start.id, "completed")
    assert (second.status, second.audio_seconds, second.id.version) == ("queued", 11.0, 7)
    await chain.store_audio(start, 11.0)
    assert len(await chain.jobs(start)) == 2
    await chain.set_job(second.id, status="failed")
    await chain.store_audio(start, 11.0)
    assert len(await chain.jobs(start)) == 2
    record = await chain.store.get(chain.tenant, start.id)
    assert record.enhancement_job_id == format_job_id(second.id)


async def test_audio_that_is_added_after_its_job_was_canceled_makes_none(chain: Chain) -> None:
    start = await chain.begin()
    await chain.end(start, 8.0)
    async with chain.database.transaction() as connection:
        canceled = "UPDATE transcription_jobs SET status = 'canceled', ended_at = now() WHERE id = :id"
        await connection.execute(text(canceled), {"id": start.id})
    await chain.store_audio(start, 11.0)
    assert len(await chain.jobs(start)) == 1


async def test_a_session_that_continues_another_takes_its_job_over(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    second = await chain.continue_(first, resume_from_seconds=6.0)
    job = await chain.job(first)
    assert (job.status, job.error_code) == ("canceled", "continued")
    assert job.ended_at is not None
    await chain.end(second, 5.0)
    job = await chain.job(second)
    assert (job.status, job.linked, job.audio_seconds) == ("queued", True, 11.0)
    assert (await chain.job(first)).status == "canceled"
    # The finisher of the first one comes again.
    await chain.store_audio(first, 8.0)
    assert (await chain.job(first)).status == "canceled"


async def test_a_session_that_is_continued_before_it_is_stored_leaves_a_canceled_job(chain: Chain) -> None:
    first = await chain.begin()
    await chain.conclude(first, 8.0, "interrupted")
    second = await chain.continue_(first)
    await chain.store_audio(first, 8.0)
    job = await chain.job(first)
    assert (job.id, job.status, job.error_code) == (first.id, "canceled", "continued")
    await chain.end(second, 0.0)
    assert (await chain.job(first)).status == "queued", "nothing was added"


async def test_a_job_that_runs_goes_on_when_its_session_is_continued(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    await chain.set_job(first.id, status="running")
    second = await chain.continue_(first)
    await chain.end(second, 5.0)
    assert (await chain.job(first)).status == "running"
    assert (await chain.job(second)).linked


async def test_the_job_comes_back_when_the_later_session_is_refused(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    second = await chain.continue_(first)
    await chain.rows.end_refused("no capacity", NOON, [second.id])
    job = await chain.job(first)
    assert (job.status, job.error_code, job.error, job.ended_at) == ("queued", None, None, None)
    assert job.due_at - job.created_at >= timedelta(seconds=60)
    assert await chain.jobs(second) == []


async def test_the_job_comes_back_when_the_later_sessions_have_no_audio(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    second = await chain.continue_(first)
    await chain.end(second, 0.0, "interrupted")
    assert (await chain.job(first)).status == "queued"
    third = await chain.continue_(second)
    assert (await chain.job(first)).status == "canceled", "the third continues the first through the second"
    await chain.end(third, 0.0, "interrupted")
    assert (await chain.job(first)).status == "queued"
    fourth = await chain.continue_(third)
    await chain.end(fourth, 3.0)
    assert [job.status for job in await chain.jobs(first, second, third, fourth)] == ["canceled", "queued"]
    assert (await chain.job(fourth)).audio_seconds == 11.0


async def test_the_job_comes_back_when_the_later_session_is_deleted(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    second = await chain.continue_(first)
    await chain.end(second, 3.0)
    await chain.store.soft_delete(chain.tenant, second.id)
    await chain.store.soft_delete(chain.tenant, second.id)
    assert (await chain.job(first)).status == "queued"


async def test_a_job_that_the_tenant_canceled_does_not_come_back(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    async with chain.database.transaction() as connection:
        canceled = "UPDATE transcription_jobs SET status = 'canceled', ended_at = now() WHERE id = :id"
        await connection.execute(text(canceled), {"id": first.id})
    second = await chain.continue_(first)
    await chain.end(second, 0.0)
    assert (await chain.job(first)).status == "canceled"


async def test_a_later_session_without_a_job_or_audio_leaves_the_job_of_the_first(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    plain = await chain.continue_(first, enhance_on_end=False)
    assert (await chain.job(first)).status == "queued"
    await chain.end(plain, 3.0)
    assert (await chain.job(first)).status == "queued"
    apart = await chain.begin()
    await chain.end(apart, 8.0, "interrupted")
    gap = await chain.continue_(apart, enhance_on_end=False, store_audio=False)
    await chain.end(gap, 3.0)
    last = await chain.continue_(gap)
    await chain.end(last, 4.0)
    assert (await chain.job(apart)).status == "queued", "its audio cannot be joined with that of the last"
    job = await chain.job(last)
    assert (job.linked, job.audio_seconds) == (False, 4.0)


async def test_what_a_superseded_job_had_transcribed_is_removed(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    async with chain.database.transaction() as connection:
        await connection.execute(
            text("UPDATE transcription_jobs SET version = 2, done_seconds = 4, done_windows = 1 WHERE id = :id"),
            {"id": first.id},
        )
        await connection.execute(
            text("INSERT INTO transcript_utterances VALUES (:id, 2, 0, 0, 1, 'x', 1, 'en', '[]')"), {"id": first.id}
        )
    second = await chain.continue_(first)
    async with chain.database.transaction() as connection:
        counted = text("SELECT count(*) FROM transcript_utterances WHERE session_id = :id")
        assert (await connection.execute(counted, {"id": first.id})).scalar_one() == 0
    await chain.end(second, 0.0)
    job = await chain.job(first)
    assert (job.status, job.version, job.done_seconds, job.done_windows) == ("queued", 2, 0, 0)


async def test_a_restored_session_has_its_job_once(chain: Chain) -> None:
    first = await chain.begin()
    await chain.end(first, 8.0, "interrupted")
    second = await chain.continue_(first)
    await chain.end(second, 3.0)
    async with chain.database.transaction() as connection:
        # A failover loses the later session with its job, and the cancellation.
        await connection.execute(text("DELETE FROM realtime_sessions WHERE id = :id"), {"id": second.id})
        await connection.execute(text("DELETE FROM deleted_sessions WHERE id = :id"), {"id": second.id})
        lost = "UPDATE transcription_jobs SET status = 'queued', ended_at = NULL, error_code = NULL WHERE id = :id"
        await connection.execute(text(lost), {"id": first.id})
    assert await chain.rows.restore([second]) == {second.id}
    assert (await chain.job(first)).status == "canceled"
    await chain.end(second, 3.0)
    await chain.end(second, 3.0)
    assert (await chain.job(second)).linked
    assert (await chain.job(first)).status == "canceled"


async def test_ends_continuations_and_claims_at_once_leave_one_waiting_job(chain: Chain) -> None:
    for _ in range(10):
        first = await chain.begin()
        await chain.conclude(first, 8.0, "interrupted")
        results = await asyncio.gather(
            chain.store_audio(first, 8.0),
            chain.store_audio(first, 8.0),
            chain.continue_(first, resume_from_seconds=8.0),
        )
        second = results[2]
        assert (await chain.job(first)).status == "canceled"
        await asyncio.gather(chain.end(second, 2.0), chain.store_audio(first, 8.0), chain.store_audio(first, 8.0))
        assert [job.status for job in await chain.jobs(first, second)] == ["canceled", "queued"]


async def test_an_empty_end_and_another_continuation_at_once_do_not_deadlock(chain: Chain) -> None:
    for _ in range(10):
        first = await chain.begin()
        await chain.end(first, 8.0, "interrupted")
        second = await chain.continue_(first)
        await chain.conclude(second, 0.0, "interrupted")
        _, third = await asyncio.gather(chain.store_audio(second, 0.0), chain.continue_(first))
        assert (await chain.job(first)).status == "canceled"
        await chain.end(third, 1.0)
        assert [job.status for job in await chain.jobs(first, second, third)] == ["canceled", "queued"]
