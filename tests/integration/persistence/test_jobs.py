"""The store of batch jobs on a real Postgres."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from domain.errors import (
    AudioNotStored,
    EnhancementRunning,
    InvalidFilter,
    JobActive,
    JobNotFound,
    NoEnhancement,
    SessionActive,
    SessionNotFound,
    TooManyJobs,
)
from domain.job import JobRecord, JobRequest, format_job_id
from domain.session_id import new_uuid7
from domain.tenancy import Caller
from persistence.postgres.database import Database
from persistence.postgres.jobs import JobFilter, JobStore, Requester
from persistence.postgres.lease import Lease
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.session_values import Conclusion, Progress, SessionStart, StoredObjects
from tests.integration.persistence.test_sessions import DONE, a_start

REQUEST = JobRequest("accurate", "fr", ("Norland",))
MOST = 100


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def rows(database: Database) -> SessionRows:
    return SessionRows(database, "worker")


@pytest.fixture
def requester(tenant: uuid.UUID) -> Requester:
    return Requester(tenant, uuid.uuid4(), MOST)


@pytest.fixture
async def other_tenant(database: Database) -> uuid.UUID:
    tenant_id = uuid.uuid4()
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO tenants (id, name) VALUES (:id, :name)"), {"id": tenant_id, "name": str(tenant_id)}
        )
    return tenant_id


Make = Callable[..., Awaitable[SessionStart]]


@pytest.fixture
def make(rows: SessionRows, tenant: uuid.UUID) -> Make:
    """Makes a stored session."""

    async def a_session(seconds: float = 10.0, *, stored: bool = True, **changes: Any) -> SessionStart:
        start = a_start(changes.pop("tenant_id", tenant), **changes)
        await rows.admit(start, Caller(start.tenant_id))
        await rows.conclude(start.id, Conclusion(DONE.end_reason, DONE.ended_at, Progress(seconds)))
        if stored:
            uri = "s3://b/a" if start.store_audio else None
            await rows.set_stored(start.id, StoredObjects(uri, "s3://b/t"), audio_seconds=seconds)
        return start

    return a_session


@pytest.fixture
def write(database: Database) -> Callable[..., Awaitable[None]]:
    """Writes what a worker does."""

    async def execute(statement: str, **values: Any) -> None:
        async with database.transaction() as connection:
            await connection.execute(text(statement), values)

    return execute


Write = Callable[..., Awaitable[None]]
BEGIN = (
    "UPDATE transcription_jobs SET status = 'running', worker_id = 'w', attempts = attempts + 1, started_at = now()"
    " WHERE id = :id"
)
COMPLETE = "UPDATE transcription_jobs SET status = 'completed', worker_id = NULL, ended_at = now() WHERE id = :id"


async def test_a_job_is_created_with_what_was_asked_for(jobs: JobStore, make: Make, requester: Requester) -> None:
    start = await make()
    job = await jobs.create(requester, start.id, REQUEST)
    assert job == JobRecord(
        id=job.id,
        tenant_id=requester.tenant_id,
        session_id=start.id,
        kind="enhance",
        status="queued",
        step="worker",
        request=REQUEST,
        audio_seconds=10.0,
        done_seconds=0.0,
        created_at=job.created_at,
        started_at=None,
        ended_at=None,
        cancel_requested=False,
        attempts=0,
        version=None,
        verdict=None,
        verdict_reason=None,
        error=None,
        error_code=None,
        queue_position=0,
        eta_seconds=None,
    )
    assert job.id.version == 7
    assert await jobs.get(requester.tenant_id, job.id) == job
    assert await jobs.newest(requester.tenant_id, start.id) == job


async def test_only_stored_audio_is_transcribed_again(jobs: JobStore, make: Make, requester: Requester) -> None:
    with pytest.raises(AudioNotStored):
        await jobs.create(requester, (await make(store_audio=False)).id, REQUEST)
    with pytest.raises(SessionActive):
        await jobs.create(requester, (await make(stored=False)).id, REQUEST)
    with pytest.raises(SessionNotFound):
        await jobs.create(requester, new_uuid7(), REQUEST)


async def test_a_session_has_one_unended_job(jobs: JobStore, make: Make, requester: Requester, write: Write) -> None:
    start = await make()
    results = await asyncio.gather(
        *(jobs.create(requester, start.id, REQUEST) for _ in range(5)), return_exceptions=True
    )
    (job,) = (each for each in results if isinstance(each, JobRecord))
    refused = [each for each in results if isinstance(each, EnhancementRunning)]
    assert [each.job_id for each in refused] == [format_job_id(job.id)] * 4
    await write(BEGIN, id=job.id)
    with pytest.raises(EnhancementRunning, match=format_job_id(job.id)):
        await jobs.create(requester, start.id, REQUEST)
    await write(COMPLETE, id=job.id)
    again = await jobs.create(requester, start.id, replace(REQUEST, model="fast"))
    assert await jobs.newest(requester.tenant_id, start.id) == again


async def test_a_tenant_has_a_limit_of_queued_jobs_that_ends_of_sessions_do_not_have(
    jobs: JobStore, make: Make, requester: Requester, write: Write
) -> None:
    limited = replace(requester, max_queued=2)
    starts = [await make() for _ in range(4)]
    results = await asyncio.gather(
        *(jobs.create(limited, start.id, REQUEST) for start in starts), return_exceptions=True
    )
    made = [each for each in results if isinstance(each, JobRecord)]
    assert len(made) == 2
    assert sum(isinstance(each, TooManyJobs) for each in results) == 2
    await make(enhance_on_end=True)
    assert len((await jobs.list(requester.tenant_id, JobFilter(status="queued"))).jobs) == 3
    for job in made:
        await write(BEGIN, id=job.id)
    left = next(start for start, each in zip(starts, results, strict=True) if isinstance(each, TooManyJobs))
    await jobs.create(limited, left.id, REQUEST)
    with pytest.raises(TooManyJobs, match="0 jobs"):
        await jobs.create(replace(requester, max_queued=0), (await make()).id, REQUEST)


async def test_the_joined_recording_is_the_default_where_there_is_one(
    jobs: JobStore, make: Make, requester: Requester
) -> None:
    first = await make(8.0)
    second = await make(5.0, previous_session_id=first.id, resume_from_seconds=6.0)
    job = await jobs.create(requester, second.id, REQUEST)
    assert (job.request.linked, job.audio_seconds) == (True, 11.0)
    await jobs.cancel(requester.tenant_id, job.id)
    job = await jobs.create(requester, second.id, REQUEST, linked=False)
    assert (job.request.linked, job.audio_seconds) == (False, 5.0)
    assert not (await jobs.create(requester, first.id, REQUEST, linked=True)).request.linked


async def test_a_recording_that_cannot_be_joined_is_refused_if_it_was_asked_for(
    jobs: JobStore, make: Make, requester: Requester
) -> None:
    first = await make(store_audio=False)
    second = await make(previous_session_id=first.id)
    with pytest.raises(AudioNotStored, match=first.id.hex):
        await jobs.create(requester, second.id, REQUEST, linked=True)
    assert not (await jobs.create(requester, second.id, REQUEST)).request.linked


@pytest.mark.parametrize("language", ["auto", "es"])
async def test_the_language_that_a_session_asked_for_is_known(
    jobs: JobStore, make: Make, rows: SessionRows, tenant: uuid.UUID, language: str
) -> None:
    start = await make(language=language)
    await rows.set_stored(start.id, StoredObjects("s3://b/a", "s3://b/t"), language="es")
    assert await jobs.requested_language(tenant, start.id) == language
    with pytest.raises(SessionNotFound):
        await jobs.requested_language(tenant, new_uuid7())


async def test_tenants_do_not_see_each_others_jobs(
    jobs: JobStore, make: Make, requester: Requester, other_tenant: uuid.UUID
) -> None:
    start = await make()
    job = await jobs.create(requester, start.id, REQUEST)
    stranger = Requester(other_tenant, None, MOST)
    for call in (jobs.get(other_tenant, job.id), jobs.cancel(other_tenant, job.id), jobs.retry(stranger, job.id)):
        with pytest.raises(JobNotFound):
            await call
    for of_session in (jobs.newest(other_tenant, start.id), jobs.create(stranger, start.id, REQUEST)):
        with pytest.raises(SessionNotFound):
            await of_session
    with pytest.raises(SessionNotFound):
        await jobs.requested_language(other_tenant, start.id)
    assert (await jobs.list(other_tenant)).jobs == ()
    assert (await jobs.list(other_tenant, JobFilter(session_id=start.id))).jobs == ()
    assert (await jobs.get(requester.tenant_id, job.id)).status == "queued"


async def test_the_list_is_newest_first_and_pages_by_cursor(
    jobs: JobStore, make: Make, requester: Requester, tenant: uuid.UUID, write: Write
) -> None:
    starts = [await make() for _ in range(5)]
    made = [await jobs.create(requester, start.id, REQUEST) for start in starts]
    await write(BEGIN, id=made[0].id)
    found, cursor = [], None
    while True:
        page = await jobs.list(tenant, limit=2, cursor=cursor)
        found += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [job.id for job in reversed(made)]
    running = (await jobs.list(tenant, JobFilter(status="running"))).jobs
    assert [job.id for job in running] == [made[0].id]
    assert [job.id for job in (await jobs.list(tenant, JobFilter(session_id=starts[3].id))).jobs] == [made[3].id]
    assert (await jobs.list(tenant, JobFilter(kind="upload"))).jobs == ()


@pytest.mark.parametrize(
    ("job_filter", "limit", "cursor", "parameter"),
    [
        (JobFilter(status="asleep"), 50, None, "status"),
        (JobFilter(kind="other"), 50, None, "kind"),
        (JobFilter(), 0, None, "limit"),
        (JobFilter(), 101, None, "limit"),
        (JobFilter(), 50, "none", "cursor"),
    ],
)
async def test_a_filter_out_of_range_is_refused_by_name(
    jobs: JobStore, tenant: uuid.UUID, job_filter: JobFilter, limit: int, cursor: str | None, parameter: str
) -> None:
    with pytest.raises(InvalidFilter) as refused:
        await jobs.list(tenant, job_filter, limit, cursor)
    assert refused.value.parameter == parameter


async def test_a_queued_job_is_canceled_at_once_and_loses_what_it_had_transcribed(
    jobs: JobStore, make: Make, requester: Requester, tenant: uuid.UUID, write: Write, database: Database
) -> None:
    start = await make()
    job = await jobs.create(requester, start.id, REQUEST)
    await write("UPDATE transcription_jobs SET version = 2, done_seconds = 4 WHERE id = :id", id=job.id)
    await write("INSERT INTO transcript_utterances VALUES (:id, 2, 0, 0, 1, 'x', 1, 'en', '[]')", id=start.id)
    canceled = await jobs.cancel(tenant, job.id)
    assert (canceled.status, canceled.cancel_requested, canceled.queue_position) == ("canceled", True, None)
    assert (canceled.step, canceled.version) == ("", None)
    async with database.transaction() as connection:
        counted = text("SELECT count(*) FROM transcript_utterances WHERE session_id = :id")
        assert (await connection.execute(counted, {"id": start.id})).scalar_one() == 0
    assert await jobs.cancel(tenant, job.id) == canceled


async def test_a_running_job_is_asked_to_stop_once_and_an_ended_one_stays(
    jobs: JobStore, make: Make, requester: Requester, tenant: uuid.UUID, write: Write
) -> None:
    job = await jobs.create(requester, (await make()).id, REQUEST)
    await write(BEGIN, id=job.id)
    asked = await jobs.cancel(tenant, job.id)
    assert (asked.status, asked.cancel_requested, asked.ended_at) == ("running", True, None)
    assert await jobs.cancel(tenant, job.id) == asked
    await write(COMPLETE + " AND cancel_requested_at IS NOT NULL", id=job.id)
    ended = await jobs.get(tenant, job.id)
    assert await jobs.cancel(tenant, job.id) == ended
    assert ended.status == "completed"


async def test_an_ended_job_is_repeated_with_its_request(
    jobs: JobStore, make: Make, requester: Requester, tenant: uuid.UUID, write: Write
) -> None:
    first = await make(8.0)
    second = await make(5.0, previous_session_id=first.id)
    job = await jobs.create(requester, second.id, REQUEST, linked=False)
    with pytest.raises(JobActive, match=format_job_id(job.id)):
        await jobs.retry(requester, job.id)
    await jobs.cancel(tenant, job.id)
    again = await jobs.retry(requester, job.id)
    assert (again.request, again.session_id, again.status) == (job.request, second.id, "queued")
    assert again.id != job.id
    with pytest.raises(EnhancementRunning, match=format_job_id(again.id)):
        await jobs.retry(requester, job.id)
    with pytest.raises(JobNotFound):
        await jobs.retry(requester, new_uuid7())


async def test_the_jobs_of_a_deleted_session_are_gone(
    jobs: JobStore, make: Make, requester: Requester, tenant: uuid.UUID, database: Database
) -> None:
    start = await make()
    job = await jobs.create(requester, start.id, REQUEST)
    await SessionStore(database).soft_delete(tenant, start.id)
    with pytest.raises(JobNotFound):
        await jobs.get(tenant, job.id)
    assert (await jobs.list(tenant)).jobs == ()
    with pytest.raises(SessionNotFound):
        await jobs.newest(tenant, start.id)


async def test_a_session_without_a_job_has_no_enhancement(jobs: JobStore, make: Make, tenant: uuid.UUID) -> None:
    start = await make()
    with pytest.raises(NoEnhancement):
        await jobs.newest(tenant, start.id)


async def test_the_state_of_a_job_is_what_its_worker_writes(
    jobs: JobStore, make: Make, requester: Requester, tenant: uuid.UUID, write: Write, database: Database
) -> None:
    start = await make(100.0)
    job = await jobs.create(requester, start.id, REQUEST)
    assert job.step == "worker"
    await Lease(database, f"w-{uuid.uuid4()}", 60.0, 5.0).register()
    await write("UPDATE workers SET kind = 'worker'")
    try:
        assert (await jobs.get(tenant, job.id)).step == "turn"
        delayed = "UPDATE transcription_jobs SET attempts = 1, due_at = now() + interval '1 hour' WHERE id = :id"
        await write(delayed, id=job.id)
        assert (await jobs.get(tenant, job.id)).step == "retry"
    finally:
        await write("DELETE FROM workers WHERE id LIKE 'w-%'")
    await write(BEGIN, id=job.id)
    began = await jobs.get(tenant, job.id)
    assert (began.step, began.progress, began.eta_seconds, began.queue_position) == ("listening", 0.0, None, None)
    progress = "UPDATE transcription_jobs SET step = 'transcribing', done_seconds = 25, rate = 5, version = 2"
    await write(f"{progress} WHERE id = :id", id=job.id)
    at_work = await jobs.get(tenant, job.id)
    assert (at_work.step, at_work.progress, at_work.eta_seconds) == ("transcribing", 0.25, 15.0)
    assert at_work.version is None, "it is not stored yet"
    await write(
        "INSERT INTO transcripts (session_id, version, kind, job_id, model, language, audio_seconds, utterance_count,"
        " word_count, uri, verdict, verdict_reason)"
        " VALUES (:session, 2, 'enhanced', :id, 'accurate', 'en', 100, 1, 1, 's3://b/2', 'doubtful', 'shorter')",
        session=start.id,
        id=job.id,
    )
    await write(COMPLETE, id=job.id)
    ended = await jobs.get(tenant, job.id)
    assert (ended.status, ended.step, ended.progress, ended.eta_seconds) == ("completed", "", 1.0, None)
    assert (ended.version, ended.verdict, ended.verdict_reason) == (2, "doubtful", "shorter")


async def test_positions_take_turns_between_tenants(
    jobs: JobStore,
    make: Make,
    requester: Requester,
    other_tenant: uuid.UUID,
    database: Database,
    write: Write,
) -> None:
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM transcription_jobs WHERE status IN ('queued', 'running')"))
    other = Requester(other_tenant, None, MOST)
    many = [await jobs.create(requester, (await make()).id, REQUEST) for _ in range(6)]
    few = [await jobs.create(other, (await make(tenant_id=other_tenant)).id, REQUEST) for _ in range(2)]

    async def positions(owner: Requester, of: list[JobRecord]) -> list[int | None]:
        return [(await jobs.get(owner.tenant_id, job.id)).queue_position for job in of]

    assert await positions(requester, many) == [0, 2, 4, 5, 6, 7]
    assert await positions(other, few) == [1, 3]
    await write(BEGIN, id=many[0].id)
    assert await positions(requester, many[1:]) == [1, 3, 4, 5, 6]
    assert await positions(other, few) == [0, 2]
    listed = {job.id: job.queue_position for job in (await jobs.list(requester.tenant_id)).jobs}
    assert [listed[job.id] for job in many] == [None, 1, 3, 4, 5, 6]


async def test_a_position_is_counted_to_a_thousand(
    jobs: JobStore, make: Make, requester: Requester, write: Write
) -> None:
    start = await make()
    await write(
        "INSERT INTO transcription_jobs (id, tenant_id, session_id, kind, model, language, due_at)"
        " SELECT gen_random_uuid(), :tenant, :session, 'upload', 'm', 'en', now() - interval '1 hour'"
        " FROM generate_series(1, 5000)",
        tenant=requester.tenant_id,
        session=start.id,
    )
    try:
        own = replace(requester, max_queued=10_000)
        job = await jobs.create(own, (await make()).id, REQUEST)
        assert job.queue_position == 1000
    finally:
        await write("DELETE FROM transcription_jobs WHERE model = 'm'")
