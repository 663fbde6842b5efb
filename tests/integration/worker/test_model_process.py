"""Jobs while the process of the models is stopped, and while it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from domain.job import JobRequest
from domain.transcript import Utterance
from persistence.postgres.database import Database
from persistence.s3.objects import ObjectStore
from tests.batch_jobs import execute, job_row, make_job, make_recording, utterance_rows
from tests.integration.worker.test_jobs import noise
from tests.scripted_recognizer import ScriptedRecognizer
from worker.model.process import Child, Start, starting
from worker.model.recognizer import Audio, Plan

pytestmark = pytest.mark.usefixtures("no_jobs")

_LEASE_SECONDS = 1.0


class Fatal(ScriptedRecognizer):
    """Ends its process in the third window of a job that asks for it."""

    def recognize(self, request: JobRequest, plan: Plan, number: int, audio: Audio) -> Sequence[Utterance]:
        if number == 2:
            match request.vocabulary:
                case ("crash",):
                    os.kill(os.getpid(), signal.SIGSEGV)
                case ("stop",):
                    os.kill(os.getpid(), signal.SIGSTOP)
        return super().recognize(request, plan, number, audio)


def load() -> Fatal:
    return Fatal()


def unloadable() -> Fatal:
    """Cannot be loaded while the file of the test exists."""
    if Path(os.environ["SCRIPTED_NOTE"]).exists():
        raise OSError("the hub does not answer")
    return Fatal()


class Processes:
    """Starts processes, and remembers them."""

    def __init__(self, function: str = "load") -> None:
        self._start: Start = starting(f"{__name__}:{function}", "normal", "INFO", "json")
        self.children: list[Child] = []

    def __call__(self) -> Child:
        self.children.append(self._start())
        return self.children[-1]

    async def stopped(self) -> None:
        """Waits until the newest process has stopped."""
        async with asyncio.timeout(60):
            while psutil.Process(self.children[-1].pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def started(self, count: int) -> None:
        """Waits until so many have been started."""
        async with asyncio.timeout(60):
            while len(self.children) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_job_whose_model_stands_still_for_several_leases_keeps_its_claim_and_completes(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    """As when the process of the model gets no CPU. Another worker takes the jobs of processes without a lease."""
    session = await make_recording(database, objects, tenant, noise(5.0))
    processes = Processes()
    lease = {"lease_seconds": _LEASE_SECONDS, "lease_renewal_seconds": 0.2}
    async with (
        start_worker(start_model=processes, worker_id="stopped", **lease) as worker,
        start_worker(worker_id="other", places=0, **lease),
    ):
        job = await make_job(database, tenant, session, vocabulary=["stop"])
        await until(job, windows=2)
        await processes.stopped()
        for _ in range(20):
            await asyncio.sleep(_LEASE_SECONDS / 5)
            row = await job_row(database, job)
            assert (row["status"], row["claim"], row["worker_id"]) == ("running", 1, worker.persistence.worker_id)
        os.kill(processes.children[-1].pid, signal.SIGCONT)
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"], row["attempts"]) == ("completed", 1, 0)
    assert len(processes.children) == 1
    assert len(await utterance_rows(database, session)) == 5


async def test_a_recording_that_crashes_the_model_fails_after_five_attempts_and_no_other_job_does(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    poisoned = await make_recording(database, objects, tenant, noise(4.0))
    sound = await make_recording(database, objects, tenant, noise(4.0))
    processes = Processes()
    async with start_worker(start_model=processes):
        bad = await make_job(database, tenant, poisoned, vocabulary=["crash"])
        good = await make_job(database, tenant, sound)
        row = await until(bad, "completed", "failed")
        other = await until(good, "completed", "failed")
        after = await until(await make_job(database, tenant, sound), "completed", "failed")
    assert (row["status"], row["error_code"], row["attempts"]) == ("failed", "model_died", 5)
    assert row["error"] == "the process of the model ended 5 times while it did this"
    assert (other["status"], other["claim"], after["status"]) == ("completed", 1, "completed")
    assert await utterance_rows(database, poisoned) == []


async def test_a_killed_process_costs_an_attempt_and_a_window(
    start_worker: Any, until: Any, database: Database, objects: ObjectStore, tenant: uuid.UUID
) -> None:
    session = await make_recording(database, objects, tenant, noise(5.0))
    processes = Processes()
    async with start_worker(start_model=processes):
        job = await make_job(database, tenant, session, vocabulary=["stop"])
        await until(job, windows=2)
        await processes.stopped()
        os.kill(processes.children[-1].pid, signal.SIGKILL)
        await processes.started(2)
        await processes.stopped()
        row = await job_row(database, job)
        assert (row["claim"], row["attempts"], row["done_windows"]) == (2, 1, 2)
        os.kill(processes.children[-1].pid, signal.SIGCONT)
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"]) == ("completed", 2)


async def test_models_that_cannot_be_loaded_cost_no_attempt(
    start_worker: Callable[..., Any],
    until: Any,
    database: Database,
    objects: ObjectStore,
    tenant: uuid.UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCRIPTED_NOTE", str(tmp_path / "away"))
    (tmp_path / "away").touch()
    session = await make_recording(database, objects, tenant, noise(2.0))
    async with start_worker(start_model=(processes := Processes("unloadable"))):
        job = await make_job(database, tenant, session)
        for count in range(6):
            await processes.started(count + 1)
            await until(job, "queued")
            row = await job_row(database, job)
            assert (row["attempts"], row["error"]) == (0, None)
            if count == 5:
                (tmp_path / "away").unlink()
            await execute(database, "UPDATE transcription_jobs SET due_at = now() WHERE id = :id", id=job)
        row = await until(job, "completed", "failed")
    assert (row["status"], row["claim"]) == ("completed", 7)
