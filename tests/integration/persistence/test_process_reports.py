"""The status of a deployment, on a real Postgres and two servers."""

import asyncio
import os
import uuid
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from dalston.v1.status_pb2 import Process, ServiceStatus
from sqlalchemy import Uuid, bindparam, text

from domain.tenancy import DEFAULT_TENANT_ID, Caller, current_caller
from persistence.postgres.database import Database
from persistence.postgres.lease import Lease
from persistence.postgres.process_reports import _SESSIONS, FORGOTTEN_SECONDS, Deployment, ProcessReports
from server.rpc.status import StatusServicer
from tests.integration.persistence.test_two_servers import QUICK, until

BOTH = {"store_audio": True, "store_transcript": True}


def reports_of(
    database: Database, name: str, kind: Any = "server", degraded: dict[str, datetime] | None = None, lease: Any = None
) -> ProcessReports:
    lease = lease or Lease(database, name, 15.0, 5.0, kind)
    return ProcessReports(database, lease, name, kind, 0.1, lambda: degraded or {})


def name_of(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex[:12]}"


def found_in(deployment: Deployment, name: str) -> Process | None:
    return next((each for each in deployment.processes if each.id == name), None)


async def status_for(reports: ProcessReports, tenant_id: uuid.UUID) -> ServiceStatus:
    token = current_caller.set(Caller(tenant_id))
    try:
        return await StatusServicer(reports).GetStatus(None, None)  # type: ignore[arg-type]  # neither is read
    finally:
        current_caller.reset(token)


async def test_any_process_answers_for_all(database: Database) -> None:
    since = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    server, worker = name_of("server"), name_of("worker")
    lease = Lease(database, server, 15.0, 5.0)
    await lease.register()
    other = reports_of(database, server, degraded={"object_store": since}, lease=lease)

    def describe(process: Process) -> list[str]:
        process.state = "ready"
        process.server.sessions = 7
        process.server.storage.spool_bytes = 5e9
        return ["behind"]

    other.describe = describe
    await other.write()
    deployment = await reports_of(database, worker, "worker").read()
    process = found_in(deployment, server)
    assert process is not None
    assert (process.kind, process.state, process.lease_valid, process.version) == ("server", "ready", True, "0.1.0")
    assert (process.server.sessions, process.server.storage.spool_bytes) == (7, 5e9)
    assert [each.name for each in process.degradations] == ["object_store", "behind"]
    assert process.degradations[0].since.ToDatetime(tzinfo=UTC) == since
    assert process.started_at.ToDatetime(tzinfo=UTC) == lease.started_at
    assert process.HasField("lease_expires_at")
    own = found_in(deployment, worker)
    assert own is not None
    assert own.kind == "worker"
    kinds = [each.kind for each in deployment.processes]
    assert kinds == sorted(kinds)
    await lease.end(has_left_work=False)
    await other.remove()
    assert found_in(await reports_of(database, worker).read(), server) is None


async def test_a_killed_process_stays_visible_without_its_lease_and_then_disappears(database: Database) -> None:
    name = name_of("killed")
    lease = Lease(database, name, 15.0, 5.0)
    await lease.register()
    await reports_of(database, name, lease=lease).write()
    reader = reports_of(database, name_of("reader"))
    await lease.end(has_left_work=True)
    expired = found_in(await reader.read(), name)
    assert expired is not None
    assert not expired.lease_valid
    assert (await reader.read()).totals.expired_leases >= 1
    async with database.transaction() as connection:
        await connection.execute(text("DELETE FROM workers WHERE id = :id"), {"id": name})
    removed = found_in(await reader.read(), name)
    assert removed is not None
    assert (removed.lease_valid, removed.HasField("lease_expires_at"), removed.kind) == (False, False, "server")
    async with database.transaction() as connection:
        old = datetime.now(UTC) - timedelta(seconds=FORGOTTEN_SECONDS + 60)
        await connection.execute(
            text("UPDATE process_reports SET reported_at = :old WHERE id = :id"), {"id": name, "old": old}
        )
    assert found_in(await reader.read(), name) is None
    await reader.write()
    async with database.transaction() as connection:
        left = await connection.execute(text("SELECT id FROM process_reports WHERE id = :id"), {"id": name})
        assert left.one_or_none() is None
    await reader.remove()


async def test_a_process_of_an_earlier_release_is_listed_without_figures(database: Database) -> None:
    name = name_of("earlier")
    lease = Lease(database, name, 15.0, 5.0)
    await lease.register()
    process = found_in(await reports_of(database, name_of("reader")).read(), name)
    await lease.end(has_left_work=False)
    assert process is not None
    assert (process.kind, process.lease_valid, process.state) == ("server", True, "")
    assert not process.HasField("server")
    assert not process.HasField("reported_at")


async def test_a_report_of_an_earlier_run_is_not_shown_for_the_next_one(database: Database) -> None:
    name = name_of("restarted")
    earlier = reports_of(database, name)
    earlier.describe = lambda process: process.MergeFromString(Process(state="ready").SerializeToString()) and ()
    await earlier.write()
    lease = Lease(database, name, 15.0, 5.0)
    await lease.register()
    process = found_in(await reports_of(database, name_of("reader")).read(), name)
    assert process is not None
    assert process.state == ""
    await reports_of(database, name, lease=lease).write()
    await earlier.remove()  # late
    process = found_in(await reports_of(database, name_of("reader")).read(), name)
    await lease.end(has_left_work=False)
    assert process is not None
    assert process.state == "starting"


async def test_fields_of_a_later_release_do_no_harm(database: Database) -> None:
    name = name_of("later")
    reports = reports_of(database, name)
    await reports.write()
    for report in ('{"state": "ready", "gpu": {"busy": 1}}', '{"state": {"is": "an object"}}'):
        async with database.transaction() as connection:
            await connection.execute(
                text("UPDATE process_reports SET report = CAST(:report AS jsonb) WHERE id = :id"),
                {"id": name, "report": report},
            )
        assert found_in(await reports_of(database, name_of("reader")).read(), name) is not None
    await reports.remove()


async def test_a_figure_that_cannot_be_gathered_hides_no_process(database: Database) -> None:
    name = name_of("broken")
    reports = reports_of(database, name)

    def describe(_process: Process) -> list[str]:
        raise RuntimeError("a bug")

    reports.describe = describe
    await reports.write()
    assert found_in(await reports_of(database, name_of("reader")).read(), name) is not None
    await reports.remove()


async def test_reports_that_cannot_be_written_do_not_touch_the_lease(
    build_harness: Any, database: Database, make_settings: Any
) -> None:
    async with build_harness(**QUICK) as harness, database.transaction() as connection:
        # It outlives the lease unless that is renewed meanwhile.
        await connection.execute(text("LOCK TABLE process_reports IN ACCESS EXCLUSIVE MODE"))
        await asyncio.sleep(3 * QUICK["lease_seconds"])
        assert harness.persistence.reports.own().lease_valid
        assert not harness.persistence.lost.is_set()


async def test_tenants_see_totals_of_their_own_and_no_process(
    build_harness: Any, client_of: Any, tenant: uuid.UUID
) -> None:
    async with build_harness(**QUICK) as harness, grpc.aio.insecure_channel(harness.address) as channel:
        reports = harness.persistence.reports
        client = client_of(channel)
        await client.begin(**BOTH)

        async def has_begun() -> bool:
            return bool((await reports.read()).totals.active_sessions)

        await until(has_begun)
        ours = await status_for(reports, DEFAULT_TENANT_ID)
        assert (ours.view, ours.answered_by) == ("deployment", harness.settings.worker_id)
        assert ours.totals.active_sessions >= 1
        theirs = await status_for(reports, tenant)
        assert (theirs.view, theirs.totals.active_sessions) == ("tenant", 0)
        assert not theirs.processes
        assert not theirs.HasField("answered_by")
        assert harness.settings.worker_id.encode() not in theirs.SerializeToString()


async def test_an_outage_of_the_object_store_shows_on_another_server(
    build_harness: Any, client_of: Any, make_settings: Any
) -> None:
    messages = [os.urandom(32_000) for _ in range(4)]
    async with AsyncExitStack() as stack:
        harness = await stack.enter_async_context(build_harness(**QUICK))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(harness.address))
        reader = reports_of(harness.database, name_of("reader"))
        client = client_of(channel)
        await client.begin(**BOTH)
        harness.s3.refuse()
        await client.send(*messages)
        await client.end()

        async def shows(name: str) -> bool:
            process = found_in(await reader.read(), harness.settings.worker_id)
            return process is not None and name in [each.name for each in process.degradations]

        await until(lambda: shows("object_store"))
        deployment = await reader.read()
        assert deployment.totals.unstored_sessions >= 1
        assert deployment.totals.HasField("oldest_unstored_at")
        harness.s3.restore()

        async def is_over() -> bool:
            return not await shows("object_store")

        await until(is_over, 60.0)


async def test_a_server_without_postgres_answers_for_itself(build_harness: Any) -> None:
    async with build_harness(**QUICK | {"database_deadline_seconds": 1.0}) as harness:
        reports = harness.persistence.reports
        harness.postgres.refuse()

        async def shows_the_outage() -> bool:
            status = await status_for(reports, DEFAULT_TENANT_ID)
            names = {each.name for each in status.processes[0].degradations}
            return not status.HasField("totals") and names == {"database", "lease"}

        await until(shows_the_outage)
        status = await status_for(reports, DEFAULT_TENANT_ID)
        assert [each.id for each in status.processes] == [harness.settings.worker_id]
        assert not status.processes[0].lease_valid
        other = await status_for(reports, uuid.uuid4())
        assert (other.view, list(other.processes), other.HasField("totals")) == ("tenant", [], False)
        harness.postgres.restore()

        async def is_over() -> bool:
            status = await status_for(reports, DEFAULT_TENANT_ID)
            own = next(each for each in status.processes if each.id == status.answered_by)
            return status.HasField("totals") and own.lease_valid and not own.degradations

        await until(is_over)


async def test_a_server_that_is_killed_leaves_sessions_to_recover(
    build_harness: Any, make_settings: Any, client_of: Any, a_killable_server: Any
) -> None:
    settings = make_settings(**QUICK)
    changes = QUICK | {"recovery_grace_seconds": 600.0}
    async with (
        build_harness(spool_dir=settings.spool_dir.with_name("another"), **changes) as harness,
        a_killable_server(settings) as (process, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        client = client_of(channel)
        await client.begin(**BOTH)
        await client.send(os.urandom(32_000))
        reading = asyncio.create_task(client.rest())
        reports = harness.persistence.reports
        before = await reports.read()
        assert found_in(before, settings.worker_id) is not None
        process.kill()
        await process.wait()
        await asyncio.gather(reading, return_exceptions=True)

        async def is_to_recover() -> bool:
            return (await reports.read()).totals.sessions_to_recover > before.totals.sessions_to_recover

        await until(is_to_recover)
        killed = found_in(await reports.read(), settings.worker_id)
        assert killed is not None
        assert not killed.lease_valid


@pytest.mark.parametrize("tenant_id", [None, DEFAULT_TENANT_ID])
async def test_totals_read_unfinished_sessions_only(database: Database, tenant_id: uuid.UUID | None) -> None:
    plan = ""
    with suppress(_RolledBack):
        async with database.transaction() as connection:
            await connection.execute(_FINISHED, {"tenant_id": DEFAULT_TENANT_ID})
            await connection.execute(text("ANALYZE realtime_sessions"))
            statement = text(f"EXPLAIN {_SESSIONS.text}").bindparams(bindparam("tenant_id", type_=Uuid))
            plan = "\n".join((await connection.execute(statement, {"tenant_id": tenant_id})).scalars())
            raise _RolledBack
    assert "ix_realtime_sessions_unfinished" in plan, plan


class _RolledBack(Exception):
    pass


_FINISHED = text("""
    INSERT INTO realtime_sessions (id, tenant_id, status, language, model, encoding, sample_rate, channels,
        store_audio, store_transcript, enhance_on_end, worker_id, started_at, ended_at)
    SELECT gen_random_uuid(), :tenant_id, 'completed', 'en', 'fast', 'pcm_s16le', 16000, 1,
        false, false, false, 'nobody', now(), now()
    FROM generate_series(1, 5000)
""").bindparams(bindparam("tenant_id", type_=Uuid))
