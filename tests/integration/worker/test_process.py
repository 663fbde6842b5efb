"""The process: its start, its metrics, its log and its end."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import text

from persistence.config import PersistenceSettings
from persistence.postgres.database import Database
from persistence.s3.objects import ObjectStore
from stack.settings import ROOT
from tests.batch_jobs import make_job, make_recording
from tests.integration.persistence.conftest import environment_of
from tests.integration.worker.test_jobs import noise

pytestmark = pytest.mark.usefixtures("no_jobs")

_REPORT = text("SELECT report FROM process_reports WHERE id = :id")


@asynccontextmanager
async def a_process(
    settings: PersistenceSettings, folder: Path, own: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = environment_of(settings) | {
        "DALSTON_WORKER_DIR": str(folder / "worker"),
        "DALSTON_WORKER_METRICS_SOCKET": str(folder / "worker.sock"),
        "DALSTON_LOG_FORMAT": "json",
        **(own or {}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.scripted_recognizer", env=environment, cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def metrics(folder: Path, wanted: str = "") -> str:
    """Waits until they answer and contain a text."""
    transport = httpx.AsyncHTTPTransport(uds=str(folder / "worker.sock"))
    async with asyncio.timeout(60), httpx.AsyncClient(transport=transport) as client:
        while True:
            with suppress(httpx.TransportError):
                text = (await client.get("http://worker/metrics")).text
                if wanted in text:
                    return text
            await asyncio.sleep(0.05)


async def test_a_worker_reports_what_it_does_and_leaves_nothing_behind(
    make_settings: Callable[..., PersistenceSettings],
    until: Any,
    database: Database,
    objects: ObjectStore,
    tenant: uuid.UUID,
    tmp_path: Path,
) -> None:
    settings = make_settings()
    session = await make_recording(database, objects, tenant, noise(3.0))
    async with a_process(settings, tmp_path) as process:
        await metrics(tmp_path, 'dalston_jobs{kind="enhance",status="queued"}')
        job = await make_job(database, tenant, session)
        await until(job, "completed")
        text = await metrics(tmp_path)
        for line in (
            'dalston_jobs_ended_total{code="",status="completed"} 1.0',
            'dalston_job_verdicts_total{reason="accepted"} 1.0',
            "dalston_job_rate_count 1.0",
            "dalston_job_wait_seconds_count 1.0",
            "dalston_job_takeovers_total 0.0",
            "dalston_lease_held 1.0",
        ):
            assert line in text
        async with database.transaction() as connection:
            reports = await connection.execute(_REPORT, {"id": f"{settings.worker_id}.worker"})
            report = reports.scalar_one()
        assert report["state"] == "ready"
        assert report["worker"]["max_jobs"] == 2
        assert "degradations" not in report
        process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(process.communicate(), 25)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.decode().splitlines()]
    events = [line["event"] for line in lines]
    order = ["worker ready", "starting the process of the model", "models loaded", "job completed", "worker stopping"]
    order.append("worker stopped")
    assert [event for event in events if event in order] == order
    (completed,) = [line for line in lines if line["event"] == "job completed"]
    assert completed["tenant_id"] == str(tenant)
    assert {"job_id", "session_id"} <= set(completed)
    assert "window 0" not in log.decode(), "a log has no text"
    async with database.transaction() as connection:
        left = await connection.exec_driver_sql("SELECT count(*) FROM workers WHERE kind = 'worker'")
        assert left.scalar_one() == 0
        reports = await connection.execute(_REPORT, {"id": f"{settings.worker_id}.worker"})
        assert reports.one_or_none() is None
    assert list((tmp_path / "worker").iterdir()) == []


@pytest.mark.parametrize(
    ("own", "code", "message"),
    [
        ({"DALSTON_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}, 1, "the database does not answer"),
        ({"DALSTON_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, "object store"),
        ({"DALSTON_JOBS_AT_ONCE": "0"}, 2, "DALSTON_JOBS_AT_ONCE"),
        ({"DALSTON_WORKER_DIR": "/proc/nowhere"}, 2, "set DALSTON_WORKER_DIR to another folder"),
    ],
)
async def test_a_worker_that_cannot_start_names_the_reason(
    make_settings: Callable[..., PersistenceSettings], tmp_path: Path, own: Mapping[str, str], code: int, message: str
) -> None:
    async with a_process(make_settings(), tmp_path, own) as process:
        _, log = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code
    assert message in log.decode()
    assert "Traceback" not in log.decode()


async def test_the_process_of_the_model_ends_with_its_worker(
    make_settings: Callable[..., PersistenceSettings],
    until: Any,
    database: Database,
    objects: ObjectStore,
    tenant: uuid.UUID,
    tmp_path: Path,
) -> None:
    session = await make_recording(database, objects, tenant, noise(3.0))
    async with a_process(make_settings(), tmp_path) as process:
        worker = psutil.Process(process.pid)
        await metrics(tmp_path)
        assert worker.children() == [], "the models are loaded with the first job"
        await until(await make_job(database, tenant, session), "completed")
        (model,) = worker.children()
        # As a process that is stopped, or waits for the CPU, cannot end itself.
        model.suspend()
        process.kill()
        await process.wait()
        async with asyncio.timeout(60):
            while model.is_running() and model.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
