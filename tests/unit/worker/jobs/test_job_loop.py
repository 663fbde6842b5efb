"""The loop that claims jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.job import JobRequest
from persistence.errors import DatabaseUnavailable
from persistence.job_values import Claim
from worker.jobs.interruption import Interruption
from worker.jobs.job_loop import JobLoop


def claim() -> Claim:
    return Claim(
        uuid4(), 1, uuid4(), uuid4(), "enhance", JobRequest(), 1, 0.0, 0.0, 0, None, None, None, None, None, "en"
    )


class Queue:
    """Jobs in memory, in the place of persistence."""

    def __init__(self, jobs: Sequence[Claim] = ()) -> None:
        self.jobs = list(jobs)
        self.due = asyncio.Event()
        self.claims = self
        self.looks = 0
        self.known: list[Sequence[UUID]] = []
        self.failures: list[Exception] = []

    async def claim(self) -> Claim | None:
        self.looks += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.jobs.pop(0) if self.jobs else None

    async def requeue_unknown(self, known: Sequence[UUID]) -> None:
        self.known.append(known)


class Doer:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.running: set[UUID] = set()
        self.most = 0
        self.done: list[UUID] = []

    async def __call__(self, job: Claim) -> None:
        self.running.add(job.id)
        self.most = max(self.most, len(self.running))
        await self.gate.wait()
        self.running.discard(job.id)
        self.done.append(job.id)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def loop_of(queue: Any, do: Any, interruption: Interruption, poll_seconds: float = 3600.0) -> asyncio.Task[None]:
    return asyncio.create_task(JobLoop(queue, do, interruption, places=2, poll_seconds=poll_seconds).run())


async def test_as_many_jobs_as_there_are_places_run_at_a_time() -> None:
    queue, doer, interruption = Queue([claim() for _ in range(5)]), Doer(), Interruption()
    jobs = [job.id for job in queue.jobs]
    working = loop_of(queue, doer, interruption)
    await until(lambda: len(doer.running) == 2)
    assert len(queue.jobs) == 3
    doer.gate.set()
    await until(lambda: len(doer.done) == 5)
    interruption.request()
    await working
    assert doer.most == 2
    assert sorted(doer.done) == sorted(jobs)


async def test_a_notification_and_otherwise_the_clock_makes_it_look() -> None:
    queue, doer, interruption = Queue(), Doer(), Interruption()
    doer.gate.set()
    working = loop_of(queue, doer, interruption)
    await until(lambda: queue.looks == 1)
    queue.jobs.append(claim())
    queue.due.set()
    await until(lambda: len(doer.done) == 1)
    interruption.request()
    await working
    polling = loop_of(queue, doer, interruption := Interruption(), 0.01)
    queue.jobs.append(claim())
    await until(lambda: len(doer.done) == 2)
    interruption.request()
    await polling


async def test_the_interruption_waits_for_the_jobs_in_progress_and_claims_no_other() -> None:
    queue, doer, interruption = Queue([claim(), claim(), claim()]), Doer(), Interruption()
    working = loop_of(queue, doer, interruption)
    await until(lambda: len(doer.running) == 2)
    interruption.request()
    await asyncio.sleep(0.02)
    assert not working.done()
    doer.gate.set()
    await working
    assert len(queue.jobs) == 1


@pytest.mark.parametrize("failure", [DatabaseUnavailable("away"), LookupError("no such table")])
async def test_a_database_that_fails_ends_nothing(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistence.backoff.FIRST_SECONDS", 0.01)
    queue, doer, interruption = Queue([claim()]), Doer(), Interruption()
    queue.failures = [failure, failure]
    doer.gate.set()
    working = loop_of(queue, doer, interruption)
    await until(lambda: len(doer.done) == 1)
    interruption.request()
    await working


async def test_the_jobs_in_progress_are_known_and_a_job_that_raised_is_not() -> None:
    queue, interruption = Queue([claim(), claim()]), Interruption()
    broken, sound = [job.id for job in queue.jobs]
    gate = asyncio.Event()

    async def do(job: Claim) -> None:
        if job.id == broken:
            raise RuntimeError("a bug")
        await gate.wait()

    working = loop_of(queue, do, interruption, 0.01)
    await until(lambda: [sound] in queue.known)
    gate.set()
    interruption.request()
    await working
