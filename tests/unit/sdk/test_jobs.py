"""Batch jobs of the SDK, against a service that answers what each test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from dalston import AsyncClient, Client, JobActive, JobRunning, JobStatus, NotFound, Unavailable, errors
from dalston.backoff import Backoff
from dalston.events import Reconnecting
from dalston.v1 import job_pb2, job_pb2_grpc, session_pb2, session_pb2_grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

ENDED = ("completed", "failed", "canceled")


def a_job(status: str, **changes: Any) -> job_pb2.Job:
    job = job_pb2.Job(id="job_1", session_id="sess_1", kind="enhance", status=status, model="accurate", **changes)
    job.created_at.FromSeconds(1_777_777_777)
    if status in ENDED:
        job.ended_at.FromSeconds(1_777_777_888)
    return job


async def abort(context: Any, code: grpc.StatusCode, reason: str, **metadata: str) -> None:
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=reason, domain="dalston.v1", metadata=metadata))
    status = Status(code=code.value[0], message="in words", details=[detail])
    await context.abort(code, "in words", (("grpc-status-details-bin", status.SerializeToString()),))


@dataclass
class Service(job_pb2_grpc.JobServiceServicer, session_pb2_grpc.SessionServiceServicer):
    requests: list[Any] = field(default_factory=list)
    watched: list[list[job_pb2.Job | None]] = field(default_factory=list)
    """The messages of each watch; None cuts the connection."""
    failure: tuple[grpc.StatusCode, str, dict[str, str]] | None = None

    async def take(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        if self.failure is not None:
            code, reason, metadata = self.failure
            await abort(context, code, reason, **metadata)

    async def ListJobs(self, request: Any, context: Any) -> job_pb2.ListJobsResponse:  # type: ignore[override]
        await self.take(request, context)
        first = int(request.cursor or 0)
        numbers = range(first, min(first + request.limit, 250))
        page = job_pb2.ListJobsResponse(jobs=[job_pb2.Job(id=str(each), status="queued") for each in numbers])
        if numbers.stop < 250:
            page.next_cursor = str(numbers.stop)
        return page

    async def GetJob(self, request: Any, context: Any) -> job_pb2.Job:  # type: ignore[override]
        await self.take(request, context)
        return a_job("queued", queue_position=3, vocabulary=["Norland"], step="turn")

    async def CancelJob(self, request: Any, context: Any) -> job_pb2.Job:  # type: ignore[override]
        await self.take(request, context)
        return a_job("canceled")

    async def RetryJob(self, request: Any, context: Any) -> job_pb2.Job:  # type: ignore[override]
        await self.take(request, context)
        return a_job("queued")

    async def EnhanceSession(self, request: Any, context: Any) -> job_pb2.Job:  # type: ignore[override]
        await self.take(request, context)
        return a_job("queued")

    async def WatchJob(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await self.take(request, context)
        for message in self.watched.pop(0):
            if message is None:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
            await context.write(message)
        if not self.watched:
            await asyncio.sleep(60)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def client(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setattr("dalston.async_jobs._WATCH_BACKOFF", Backoff(first=0.005, longest=0.02))
    async with serving(service) as url, AsyncClient(url, timeout=5) as client:
        yield client


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[str]:
    server = grpc.aio.server()
    job_pb2_grpc.add_JobServiceServicer_to_server(service, server)
    session_pb2_grpc.add_SessionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"http://127.0.0.1:{port}"
    await server.stop(None)


async def test_a_job_has_what_the_service_sends(client: AsyncClient, service: Service) -> None:
    job = await client.jobs.get("job_1")
    assert (job.status, job.step, job.queue_position, job.vocabulary) == (JobStatus.QUEUED, "turn", 3, ("Norland",))
    assert job.created_at == datetime.fromtimestamp(1_777_777_777, UTC)
    assert not job.has_ended
    assert (await client.jobs.cancel("job_1")).has_ended
    assert service.requests == [job_pb2.GetJobRequest(job_id="job_1"), job_pb2.CancelJobRequest(job_id="job_1")]


async def test_the_list_reads_pages_as_they_are_needed(client: AsyncClient, service: Service) -> None:
    jobs = [job.id async for job in client.jobs.list(status=JobStatus.QUEUED, kind="enhance", session_id="sess_1")]
    assert jobs == [str(number) for number in range(250)]
    assert [(each.cursor, each.status, each.kind, each.session_id) for each in service.requests] == [
        ("", "queued", "enhance", "sess_1"),
        ("100", "queued", "enhance", "sess_1"),
        ("200", "queued", "enhance", "sess_1"),
    ]
    assert len([job async for job in client.jobs.list(limit=130)]) == 130
    with pytest.raises(ValueError, match="limit"):
        await anext(client.jobs.list(limit=0))


async def test_an_enhancement_is_asked_for_with_all_its_options(client: AsyncClient, service: Service) -> None:
    await client.sessions.enhance("sess_1")
    await client.sessions.enhance(
        "sess_1", model="fast", language="fr", vocabulary=["Norland", "Dashwood"], linked=False
    )
    plain, full = service.requests
    assert plain == session_pb2.EnhanceSessionRequest(session_id="sess_1")
    assert not plain.HasField("linked")
    assert full == session_pb2.EnhanceSessionRequest(
        session_id="sess_1", model="fast", language="fr", vocabulary=["Norland", "Dashwood"], linked=False
    )


async def test_refusals_have_their_exceptions_and_are_not_retried(client: AsyncClient, service: Service) -> None:
    service.failure = (grpc.StatusCode.ALREADY_EXISTS, "ENHANCEMENT_RUNNING", {"job_id": "job_2"})
    with pytest.raises(JobRunning) as refused:
        await client.sessions.enhance("sess_1")
    assert refused.value.job_id == "job_2"
    service.failure = (grpc.StatusCode.ABORTED, "JOB_ACTIVE", {})
    with pytest.raises(JobActive):
        await client.jobs.retry("job_1")
    service.failure = (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_JOBS", {})
    with pytest.raises(errors.TooManyJobs):
        await client.jobs.retry("job_1")
    service.failure = (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", {})
    with pytest.raises(NotFound):
        await anext(client.jobs.watch("job_1"))
    assert len(service.requests) == 4


async def test_a_watch_reports_each_change_once_across_a_lost_connection(client: AsyncClient, service: Service) -> None:
    at_work = [a_job("running", progress=share) for share in (0.0, 0.5)]
    service.watched = [
        [a_job("queued"), a_job("queued"), at_work[0], None],
        [at_work[0], at_work[1], at_work[1], a_job("completed", version=2)],
        [],
    ]
    lost: list[Reconnecting] = []
    seen = [job async for job in client.jobs.watch("job_1", on_reconnect=lost.append)]
    assert [(job.status.value, job.progress) for job in seen] == [
        ("queued", 0.0),
        ("running", 0.0),
        ("running", 0.5),
        ("completed", 0.0),
    ]
    assert seen[-1].version == 2
    assert [each.attempt for each in lost] == [1]


@pytest.mark.parametrize("status", ENDED)
async def test_wait_returns_the_job_as_it_ended(client: AsyncClient, service: Service, status: str) -> None:
    service.watched = [[a_job("queued"), a_job(status)], []]
    assert (await client.jobs.wait("job_1")).status == status


async def test_wait_ends_after_its_timeout_and_leaves_the_job(client: AsyncClient, service: Service) -> None:
    service.watched = [[a_job("queued")]]
    with pytest.raises(TimeoutError, match=r"job job_1 has not ended within 0\.1 seconds"):
        await client.jobs.wait("job_1", timeout=0.1)
    assert len(service.requests) == 1


async def test_wait_fails_where_no_service_responds() -> None:
    async with AsyncClient("http://127.0.0.1:1", timeout=0.2) as client:
        with pytest.raises(Unavailable):
            await client.jobs.wait("job_1")


async def test_the_synchronous_client_has_the_same_calls(service: Service) -> None:
    service.watched = [[a_job("running"), a_job("completed")], [a_job("completed")], []]
    async with serving(service) as url:

        def use(client: Client) -> list[Callable[[], object]]:
            return [
                lambda: [job.status.value for job in client.jobs.watch("job_1")],
                lambda: client.jobs.wait("job_1", 5).status.value,
                lambda: client.jobs.retry("job_1").status.value,
                lambda: client.jobs.cancel("job_1").status.value,
                lambda: client.jobs.get("job_1").status.value,
                lambda: len(list(client.jobs.list(limit=3))),
                lambda: client.sessions.enhance("sess_1", linked=True).id,
            ]

        def run() -> list[object]:
            with Client(url) as client:
                return [call() for call in use(client)]

        assert await asyncio.to_thread(run) == [
            ["running", "completed"],
            "completed",
            "queued",
            "canceled",
            "queued",
            3,
            "job_1",
        ]
