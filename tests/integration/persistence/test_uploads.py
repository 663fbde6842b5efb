"""Uploaded files: what is stored of them, and that nothing is left of those that are not complete."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from domain.errors import FileTooBig, StorageQuotaExceeded, TooManyJobs, TranscriptNotStored
from domain.job import JobRequest
from domain.session_id import format_session_id
from domain.tenancy import Caller, TenantLimits
from persistence.postgres.chains import ChainStore
from persistence.postgres.database import Database
from persistence.postgres.jobs import JobStore
from persistence.postgres.lease import Lease
from persistence.postgres.ownership import Ownership
from persistence.postgres.rows import SessionRows
from persistence.postgres.sessions import SessionStore
from persistence.postgres.transcript_versions import TranscriptVersions
from persistence.postgres.uploads import UploadRows
from persistence.postgres.utterances import UtteranceStore
from persistence.s3.keys import source_key
from persistence.s3.objects import ObjectStore
from persistence.session_values import INTERRUPTED
from persistence.storing.remote_recovery import RemoteRecovery
from persistence.transcripts import Transcripts
from persistence.uploading.file_upload import FileUpload, FileUploads

MIB = 1024 * 1024
ACCURATE = JobRequest()


class Left(Exception):
    """The client disconnects."""


@pytest.fixture
async def worker_id(database: Database) -> AsyncIterator[str]:
    name = f"uploads-{uuid.uuid4().hex[:8]}"
    lease = Lease(database, name, 60.0, 5.0)
    await lease.register()
    yield name
    await lease.end(has_left_work=False)


@pytest.fixture
def uploads(database: Database, objects: ObjectStore, worker_id: str) -> FileUploads:
    return FileUploads(objects, UploadRows(database, worker_id), SessionRows(database, worker_id))


async def stored(
    uploads: FileUploads, tenant: uuid.UUID, file: bytes, request: JobRequest = ACCURATE, **changes: Any
) -> FileUpload:
    values: dict[str, Any] = {"is_kept": True, "max_queued": 100, **changes}
    async with uploads.begin(Caller(tenant), 100 * MIB, "192.0.2.1") as upload:
        for at in range(0, len(file), 300_000):
            await upload.write(file[at : at + 300_000])
        await upload.complete("audio/flac", "talk.flac", request, **values)
    return upload


async def jobs_of(database: Database, tenant: uuid.UUID) -> list[Any]:
    async with database.transaction() as connection:
        found = await connection.exec_driver_sql(
            "SELECT * FROM transcription_jobs WHERE tenant_id = $1 ORDER BY created_at", (tenant,)
        )
        return list(found.mappings())


async def row_of(database: Database, session_id: uuid.UUID) -> Any:
    async with database.transaction() as connection:
        found = await connection.exec_driver_sql("SELECT * FROM realtime_sessions WHERE id = $1", (session_id,))
        return found.mappings().one_or_none()


async def is_gone(database: Database, objects: ObjectStore, session_id: uuid.UUID) -> bool:
    keys = await objects.list(f"sessions/{format_session_id(session_id)}/")
    uploads = await objects.uploads(source_key(session_id))
    return await row_of(database, session_id) is None and not keys and not uploads


@pytest.mark.parametrize("size", [1, 5 * MIB, 11 * MIB + 3])
async def test_a_file_is_stored_as_it_was_sent_with_its_session_and_its_job(
    uploads: FileUploads, database: Database, objects: ObjectStore, tenant: uuid.UUID, size: int
) -> None:
    file = os.urandom(size)
    request = JobRequest("fast", "de", ("Norland",))
    upload = await stored(uploads, tenant, file, request)
    assert await objects.read(source_key(upload.session_id)) == file
    record = await SessionStore(database).get(tenant, upload.session_id)
    assert (record.source, record.status, record.file_name) == ("upload", "completed", "talk.flac")
    assert (record.model, record.language, record.client_ip) == ("fast", "de", "192.0.2.1")
    assert record.audio_uri == objects.uri(source_key(upload.session_id))
    assert record.transcript_version is None
    (job,) = await jobs_of(database, tenant)
    assert (job["id"], job["kind"], job["status"]) == (upload.job_id, "upload", "queued")
    assert (job["model"], job["language"], job["vocabulary"]) == ("fast", "de", ["Norland"])
    assert (await JobStore(database).get(tenant, upload.job_id)).file_name == "talk.flac"


async def test_the_same_file_and_configuration_gets_the_job_that_it_has(
    uploads: FileUploads, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    file = os.urandom(6 * MIB)
    first = await stored(uploads, tenant, file)
    second = await stored(uploads, tenant, file)
    assert second.job_id == first.job_id
    assert await is_gone(database, objects, second.session_id)
    other = await stored(uploads, tenant, file, JobRequest("fast"))
    assert other.job_id != first.job_id
    assert len(await jobs_of(database, tenant)) == 2
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "UPDATE transcription_jobs SET status = 'failed', ended_at = now() WHERE id = $1", (first.job_id,)
        )
    assert (await stored(uploads, tenant, file)).job_id != first.job_id


async def test_of_two_uploads_of_one_file_at_a_time_one_makes_the_job(
    uploads: FileUploads, database: Database, tenant: uuid.UUID
) -> None:
    file = os.urandom(1000)
    found = await asyncio.gather(*(stored(uploads, tenant, file) for _ in range(6)))
    assert len({each.job_id for each in found}) == 1
    assert len(await jobs_of(database, tenant)) == 1


@pytest.mark.parametrize("size", [10, 6 * MIB])
async def test_nothing_is_left_of_a_file_whose_client_disconnects(
    uploads: FileUploads, database: Database, objects: ObjectStore, tenant: uuid.UUID, size: int
) -> None:
    async def send() -> None:
        nonlocal session_id
        async with uploads.begin(Caller(tenant), 100 * MIB, None) as upload:
            session_id = upload.session_id
            await upload.write(os.urandom(size))
            record = await SessionStore(database).get(tenant, session_id)
            assert (record.status, record.source) == ("active", "upload")
            raise Left

    session_id = uuid.UUID(int=0)
    with pytest.raises(Left):
        await send()
    assert await is_gone(database, objects, session_id)
    assert await jobs_of(database, tenant) == []


async def test_a_file_over_the_limit_is_refused_and_nothing_is_left(
    uploads: FileUploads, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session_id = uuid.UUID(int=0)
    with pytest.raises(FileTooBig, match="1048576 bytes are allowed"):
        async with uploads.begin(Caller(tenant), MIB, None) as upload:
            session_id = upload.session_id
            await upload.write(bytes(MIB))
            await upload.write(b"x")
    assert await is_gone(database, objects, session_id)


async def test_limits_of_the_tenant_refuse_a_file(
    uploads: FileUploads, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    kept = await stored(uploads, tenant, b"one")
    with pytest.raises(TooManyJobs):
        await stored(uploads, tenant, b"two", max_queued=1)
    assert len(await jobs_of(database, tenant)) == 1
    with pytest.raises(StorageQuotaExceeded):
        async with uploads.begin(Caller(tenant, TenantLimits(max_storage_bytes=3)), MIB, None):
            pass
    assert await objects.read(source_key(kept.session_id)) == b"one"


@pytest.mark.usefixtures("empty_store")
async def test_the_file_of_a_killed_server_is_deleted_by_another(
    database: Database, objects: ObjectStore, tenant: uuid.UUID, worker_id: str
) -> None:
    dead = f"dead-{uuid.uuid4().hex[:8]}"
    rows = UploadRows(database, dead)
    upload = FileUpload(objects, rows, Caller(tenant), await rows.begin(Caller(tenant), None), 100 * MIB)
    await upload.write(os.urandom(6 * MIB))
    ownership = Ownership(database, worker_id)
    taken = await ownership.reap(0.0, 1000, INTERRUPTED, datetime.now(UTC))
    assert upload.session_id in taken.sessions
    session = await ownership.read_own(upload.session_id)
    assert session is not None
    await RemoteRecovery(objects, SessionRows(database, worker_id)).end(session)
    assert await is_gone(database, objects, upload.session_id)


async def test_a_file_that_is_not_kept_is_deleted_a_day_later_once_its_job_has_ended(
    uploads: FileUploads, database: Database, tenant: uuid.UUID, worker_id: str
) -> None:
    upload = await stored(uploads, tenant, b"short-lived", is_kept=False)
    kept = await stored(uploads, tenant, b"kept")
    ownership = Ownership(database, worker_id)

    async def is_deleted(session_id: uuid.UUID) -> bool:
        await ownership.expire(1000)
        return (await row_of(database, session_id))["deleted_at"] is not None

    expires = (await row_of(database, upload.session_id))["expires_at"]
    assert 86_000 < (expires - datetime.now(UTC)).total_seconds() < 87_000
    assert not await is_deleted(upload.session_id)
    async with database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE realtime_sessions SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert not await is_deleted(upload.session_id)
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "UPDATE transcription_jobs SET status = 'completed', ended_at = now() WHERE id = $1", (upload.job_id,)
        )
    assert await is_deleted(upload.session_id)
    assert not await is_deleted(kept.session_id)


async def test_uploads_do_not_count_as_running_sessions(
    uploads: FileUploads, database: Database, tenant: uuid.UUID, worker_id: str
) -> None:
    caller = Caller(tenant, TenantLimits(max_sessions=1))
    async with uploads.begin(caller, MIB, None):
        await SessionRows(database, worker_id).check_may_begin(caller, uuid.UUID(int=0))


async def test_the_utterances_of_a_file_are_read_while_its_job_runs(
    uploads: FileUploads, database: Database, tenant: uuid.UUID
) -> None:
    upload = await stored(uploads, tenant, b"speech")
    transcripts = Transcripts(ChainStore(database), TranscriptVersions(database), UtteranceStore(database))
    assert await transcripts.page(tenant, upload.session_id, 1, 0, 10) == ([], True)
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO transcript_utterances VALUES ($1, 1, 0, 0.5, 1.0, 'hello', 0.9, 'en', '[]', NULL)",
            (upload.session_id,),
        )
    page, may_have_more = await transcripts.page(tenant, upload.session_id, 1, 0, 10)
    assert ([each.utterance.text for each in page], may_have_more) == (["hello"], True)
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "UPDATE transcription_jobs SET status = 'failed', ended_at = now() WHERE id = $1", (upload.job_id,)
        )
    with pytest.raises(TranscriptNotStored):
        await transcripts.page(tenant, upload.session_id, 1, 0, 10)
