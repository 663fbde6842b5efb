"""The stream of one batch job, without Postgres."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from dalston.v1 import job_pb2 as pb

from domain.errors import JobNotFound, StorageUnavailable
from domain.job import JobRecord, JobRequest, format_job_id
from persistence.postgres.change_notifier import ChangeNotifier
from server.access.gate import OpenGate
from server.rpc import job_watch
from server.rpc.drain import Drain
from server.rpc.job_watch import watch_job
from server.rpc.watch import Watches
from server.session.errors import NoCapacity, ServerStopping

TENANT = uuid.uuid4()
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
QUEUED = JobRecord(
    uuid.uuid4(), TENANT, uuid.uuid4(), "enhance", "queued", "turn", JobRequest(), 10.0, 0.0, NOON, None, None, False,
    0, None, None, None, None, None, 3, None,
)  # fmt: skip
RUNNING = replace(QUEUED, status="running", step="transcribing", done_seconds=5.0, queue_position=None)
COMPLETED = replace(RUNNING, status="completed", step="", ended_at=NOON, version=2)


class Jobs:
    """A store whose one job a test changes."""

    def __init__(self) -> None:
        self.job = QUEUED
        self.fails: Exception | None = None
        self.reads = 0

    async def get(self, tenant_id: uuid.UUID, job_id: uuid.UUID) -> JobRecord:
        self.reads += 1
        if self.fails is not None:
            raise self.fails
        return self.job


class Reader:
    """The context of a call whose client reads at once."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.messages: list[pb.Job] = []
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def write(self, message: pb.Job) -> None:
        self.messages.append(message)


class Harness:
    def __init__(self, most: int = 2) -> None:
        self.jobs, self.drain = Jobs(), Drain()
        self.change_notifier = ChangeNotifier(None)  # type: ignore[arg-type]  # it is rung by hand
        self.watches = Watches(None, self.change_notifier, OpenGate(), self.drain, most)  # type: ignore[arg-type]

    def open(self, reader: Reader) -> asyncio.Task[None]:
        call: Any = watch_job(self.jobs, self.watches, TENANT, QUEUED.id, reader)  # type: ignore[arg-type]
        return asyncio.create_task(call)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watch, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(job_watch, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(job_watch, "LONGEST_POLL_SECONDS", 0.05)
    monkeypatch.setattr(job_watch, "HEARTBEAT_SECONDS", 0.1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_each_state_is_sent_until_the_end() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    await until(lambda: len(reader.messages) == 1)
    for job, status in ((RUNNING, "running"), (COMPLETED, "completed")):
        harness.jobs.job = job
        await until(lambda status=status: reader.messages[-1].status == status)  # type: ignore[misc]
    await task
    assert reader.messages[0].queue_position == 3
    assert (reader.messages[-1].version, reader.messages[-1].progress) == (2, 1.0)
    assert harness.change_notifier.watches(TENANT) == 0


async def test_a_job_that_does_not_change_is_sent_again_regularly() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    await until(lambda: len(reader.messages) >= 3)
    assert {message.status for message in reader.messages} == {"queued"}
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert harness.change_notifier.watches(TENANT) == 0


async def test_an_ended_job_and_a_head_request_end_at_once() -> None:
    harness, reader = Harness(), Reader(("x-head", "1"))
    await harness.open(reader)
    assert reader.messages == []
    harness.jobs.job, reader = COMPLETED, Reader()
    await harness.open(reader)
    assert [message.id for message in reader.messages] == [format_job_id(QUEUED.id)]


async def test_a_stream_survives_an_outage_but_not_the_deletion_of_its_session() -> None:
    harness, reader = Harness(), Reader()
    task = harness.open(reader)
    await until(lambda: len(reader.messages) == 1)
    harness.jobs.fails = StorageUnavailable("away")
    await until(lambda: harness.jobs.reads > 5 and len(reader.messages) >= 2)
    harness.jobs.fails = JobNotFound(format_job_id(QUEUED.id))
    with pytest.raises(JobNotFound):
        await task


async def test_streams_of_jobs_take_the_places_of_watches_and_end_with_the_server() -> None:
    harness = Harness(most=1)
    task = harness.open(Reader())
    await until(lambda: harness.change_notifier.watches(TENANT) == 1)
    with pytest.raises(NoCapacity):
        await harness.open(Reader())
    harness.drain.begin(0)
    with pytest.raises(ServerStopping):
        await task
