"""The audit line of a client that disconnects during a download."""

import asyncio
import contextlib
import uuid
from typing import Any

import pytest
import structlog
from dalston.v1.job_pb2 import CancelJobRequest, GetJobRequest, RetryJobRequest, WatchJobRequest
from dalston.v1.session_pb2 import DeleteTranscriptRequest, GetTranscriptRequest
from structlog.testing import capture_logs

from domain.errors import InvalidSessionId
from domain.job import format_job_id
from domain.session_id import new_session_id
from domain.tenancy import Caller, current_caller
from server.rpc.audit import AuditInterceptor, write_last


class Reader:
    """A client that takes a message when `taken` is set."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed = False

    async def write(self, message: Any) -> None:
        self.begun.set()
        await self.taken


async def outcome_of(call: asyncio.Task[None]) -> str:
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await call
    (line,) = [line for line in lines if line["event"] == "session accessed"]
    return str(line["outcome"])


def download(reader: Any) -> asyncio.Task[None]:
    current_caller.set(Caller(uuid.uuid4()))

    async def call() -> None:
        await write_last(reader, "the rest")
        await asyncio.sleep(60)  # the call has not returned yet

    return asyncio.create_task(AuditInterceptor().around("GetAudio", call, reader))


async def test_a_download_is_whole_when_its_last_byte_was_written() -> None:
    reader = Reader()
    call = download(reader)
    await reader.begun.wait()
    reader.taken.set_result(None)
    await asyncio.sleep(0.01)
    call.cancel()
    assert await outcome_of(call) == "ok"


async def test_a_client_that_leaves_with_the_last_byte_has_cancelled_nothing() -> None:
    reader = Reader()
    call = download(reader)
    await reader.begun.wait()
    # Both are learnt of in the same turn of the loop.
    reader.taken.set_result(None)
    call.cancel()
    assert await outcome_of(call) == "ok"


async def test_a_client_that_leaves_before_the_last_byte_was_written_has_cancelled() -> None:
    reader = Reader()
    call = download(reader)
    await reader.begun.wait()
    call.cancel()
    assert await outcome_of(call) == "cancelled"
    assert reader.taken.cancelled()


async def test_a_last_byte_that_could_not_be_written_is_no_whole_download() -> None:
    reader = Reader()
    call = download(reader)
    await reader.begun.wait()
    reader.taken.set_exception(OSError("gone"))
    call.cancel()
    assert await outcome_of(call) == "cancelled"


@pytest.mark.parametrize(
    ("request_", "noted"),
    [
        (GetTranscriptRequest(version=3, linked=True), {"version": "3", "linked": "true"}),
        (DeleteTranscriptRequest(version=2), {"version": "2"}),
        (GetTranscriptRequest(), {}),
    ],
)
def test_the_line_names_the_version_that_was_asked_for(request_: Any, noted: dict[str, str]) -> None:
    request_.session_id = new_session_id()
    with structlog.contextvars.bound_contextvars():
        structlog.contextvars.clear_contextvars()
        AuditInterceptor().accept(request_)
        assert structlog.contextvars.get_contextvars() == {"session_id": request_.session_id, **noted}
        structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("method", ["ListJobs", "GetJob", "WatchJob", "CancelJob", "RetryJob"])
@pytest.mark.parametrize("failure", [None, InvalidSessionId])
async def test_every_call_about_a_job_has_a_line_with_its_outcome(method: str, failure: type[Exception] | None) -> None:
    caller = Caller(uuid.uuid4())
    current_caller.set(caller)

    async def call() -> None:
        if failure:
            raise failure

    with capture_logs() as lines, contextlib.suppress(InvalidSessionId):
        await AuditInterceptor().around(method, call, Reader())  # type: ignore[arg-type]
    outcome = "invalid_parameters" if failure else "ok"
    found = [(line["event"], line["method"], line["outcome"], line["tenant_id"]) for line in lines]
    assert found == [("job accessed", method, outcome, str(caller.tenant_id))]


@pytest.mark.parametrize("kind", [GetJobRequest, WatchJobRequest, CancelJobRequest, RetryJobRequest])
def test_the_line_names_the_job_unless_its_id_is_any_text(kind: Any) -> None:
    job_id = format_job_id(uuid.uuid4())
    for text, noted in ((job_id, {"job_id": job_id}), ("x" * 5000, {}), ("", {})):
        structlog.contextvars.clear_contextvars()
        AuditInterceptor().accept(kind(job_id=text))
        assert structlog.contextvars.get_contextvars() == noted
    structlog.contextvars.clear_contextvars()
