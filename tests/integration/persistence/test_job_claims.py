"""The statements with which workers claim batch jobs and do them, on a real Postgres."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from persistence.errors import JobLost
from persistence.job_values import Claim, Completion, NewVersion
from persistence.postgres.database import Database
from persistence.postgres.job_claims import DIED, MAX_ATTEMPTS, JobClaims, LostJobs
from persistence.postgres.lease import Lease, machine
from persistence.s3.objects import ObjectStore
from tests.batch_jobs import (
    execute,
    job_row,
    make_job,
    make_recording,
    make_session,
    make_tenant,
    session_row,
    transcript_rows,
    utterance,
    utterance_rows,
)

SECOND = 32_000
KEY = b"k" * 32


@pytest.fixture(autouse=True)
async def no_jobs(database: Database) -> None:
    await execute(database, "DELETE FROM transcription_jobs")
    await execute(database, "DELETE FROM workers")


@pytest.fixture
async def a_worker(database: Database) -> Callable[..., Any]:
    """Makes claims of a worker with a lease."""

    async def make(name: str, **options: Any) -> JobClaims:
        await Lease(database, name, 15.0, 5.0, "worker").register()
        return JobClaims(database, name, **options)

    return make


async def one_job(database: Database, tenant_id: uuid.UUID, **changes: Any) -> uuid.UUID:
    return await make_job(database, tenant_id, await make_session(database, tenant_id, 9 * SECOND), **changes)


async def window(claims: JobClaims, claim: Claim, number: int, **changes: Any) -> tuple[int, bool]:
    values: dict[str, Any] = {
        "done_seconds": 3.0 * number,
        "windows_before": number - 1,
        "done_windows": number,
        "rate": 2.0,
        "first_index": number - 1,
        "utterances": [utterance(f"window {number}", 3.0 * number - 3, 3.0 * number)],
    }
    return await claims.store_window(claim, **values | changes)


def version(number: int, **changes: Any) -> NewVersion:
    values: dict[str, Any] = {
        "version": number,
        "model": "accurate",
        "language": "en",
        "audio_seconds": 9.0,
        "utterance_count": 3,
        "word_count": 6,
        "uri": "s3://bucket/key",
        "verdict": "accepted",
        "verdict_reason": None,
    }
    return NewVersion(**values | changes)


async def test_a_job_is_claimed_once_however_many_workers_want_it(database: Database, a_worker: Any) -> None:
    tenant = await make_tenant(database, max_jobs=100)
    jobs = {await one_job(database, tenant) for _ in range(12)}
    workers = [await a_worker(f"w{number}") for number in range(4)]

    async def all_of(claims: JobClaims) -> list[uuid.UUID]:
        found = []
        while (claim := await claims.claim()) is not None:
            found.append(claim.id)
        return found

    claimed = [job for part in await asyncio.gather(*map(all_of, workers)) for job in part]
    assert sorted(claimed) == sorted(jobs)


async def test_the_tenant_with_the_fewest_running_jobs_is_next_and_none_has_more_than_its_limit(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w")
    big, small, limited = [await make_tenant(database) for _ in range(2)] + [await make_tenant(database, max_jobs=1)]
    for _ in range(5):
        await one_job(database, big)
    for tenant in (small, limited, limited):
        await one_job(database, tenant)
    order = []
    while (claim := await claims.claim()) is not None:
        order.append(claim.tenant_id)
    assert sorted(order[:3]) == sorted([big, small, limited])
    assert order[3:] == [big], "the limit of a tenant without its own is 2"


async def test_a_thousand_jobs_of_one_tenant_delay_that_of_another_by_one_place(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w")
    big, small = await make_tenant(database), await make_tenant(database)
    session = await make_session(database, big, SECOND)
    await execute(
        database,
        "INSERT INTO transcription_jobs (id, tenant_id, session_id, kind, model, language)"
        " SELECT gen_random_uuid(), :tenant, :session, 'upload', 'accurate', 'auto' FROM generate_series(1, 1000)",
        tenant=big,
        session=session,
    )
    running = [await claims.claim(), await claims.claim()]
    assert {claim.tenant_id for claim in running if claim} == {big}
    wanted = await one_job(database, small, kind="upload")
    assert running[0] is not None
    await claims.cancel(running[0])
    following = await claims.claim()
    assert following is not None
    assert following.id == wanted


async def test_uploads_come_first_and_one_claim_in_four_is_for_enhancements(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w", most_of_tenant=100)
    tenant = await make_tenant(database)
    for kind in ("enhance", "upload"):
        for _ in range(6):
            await one_job(database, tenant, kind=kind)
    kinds = [claim.kind for _ in range(8) if (claim := await claims.claim()) is not None]
    assert kinds == ["upload", "upload", "upload", "enhance", "upload", "upload", "upload", "enhance"]


async def test_what_is_not_due_or_belongs_to_a_session_that_is_being_deleted_is_not_claimed(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w")
    tenant = await make_tenant(database)
    later, deleted = await one_job(database, tenant), await one_job(database, tenant)
    await execute(database, "UPDATE transcription_jobs SET due_at = now() + interval '1 hour' WHERE id = :id", id=later)
    await execute(
        database,
        "UPDATE realtime_sessions SET deleted_at = now()"
        " WHERE id = (SELECT session_id FROM transcription_jobs WHERE id = :id)",
        id=deleted,
    )
    assert await claims.claim() is None


async def test_a_job_is_done_window_by_window_and_its_transcript_becomes_the_current_one(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w")
    job = await one_job(database, await make_tenant(database), vocabulary=["Dashwood"], language="de")
    claim = await claims.claim()
    assert claim is not None
    assert (claim.request.vocabulary, claim.request.language, claim.attempts) == (("Dashwood",), "de", 1)
    claim, _ = await claims.begin(claim, [claim.session_id], KEY, 9.0)
    assert not await claims.store_plan(claim, {"windows": [[0, 3], [3, 9]]})
    assert await window(claims, claim, 1) == (2, False)
    row = await job_row(database, job)
    assert (row["step"], row["done_seconds"], row["done_windows"], row["attempts"]) == ("transcribing", 3.0, 1, 0)
    assert row["plan"] == {"windows": [[0, 3], [3, 9]]}
    assert await window(claims, claim, 2) == (2, False)
    assert [each.text for each in await claims.utterances(claim, 2)] == ["window 1", "window 2"]
    assert await claims.complete(claim, version(2)) is Completion.COMPLETED
    row = await job_row(database, job)
    assert (row["status"], row["version"], row["worker_id"], row["done_seconds"]) == ("completed", 2, None, 9.0)
    (stored,) = await transcript_rows(database, claim.session_id)
    assert (stored["version"], stored["kind"], stored["verdict"], stored["chain_key"]) == (
        2,
        "enhanced",
        "accepted",
        None,
    )
    assert (await session_row(database, claim.session_id))["current_version"] == 2


@pytest.mark.parametrize("is_linked", [False, True])
async def test_a_doubtful_or_linked_transcript_does_not_become_the_current_one(
    database: Database, a_worker: Any, is_linked: bool
) -> None:
    claims = await a_worker("w")
    await one_job(database, await make_tenant(database), linked=is_linked)
    claim = await claims.claim()
    assert claim is not None
    claim, _ = await claims.begin(claim, [claim.session_id], KEY, 9.0)
    await window(claims, claim, 1)
    new = version(2) if is_linked else version(2, verdict="doubtful", verdict_reason="few words")
    await claims.complete(claim, new)
    assert (await session_row(database, claim.session_id))["current_version"] is None
    (stored,) = await transcript_rows(database, claim.session_id)
    assert stored["chain_key"] == (KEY if is_linked else None)


async def test_the_number_of_a_version_is_never_used_again(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    tenant = await make_tenant(database)
    session = await make_session(database, tenant, 9 * SECOND)
    numbers = []
    for ending in ("cancel", "fail", "complete", "complete"):
        await make_job(database, tenant, session)
        claim = await claims.claim()
        assert claim is not None
        number, _ = await window(claims, claim, 1)
        numbers.append(number)
        if ending == "cancel":
            await claims.cancel(claim)
        elif ending == "fail":
            await claims.fail(claim, "no_speech", "nothing")
        else:
            await claims.complete(claim, version(number))
            await execute(database, "DELETE FROM transcripts WHERE session_id = :id", id=session)
    assert numbers == [2, 3, 4, 5]
    assert {row["version"] for row in await utterance_rows(database, session)} == {4, 5}


async def test_the_first_transcript_of_an_uploaded_file_is_version_1(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    tenant = await make_tenant(database)
    session = await make_session(database, tenant, 9 * SECOND, source="upload")
    await make_job(database, tenant, session, kind="upload")
    claim = await claims.claim()
    assert claim is not None
    assert await window(claims, claim, 1) == (1, False)


async def test_a_claim_that_another_has_followed_writes_nothing(database: Database, a_worker: Any) -> None:
    claims, other = await a_worker("w"), await a_worker("other")
    job = await one_job(database, await make_tenant(database))
    first = await claims.claim()
    assert first is not None
    await window(claims, first, 1)
    await execute(database, "UPDATE workers SET lease_expires_at = now() - interval '1 s' WHERE id = 'w'")
    (returned,) = await LostJobs(database, 10.0).requeue()
    assert (returned.id, returned.has_failed) == (job, False)
    second = await other.claim()
    assert second is not None
    assert (second.done_windows, second.version, second.number) == (1, 2, 2)
    before = dict(await job_row(database, job))
    for write in (
        lambda: claims.begin(first, [first.session_id], KEY, 9.0),
        lambda: claims.store_plan(first, {}),
        lambda: claims.note_step(first, "storing"),
        lambda: claims.is_canceled(first),
        lambda: window(claims, first, 2),
        lambda: claims.complete(first, version(2)),
        lambda: claims.fail(first, "x", "x"),
        lambda: claims.cancel(first),
        lambda: claims.requeue(first),
    ):
        with pytest.raises(JobLost):
            await write()
    assert dict(await job_row(database, job)) == before
    assert len(await utterance_rows(database, first.session_id)) == 1
    assert await transcript_rows(database, first.session_id) == []


async def test_the_same_worker_cannot_write_with_an_earlier_claim_of_its_own(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    await one_job(database, await make_tenant(database))
    first = await claims.claim()
    assert first is not None
    await claims.requeue(first)
    second = await claims.claim()
    assert second is not None
    with pytest.raises(JobLost):
        await window(claims, first, 1)
    await window(claims, second, 1)


async def test_a_job_that_is_queued_again_has_made_no_attempt_unless_it_is_counted(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w")
    job = await one_job(database, await make_tenant(database))
    claim = await claims.claim()
    assert claim is not None
    await claims.requeue(claim)
    assert (await job_row(database, job))["attempts"] == 0
    claim = await claims.claim()
    assert claim is not None
    await claims.requeue(claim, 60.0, is_counted=True)
    row = await job_row(database, job)
    assert (row["attempts"], row["status"]) == (1, "queued")
    assert 50 < (row["due_at"] - row["started_at"]).total_seconds() < 61
    assert await claims.claim() is None


async def test_a_job_whose_workers_end_five_times_without_a_window_fails(database: Database, a_worker: Any) -> None:
    job = await one_job(database, await make_tenant(database))
    lost_jobs, waits = LostJobs(database, 10.0), []
    claims = await a_worker("w")
    for attempt in range(MAX_ATTEMPTS + 1):
        await execute(database, "UPDATE transcription_jobs SET due_at = now() WHERE id = :id", id=job)
        await Lease(database, "w", 15.0, 5.0, "worker").register()
        claim = await claims.claim()
        assert claim is not None, attempt
        if attempt == 0:
            await window(claims, claim, 1)
        await execute(database, "DELETE FROM workers")
        (returned,) = await lost_jobs.requeue()
        row = await job_row(database, job)
        waits.append(None if row["ended_at"] else round((row["due_at"] - row["started_at"]).total_seconds(), -1))
    assert waits == [0, 10, 20, 40, 80, None]
    assert returned.has_failed
    assert (row["status"], row["error_code"], row["error"]) == ("failed", *DIED)
    assert await utterance_rows(database, row["session_id"]) == []


async def test_a_worker_with_a_lease_keeps_its_jobs(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    await one_job(database, await make_tenant(database))
    assert await claims.claim() is not None
    assert await LostJobs(database, 10.0).requeue() == []


async def test_a_window_is_not_stored_after_one_that_a_failover_has_lost(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    job = await one_job(database, await make_tenant(database))
    claim = await claims.claim()
    assert claim is not None
    await window(claims, claim, 1)
    await window(claims, claim, 2)
    assert await window(claims, claim, 2) == (2, False), "the answer to the first was lost"
    assert len(await utterance_rows(database, claim.session_id)) == 2
    await execute(database, "UPDATE transcription_jobs SET done_windows = 1 WHERE id = :id", id=job)
    await execute(database, "DELETE FROM transcript_utterances WHERE index = 1")
    with pytest.raises(JobLost):
        await window(claims, claim, 3)
    assert (await job_row(database, job))["done_windows"] == 1


async def test_a_requested_cancellation_is_seen_and_never_completed(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    job = await one_job(database, await make_tenant(database))
    claim = await claims.claim()
    assert claim is not None
    assert await window(claims, claim, 1) == (2, False)
    await execute(database, "UPDATE transcription_jobs SET cancel_requested_at = now() WHERE id = :id", id=job)
    assert await claims.is_canceled(claim)
    assert await claims.note_step(claim, "storing")
    assert await window(claims, claim, 2) == (2, True)
    assert await claims.complete(claim, version(2)) is Completion.CANCELED
    await claims.cancel(claim)
    assert (await job_row(database, job))["status"] == "canceled"
    assert await utterance_rows(database, claim.session_id) == []


async def test_the_job_of_a_session_that_is_being_deleted_writes_nothing(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    await one_job(database, await make_tenant(database))
    claim = await claims.claim()
    assert claim is not None
    await execute(database, "UPDATE realtime_sessions SET deleted_at = now() WHERE id = :id", id=claim.session_id)
    for write in (lambda: window(claims, claim, 1), lambda: claims.complete(claim, version(2))):
        with pytest.raises(JobLost):
            await write()
    await execute(database, "DELETE FROM realtime_sessions WHERE id = :id", id=claim.session_id)
    with pytest.raises(JobLost):
        await claims.fail(claim, "x", "x")
    assert await utterance_rows(database, claim.session_id) == []


async def test_what_was_transcribed_of_another_recording_is_void(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    job = await one_job(database, await make_tenant(database))
    claim = await claims.claim()
    assert claim is not None
    claim, _ = await claims.begin(claim, [claim.session_id], KEY, 9.0)
    await claims.store_plan(claim, {"windows": []})
    await window(claims, claim, 1)
    await claims.requeue(claim)
    claim = await claims.claim()
    assert claim is not None
    same, _ = await claims.begin(claim, [claim.session_id], KEY, 9.0)
    assert (same.plan, same.done_windows) == ({"windows": []}, 1)
    void, _ = await claims.begin(claim, [claim.session_id], b"other", 12.0)
    assert (void.plan, void.done_windows, void.version) == (None, 0, 2)
    assert await utterance_rows(database, claim.session_id) == []
    row = await job_row(database, job)
    assert (row["plan"], row["done_windows"], row["done_seconds"], row["audio_seconds"]) == (None, 0, 0.0, 12.0)


async def test_a_transcript_with_a_session_that_was_deleted_meanwhile_is_not_stored(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w")
    tenant = await make_tenant(database)
    earlier = await make_session(database, tenant, SECOND)
    await one_job(database, tenant, linked=True)
    claim = await claims.claim()
    assert claim is not None
    claim, _ = await claims.begin(claim, [earlier, claim.session_id], KEY, 10.0)
    await window(claims, claim, 1)
    await execute(database, "UPDATE realtime_sessions SET deleted_at = now() WHERE id = :id", id=earlier)
    assert await claims.complete(claim, version(2)) is Completion.CHANGED
    assert await transcript_rows(database, claim.session_id) == []


async def test_jobs_and_a_deletion_of_their_sessions_do_not_lock_each_other_out(
    database: Database, a_worker: Any
) -> None:
    claims = await a_worker("w", most_of_tenant=100)
    tenant = await make_tenant(database)
    for _ in range(6):
        await one_job(database, tenant)
    running = [claim for _ in range(6) if (claim := await claims.claim()) is not None]

    async def work(claim: Claim) -> None:
        with pytest.raises(JobLost):
            for number in range(1, 1000):
                await window(claims, claim, number)

    async def delete(claim: Claim) -> None:
        await asyncio.sleep(0.1)
        await execute(database, "DELETE FROM realtime_sessions WHERE id = :id", id=claim.session_id)

    await asyncio.gather(*map(work, running), *map(delete, running))


async def test_a_server_that_is_behind_holds_workers_on_its_machine_only(database: Database, a_worker: Any) -> None:
    claims = await a_worker("w")
    server = Lease(database, "a server", 15.0, 5.0)
    await server.register()
    assert not await claims.is_machine_behind()
    server.is_behind = lambda: True
    await server.renew()
    assert await claims.is_machine_behind()
    await execute(database, "UPDATE workers SET host = 'another' WHERE host = :host", host=machine())
    assert not await claims.is_machine_behind()


async def test_the_lease_of_a_worker_is_distinguished_from_that_of_a_server_and_expires_alike(
    database: Database, build_harness: Any
) -> None:
    await Lease(database, "gone.worker", 0.0, 5.0, "worker").register()
    async with build_harness(reap_seconds=0.1, lease_seconds=1.0, lease_renewal_seconds=0.2), asyncio.timeout(20):
        while True:
            async with database.transaction() as connection:
                kinds = (await connection.execute(text("SELECT kind FROM workers"))).scalars().all()
            if kinds == ["server"]:
                break
            await asyncio.sleep(0.05)


async def test_a_server_gives_back_the_jobs_of_a_worker_without_a_lease(
    database: Database, objects: ObjectStore, build_harness: Any, a_worker: Any
) -> None:
    tenant = await make_tenant(database)
    session = await make_recording(database, objects, tenant, bytes(SECOND))
    job = await make_job(database, tenant, session)
    claims = await a_worker("w")
    assert await claims.claim() is not None
    await execute(database, "DELETE FROM workers")
    async with build_harness(reap_seconds=0.1, lease_seconds=1.0, lease_renewal_seconds=0.2), asyncio.timeout(20):
        while (await job_row(database, job))["status"] != "queued":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
