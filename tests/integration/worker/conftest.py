"""A worker in this process, on a real Postgres and a real S3 server behind proxies, with a scripted recognizer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from persistence.config import PersistenceSettings
from persistence.job_values import Claim
from persistence.postgres.database import Database
from persistence.s3.objects import ObjectStore
from persistence.worker_service import WorkerPersistence, open_worker_persistence
from tests.batch_jobs import execute, job_row
from tests.integration.persistence.conftest import (
    database,
    make_settings,
    objects,
    postgres_proxy,
    proxied,
    real_settings,
    s3_proxy,
    tenant,
)
from tests.model_in_a_thread import starting_threads
from tests.scripted_recognizer import ScriptedRecognizer
from worker.jobs.interruption import Interruption
from worker.jobs.job_loop import JobLoop
from worker.jobs.job_run import JobRun
from worker.jobs.model_process import ModelProcess
from worker.media.scratch import Scratch
from worker.model.process import Start

__all__ = ["database", "make_settings", "objects", "postgres_proxy", "proxied", "real_settings", "s3_proxy", "tenant"]


@dataclass
class RunningWorker:
    """A worker that does jobs in the background."""

    persistence: WorkerPersistence
    recognizer: Any
    interruption: Interruption
    scratch: Scratch
    working: asyncio.Task[None]

    async def stop(self) -> None:
        """Stops it as SIGTERM does."""
        self.interruption.request()
        async with asyncio.timeout(15):
            await self.working


@pytest.fixture
def start_worker(proxied: Callable[..., PersistenceSettings], tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def start(
        recognizer: Any = None, *, places: int = 2, start_model: Start | None = None, **changes: Any
    ) -> AsyncIterator[RunningWorker]:
        settings = proxied(**{"job_retry_seconds": 0.1, "reap_seconds": 0.2} | changes)
        used = recognizer if recognizer is not None else ScriptedRecognizer()
        interruption = Interruption()
        async with open_worker_persistence(settings) as persistence:
            scratch = Scratch(tmp_path, 1 << 30, 0)
            model = ModelProcess(start_model or starting_threads(lambda: used), interruption)

            async def do(claim: Claim) -> None:
                await JobRun(claim, persistence, model, interruption, scratch, settings.job_retry_seconds).run()

            loop = JobLoop(persistence, do, interruption, places=places, poll_seconds=0.5)
            working = asyncio.create_task(loop.run())
            try:
                yield RunningWorker(persistence, used, interruption, scratch, working)
            finally:
                interruption.request()
                await asyncio.wait({working}, timeout=10)
                working.cancel()
                await asyncio.wait({working})
                await model.close()

    return start


@pytest.fixture
async def no_jobs(database: Database) -> None:
    await execute(database, "DELETE FROM transcription_jobs")


@pytest.fixture
def until(database: Database) -> Callable[..., Any]:
    """Waits for a job to be in a status, or to have done so many windows; returns its row."""

    async def wait(job_id: uuid.UUID, *statuses: str, windows: int = 0, step: str | None = None) -> Any:
        # Most of what a test may take: on a busy machine five processes of models need a minute to start.
        async with asyncio.timeout(90):
            while True:
                row = await job_row(database, job_id)
                is_there = row["status"] in statuses if statuses else row["done_windows"] >= windows
                if is_there and (step is None or row["step"] == step):
                    return row
                await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def store(objects: ObjectStore) -> ObjectStore:
    return objects
