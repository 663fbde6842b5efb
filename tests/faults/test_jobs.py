"""Batch jobs while their workers are killed, stopped and paused, and Postgres and S3 fail: every job makes one
transcript, byte for byte that of an undisturbed one."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import pytest

from domain.session_id import format_session_id
from persistence.config import PersistenceSettings
from persistence.postgres.database import Database, open_database
from persistence.s3.objects import ObjectStore, open_objects
from stack.postgres import PostgresServer
from stack.process import Process, running
from stack.settings import ROOT
from tests.batch_jobs import job_row, make_job, make_recording, make_tenant
from tests.faults.figures import FIGURES
from tests.faults.http_proxy import Fate, HttpProxy, always, every_third
from tests.faults.proxy import Proxy
from tests.faults.scenario import Scenario

_LEASE_SECONDS: Final = 2.0
_RECORDINGS: Final = 5
_PROGRAM: Final = "tests.scripted_recognizer"


@dataclass
class Jobs:
    """Recordings, their jobs, and the workers."""

    scenario: Scenario
    database: Database
    objects: ObjectStore
    postgres: Proxy
    s3: HttpProxy
    life: AsyncExitStack
    busy_seconds: float = 0.05
    note: Path | None = None
    workers: dict[int, Process] = field(default_factory=dict)
    jobs: dict[uuid.UUID, tuple[int, uuid.UUID]] = field(default_factory=dict)
    """The recording and the session of each job."""

    async def start(self, number: int) -> None:
        environment = self.scenario.environment(
            self.scenario.folder / "unused",
            postgres_port=self.postgres.port,
            s3_port=self.s3.port,
            lease_seconds=_LEASE_SECONDS,
            lease_renewal_seconds=0.4,
            reap_seconds=0.3,
            job_retry_seconds=0.1,
            worker_poll_seconds=0.5,
            worker_priority="normal",
            worker_dir=self.scenario.folder / "worker",
            log_format="text",
        )
        own = {"SCRIPTED_BUSY_SECONDS": str(self.busy_seconds), "PYTHONUNBUFFERED": "1"}
        own |= {"SCRIPTED_NOTE": str(self.note)} if self.note else {}
        log = self.scenario.folder / f"worker-{number}.log"
        command = [sys.executable, "-m", _PROGRAM]
        process = running("worker", command, log=log, env={**os.environ, **environment, **own}, cwd=ROOT, stop=())
        self.workers[number] = self.life.enter_context(process)

    async def exit(self, number: int, seconds: float) -> int:
        process = self.workers[number]
        async with asyncio.timeout(seconds):
            while (code := process.exit_code()) is None:  # noqa: ASYNC110 - Popen has no event
                await asyncio.sleep(0.02)
        return code

    async def kill(self, number: int) -> None:
        self.workers[number].popen.send_signal(signal.SIGKILL)
        await self.exit(number, 10)

    async def add_job(self, tenant: uuid.UUID, recording: int, seconds: int = 20) -> uuid.UUID:
        session = await make_recording(self.database, self.objects, tenant, recording_of(recording, seconds))
        job = await make_job(self.database, tenant, session)
        self.jobs[job] = (recording, session)
        return job

    async def count(self, *statuses: str) -> int:
        async with self.scenario.postgres() as connection:
            query = "SELECT count(*) FROM transcription_jobs WHERE status = ANY($1)"
            return int(await connection.fetchval(query, list(statuses)))

    async def settled(self, seconds: float) -> None:
        """Waits until every job has ended."""
        async with asyncio.timeout(seconds):
            while await self.count("queued", "running"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def result(self, job: uuid.UUID) -> tuple[str, bytes, str]:
        """What a job has stored, the id of its session left out: status, document, and rows."""
        _, session = self.jobs[job]
        keys = await self.scenario.keys(f"sessions/{format_session_id(session)}/transcripts/")
        assert len(keys) <= 1, keys
        document = await self.scenario.object(keys[0]) if keys else None
        async with self.scenario.postgres() as connection:
            status = await connection.fetchval("SELECT status FROM transcription_jobs WHERE id = $1", job)
            rows = await connection.fetch(
                'SELECT version, index, start, "end", text, confidence, language, words, language_probability'
                " FROM transcript_utterances WHERE session_id = $1 ORDER BY version, index",
                session,
            )
            versions = await connection.fetch(
                "SELECT version, utterance_count, word_count, verdict FROM transcripts WHERE session_id = $1", session
            )
            current = await connection.fetchval("SELECT current_version FROM realtime_sessions WHERE id = $1", session)
        stored = json.dumps([[list(row) for row in rows], [list(row) for row in versions], current])
        return str(status), (document or b"").replace(format_session_id(session).encode(), b""), stored


def recording_of(number: int, seconds: int) -> bytes:
    """Noise, the same for the same number."""
    return np.random.default_rng(number).integers(-9000, 9000, 16_000 * seconds).astype("<i2").tobytes()


@pytest.fixture
async def setup(
    scenario: Scenario, template_server: PostgresServer, postgres_proxy: Proxy, s3_http: HttpProxy
) -> AsyncIterator[Jobs]:
    settings = PersistenceSettings(
        database_url=scenario.database_url,
        s3_endpoint_url=scenario.bucket.endpoint_url,
        s3_bucket=scenario.bucket.name,
        s3_access_key_id=scenario.bucket.access_key_id,
        s3_secret_access_key=scenario.bucket.secret_access_key,
    )
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        objects = await stack.enter_async_context(open_objects(settings))
        life = await stack.enter_async_context(AsyncExitStack())
        yield Jobs(scenario, database, objects, postgres_proxy, s3_http, life)


async def references(setup: Jobs) -> dict[int, tuple[str, bytes, str]]:
    """What an undisturbed worker makes of each recording."""
    tenant = await make_tenant(setup.database, max_jobs=10)
    jobs = [await setup.add_job(tenant, number) for number in range(_RECORDINGS)]
    await setup.start(0)
    await setup.settled(60)
    return {setup.jobs[job][0]: await setup.result(job) for job in jobs}


class Faults:
    """Causes faults of a setup, one after the other."""

    def __init__(self, setup: Jobs, count: int) -> None:
        self._setup = setup
        self.left = count
        self._tenants: list[uuid.UUID] = []

    async def run(self) -> None:
        """Keeps jobs queued until the last fault has been caused.

        Every kind of fault comes once before one comes again, in random order.
        """
        self._tenants = [await make_tenant(self._setup.database, max_jobs=3) for _ in range(3)]
        kinds: list[Callable[[int], Awaitable[None]]] = [
            self._kill,
            self._terminate,
            self._pause,
            self._kill_model,
            self._stop_model,
            self._cut_postgres,
            self._stall_postgres,
            self._break_s3,
        ]
        coming: list[Callable[[int], Awaitable[None]]] = []
        while self.left:
            coming = coming or random.sample(kinds, len(kinds))
            while await self._setup.count("queued", "running") < 6:
                await self._setup.add_job(random.choice(self._tenants), random.randrange(_RECORDINGS))
            await asyncio.sleep(random.uniform(0.1, 1.5))
            await coming.pop()(random.randrange(len(self._setup.workers)))
            FIGURES.add("faults of workers")
            self.left -= 1

    async def _kill(self, number: int) -> None:
        await self._setup.kill(number)
        await self._setup.start(number)

    async def _terminate(self, number: int) -> None:
        process = self._setup.workers[number]
        process.popen.send_signal(signal.SIGTERM)
        await self._setup.exit(number, 22)
        await self._setup.start(number)

    async def _pause(self, number: int) -> None:
        process = self._setup.workers[number]
        process.popen.send_signal(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.1, 2 * _LEASE_SECONDS))
        process.popen.send_signal(signal.SIGCONT)

    def _model(self, number: int) -> psutil.Process | None:
        """The process of the models of a worker, unless it has no job yet."""
        children = psutil.Process(self._setup.workers[number].popen.pid).children(recursive=True)
        return next((each for each in children if "worker.model.child" in each.cmdline()), None)

    async def _kill_model(self, number: int) -> None:
        if (model := self._model(number)) is not None:
            with suppress(psutil.NoSuchProcess):
                model.kill()

    async def _stop_model(self, number: int) -> None:
        """Longer than a lease, perhaps: the worker keeps its jobs."""
        if (model := self._model(number)) is not None:
            with suppress(psutil.NoSuchProcess):
                model.suspend()
                await asyncio.sleep(random.uniform(0.1, 2 * _LEASE_SECONDS))
                model.resume()

    async def _cut_postgres(self, _: int) -> None:
        self._setup.postgres.cut()
        self._setup.postgres.cut_on(random.choice([b"COMMIT", b"UPDATE", b"INSERT"]), before=random.random() < 0.5)

    async def _stall_postgres(self, _: int) -> None:
        self._setup.postgres.stall()
        await asyncio.sleep(random.uniform(0.1, 2 * _LEASE_SECONDS))
        self._setup.postgres.restore()

    async def _break_s3(self, _: int) -> None:
        self._setup.s3.rule = random.choice([always, every_third])(
            random.choice([Fate.FAIL, Fate.FAIL_AFTER, Fate.LOSE, Fate.REFUSE])
        )
        await asyncio.sleep(random.uniform(0.1, 3))
        self._setup.s3.restore()


async def check_random_faults(setup: Jobs, count: int) -> None:
    expected = await references(setup)
    for number in (1, 2):
        await setup.start(number)
    faults = Faults(setup, count)
    try:
        await faults.run()
        setup.postgres.restore()
        setup.s3.restore()
        await setup.settled(120)
    finally:
        for process in setup.workers.values():
            process.popen.send_signal(signal.SIGCONT)
    problems = []
    for job, (number, session) in setup.jobs.items():
        if (found := await setup.result(job)) != expected[number]:
            row = await job_row(setup.database, job)
            problems.append(f"{format_session_id(session)}: {row['status']} {row['error_code']} {found[2][:200]}")
    assert not problems, f"{len(problems)} of {len(setup.jobs)} jobs differ:\n" + "\n".join(problems)
    FIGURES.add("transcripts compared", len(setup.jobs))


@pytest.mark.timeout(300)
async def test_after_a_fault_of_each_kind_every_job_has_made_one_transcript(setup: Jobs) -> None:
    await check_random_faults(setup, 8)


@pytest.mark.long
@pytest.mark.timeout(2400)
async def test_after_three_hundred_random_faults_every_job_has_made_one_transcript(setup: Jobs) -> None:
    await check_random_faults(setup, 300)


async def check_kills(setup: Jobs, kills: int, seconds: int) -> None:
    """Kills the worker of one job, each time after it has finished a window or more."""
    setup.note = setup.scenario.folder / "windows"
    setup.note.touch()
    tenant = await make_tenant(setup.database)
    job = await setup.add_job(tenant, 1, seconds)
    done = killed = 0
    for _ in range(kills):
        await setup.start(1)
        async with asyncio.timeout(60):
            while (row := await job_row(setup.database, job))["done_windows"] <= done:
                assert row["status"] in ("queued", "running"), dict(row)
                await asyncio.sleep(0.01)
        await asyncio.sleep(random.uniform(0, setup.busy_seconds))
        await setup.kill(1)
        killed += 1
        done = (await job_row(setup.database, job))["done_windows"]
    await setup.start(1)
    await setup.settled(120)
    row = await job_row(setup.database, job)
    assert (row["status"], row["done_windows"], row["version"]) == ("completed", seconds, 2)
    computed = len(setup.note.read_text().splitlines())
    assert seconds <= computed <= seconds + killed
    FIGURES.add("kills of a worker within one job", killed)
    FIGURES.add("windows computed twice", computed - seconds)


@pytest.mark.timeout(300)
async def test_each_kill_of_a_worker_costs_at_most_one_window(setup: Jobs) -> None:
    await check_kills(setup, 2, 40)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_fifty_kills_within_one_job_cost_at_most_fifty_windows(setup: Jobs) -> None:
    await check_kills(setup, 50, 400)


async def test_a_worker_that_is_asked_to_stop_queues_its_jobs_again_and_ends(setup: Jobs) -> None:
    setup.busy_seconds = 0.3
    tenant = await make_tenant(setup.database)
    jobs = [await setup.add_job(tenant, number, 60) for number in range(2)]
    await setup.start(1)
    async with asyncio.timeout(60):
        while not all([(await job_row(setup.database, job))["done_windows"] for job in jobs]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    setup.workers[1].popen.send_signal(signal.SIGTERM)
    assert await setup.exit(1, 20) == 0
    for job in jobs:
        row = await job_row(setup.database, job)
        assert (row["status"], row["attempts"]) == ("queued", 0)
        assert row["done_windows"] > 0
    async with setup.scenario.postgres() as connection:
        assert await connection.fetchval("SELECT count(*) FROM workers WHERE kind = 'worker'") == 0


async def is_running(setup: Jobs, job: uuid.UUID, attempt: int) -> bool:
    row = await job_row(setup.database, job)
    return row["attempts"] == attempt and row["status"] == "running"


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_worker_that_crashes_on_a_file_gives_it_up_after_five_attempts(setup: Jobs) -> None:
    """A file that ends its worker is found by the count of the attempts and by nothing else."""
    tenant = await make_tenant(setup.database)
    job = await setup.add_job(tenant, 1, 30)
    setup.busy_seconds = 30
    for attempt in range(1, 6):
        await setup.start(1)
        async with asyncio.timeout(60):
            while not await is_running(setup, job, attempt):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await setup.kill(1)
    await setup.start(1)
    await setup.settled(60)
    row = await job_row(setup.database, job)
    assert (row["status"], row["error_code"], row["attempts"]) == ("failed", "worker_died", 5)
    assert row["error"] == "the worker ended five times while it did this"


async def test_the_log_of_a_worker_has_no_text(setup: Jobs) -> None:
    tenant = await make_tenant(setup.database)
    await setup.add_job(tenant, 1, 5)
    await setup.start(1)
    await setup.settled(60)
    text = setup.workers[1].log.read_text()
    assert "job completed" in text
    assert not re.search(r"window \d+ [0-9a-f]{16}", text)
