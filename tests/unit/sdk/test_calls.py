"""Calls against a fake service that fails in prescribed ways."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from dalston import (
    AsyncClient,
    ChangeType,
    Client,
    DeadlineExceeded,
    NotFound,
    PartialResult,
    RateLimited,
    Reconnecting,
    Scope,
    ServerError,
    Session,
    SessionActive,
    SessionStatus,
    Unavailable,
    Unsupported,
    Utterance,
    background,
)
from dalston.backoff import Backoff
from dalston.v1 import job_pb2, key_pb2, key_pb2_grpc, session_pb2, session_pb2_grpc, transcription_pb2
from google.api.httpbody_pb2 import HttpBody
from websockets.asyncio.server import ServerConnection, serve

from tests.unit.sdk.service import LOST, Failure, abort

WAV = bytes(range(256)) * 40
ACTIVE = Failure(grpc.StatusCode.ABORTED, "SESSION_ACTIVE")
GONE = Failure(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


class Records(session_pb2_grpc.SessionServiceServicer, key_pb2_grpc.KeyServiceServicer):
    """Fails the n-th call with the n-th of `failures`, if there is one."""

    def __init__(self, *failures: Failure | None) -> None:
        self.failures = list(failures)
        self.calls: list[Any] = []
        self.is_asked = asyncio.Event()
        self.metadata: list[dict[str, str]] = []
        self.takes_ranges = True
        self.counted = 10_000
        self.break_after = 3000
        self.messages: list[list[session_pb2.WatchSessionsResponse | session_pb2.WatchUtterancesResponse | None]] = []

    async def take(self, request: Any, context: Any) -> None:
        self.calls.append(request)
        self.is_asked.set()
        self.metadata.append(dict(context.invocation_metadata()))
        if self.failures and (failure := self.failures.pop(0)):
            await abort(context, failure)

    async def GetSession(self, request: Any, context: Any) -> session_pb2.Session:  # type: ignore[override]
        await self.take(request, context)
        return session_pb2.Session(id=request.session_id, status="dreaming")

    async def DeleteSession(self, request: Any, context: Any) -> session_pb2.DeleteSessionResponse:  # type: ignore[override]
        await self.take(request, context)
        return session_pb2.DeleteSessionResponse(deleted=True, session_id=request.session_id)

    async def ListSessions(self, request: Any, context: Any) -> session_pb2.ListSessionsResponse:  # type: ignore[override]
        await self.take(request, context)
        first = int(request.cursor or 0)
        ids = [str(number) for number in range(first, min(first + request.limit, 250))]
        pagination = session_pb2.Pagination(total=min(250, self.counted), total_is_exact=self.counted >= 250)
        if first + request.limit < 250:
            pagination.next_cursor = str(first + request.limit)
        return session_pb2.ListSessionsResponse(
            sessions=[session_pb2.Session(id=each, status="completed") for each in ids], pagination=pagination
        )

    async def ListUtterances(self, request: Any, context: Any) -> session_pb2.ListUtterancesResponse:  # type: ignore[override]
        await self.take(request, context)
        utterances = [session_pb2.Utterance(index=i, start=i, end=i + 1, text=f"u{i}") for i in range(len(self.calls))]
        return session_pb2.ListUtterancesResponse(utterances=utterances[request.offset :], has_more=len(self.calls) < 3)

    async def GetAudio(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await self.take(request, context)
        first, asked = 0, self.metadata[-1].get("range")
        if asked and self.takes_ranges:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            await context.send_initial_metadata((("content-range", f"bytes {first}-{len(WAV) - 1}/{len(WAV)}"),))
        last = min(len(WAV), first + self.break_after if self.takes_ranges else len(self.calls) * self.break_after)
        for start in range(first, last, 700):
            await context.write(HttpBody(data=WAV[start : min(start + 700, last)]))
        if last < len(WAV):
            await abort(context, LOST)

    async def WatchSessions(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await self.take(request, context)
        for message in self.messages[len(self.calls) - 1]:
            if message is None:
                await abort(context, LOST)
            await context.write(message)
        if len(self.calls) == len(self.messages):
            await asyncio.sleep(60)

    async def WatchUtterances(self, request: Any, context: Any) -> None:  # type: ignore[override]
        await self.WatchSessions(request, context)

    async def EnhanceSession(self, request: Any, context: Any) -> job_pb2.Job:  # type: ignore[override]
        await self.take(request, context)
        return job_pb2.Job(id="job_1", session_id=request.session_id, status="queued")

    async def CreateKey(self, request: Any, context: Any) -> key_pb2.CreateKeyResponse:  # type: ignore[override]
        await self.take(request, context)
        if request.name == "slow":
            await asyncio.sleep(60)
        return key_pb2.CreateKeyResponse(key=key_pb2.Key(id="key_1", scopes=["realtime", "moon"]), secret="s3cret")


@asynccontextmanager
async def serving(records: Records, **options: Any) -> AsyncIterator[AsyncClient]:
    server = grpc.aio.server()
    session_pb2_grpc.add_SessionServiceServicer_to_server(records, server)
    key_pb2_grpc.add_KeyServiceServicer_to_server(records, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with AsyncClient(f"http://127.0.0.1:{port}", **options) as client:
            yield client
    finally:
        await server.stop(None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = Backoff(first=0.005, longest=0.02)
    monkeypatch.setattr("dalston.calls._BACKOFF", quick)
    monkeypatch.setattr("dalston.async_sessions._WATCH_BACKOFF", quick)


async def test_idempotent_calls_are_retried() -> None:
    limited = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after_seconds="0.2")
    records = Records(LOST, Failure(grpc.StatusCode.INTERNAL), limited)
    began = time.monotonic()
    async with serving(records) as client:
        session = await client.sessions.get("sess_1")
    assert session.id == "sess_1"
    assert session.status is SessionStatus.UNKNOWN
    assert len(records.calls) == 4
    assert time.monotonic() - began >= 0.2


async def test_rejected_call_is_not_retried() -> None:
    records = Records(GONE)
    async with serving(records) as client:
        with pytest.raises(NotFound):
            await client.sessions.get("sess_1")
    assert len(records.calls) == 1


async def test_creating_calls_are_not_retried() -> None:
    for failure in (LOST, Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")):
        records = Records(failure, failure)
        async with serving(records) as client:
            with pytest.raises((Unavailable, RateLimited)):
                await client.keys.create("mine", [Scope.REALTIME])
            with pytest.raises((Unavailable, RateLimited)):
                await client.sessions.enhance("sess_1")
        assert len(records.calls) == 2


async def test_retries_end_with_the_timeout() -> None:
    records = Records(*[LOST] * 1000)
    began = time.monotonic()
    async with serving(records, timeout=0.3) as client:
        with pytest.raises(Unavailable):
            await client.sessions.get("sess_1")
    assert time.monotonic() - began < 5
    assert len(records.calls) > 3


async def test_unresponsive_service_times_out() -> None:
    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(task := asyncio.create_task(receive(reader, writer)))
        await asyncio.wait((task,))

    connections: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with AsyncClient(f"http://127.0.0.1:{port}", timeout=0.3) as client:
        with pytest.raises(Unavailable):
            await client.sessions.get("sess_1")
    server.close()
    await asyncio.gather(*connections, return_exceptions=True)


async def test_delete_succeeds_after_a_lost_response() -> None:
    records = Records(LOST, GONE)
    async with serving(records) as client:
        await client.sessions.delete("sess_1")
        assert len(records.calls) == 2
        records.failures = [GONE]
        with pytest.raises(NotFound):
            await client.sessions.delete("sess_1")
        records.failures = [ACTIVE]
        with pytest.raises(SessionActive):
            await client.sessions.delete("sess_1")


async def test_list_fetches_pages_only_as_far_as_it_is_read() -> None:
    records = Records()
    async with serving(records) as client:
        assert [session.id async for session in client.sessions.list()] == [str(number) for number in range(250)]
        assert [call.limit for call in records.calls] == [100, 100, 100]
        records.calls.clear()
        assert len([session async for session in client.sessions.list(limit=120)]) == 120
        assert [call.limit for call in records.calls] == [100, 20]
        records.calls.clear()
        async for _ in client.sessions.list():
            break
        assert len(records.calls) == 1


@pytest.mark.parametrize(("counted", "is_exact"), [(1000, True), (200, False)])
async def test_page_reports_whether_its_total_is_exact(counted: int, is_exact: bool) -> None:
    records = Records()
    records.counted = counted
    async with serving(records) as client:
        page = await client.sessions.page(limit=10)
    assert (page.total, page.total_is_exact, page.next_cursor) == (min(counted, 250), is_exact, "10")


@pytest.mark.parametrize("takes_ranges", [True, False])
async def test_broken_download_continues_where_it_stopped(takes_ranges: bool, tmp_path: Path) -> None:
    records = Records()
    records.takes_ranges = takes_ranges
    async with serving(records) as client:
        audio = client.sessions.audio("sess_1", linked=True)
        assert await audio.read() == WAV
        assert len(records.calls) == 4
        assert all(call.linked for call in records.calls)
        assert [metadata.get("range") for metadata in records.metadata] == [
            None,
            *(f"bytes={position}-" for position in (3000, 6000, 9000)),
        ]
        records.calls.clear()
        assert await audio.save(tmp_path / "a.wav") == len(WAV)
    assert (tmp_path / "a.wav").read_bytes() == WAV


async def test_download_from_an_offset_reports_the_size_of_the_file() -> None:
    records = Records()
    async with serving(records) as client:
        audio = client.sessions.audio("sess_1", start=4000)
        assert (audio.start, audio.size) == (4000, None)
        assert await audio.read() == WAV[4000:]
        assert audio.size == len(WAV)
        assert records.metadata[0]["range"] == "bytes=4000-"
        with pytest.raises(ValueError, match="start"):
            client.sessions.audio("sess_1", start=-1)


async def test_recording_that_changes_during_download_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(Records()) as client:
        audio = client.sessions.audio("sess_1")
        pieces = aiter(audio)
        for _ in range(5):  # The first response breaks after 3000 bytes.
            await anext(pieces)
        assert await client.sessions.audio("sess_1", start=3000).read() == WAV[3000:]
        monkeypatch.setattr(audio, "size", len(WAV) + 1)
        with pytest.raises(ServerError, match="changed during the download"):
            await anext(pieces)


async def test_failed_download_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"before")
    async with serving(Records(ACTIVE)) as client:
        with pytest.raises(SessionActive):
            await client.sessions.audio("sess_1").save(tmp_path / "a.wav")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.wav", b"before")]  # noqa: ASYNC240


async def test_utterances_are_followed_to_their_end() -> None:
    records = Records()
    async with serving(records) as client:
        utterances = [each async for each in client.sessions.utterances("sess_1", follow=True, interval=0.01)]
    assert [each.text for each in utterances] == ["u0", "u1", "u2"]
    assert [each.index for each in utterances] == [0, 1, 2]


async def test_watch_continues_after_the_last_change() -> None:
    def message(kind: str, token: str, session_id: str = "") -> session_pb2.WatchSessionsResponse:
        session = session_pb2.Session(id=session_id, status="active") if session_id else None
        return session_pb2.WatchSessionsResponse(type=kind, session=session, resume_token=token)

    records = Records()
    records.messages = [
        [message("snapshot", "t1", "a"), message("ready", "t2"), message("changed", "t3", "a"), None],
        [None],
        [message("heartbeat", "t4"), message("error", "t4")],
        [message("deleted", "t5", "a")],
    ]
    changes = []
    async with serving(records) as client:
        async for change in client.sessions.watch(status=SessionStatus.ACTIVE):
            changes.append(change)
            if change.type is ChangeType.DELETED:
                break
    assert [(change.type, change.session and change.session.id, change.resume_token) for change in changes] == [
        ("snapshot", "a", "t1"),
        ("ready", None, "t2"),
        ("changed", "a", "t3"),
        ("deleted", "a", "t5"),
    ]
    assert [call.resume_token for call in records.calls] == ["", "t3", "t3", "t4"]
    assert {call.status for call in records.calls} == {"active"}


def spoken(index: int) -> session_pb2.WatchUtterancesResponse:
    utterance = session_pb2.Utterance(index=index, text=f"u{index}")
    return session_pb2.WatchUtterancesResponse(type="utterance", utterance=utterance)


def unfinished(text: str) -> session_pb2.WatchUtterancesResponse:
    partial = transcription_pb2.Partial(text=text, start=1.0, end=2.0)
    return session_pb2.WatchUtterancesResponse(type="partial", partial=partial)


def a_broken_conversation() -> Records:
    def message(kind: str) -> session_pb2.WatchUtterancesResponse:
        return session_pb2.WatchUtterancesResponse(type=kind)

    records = Records()
    records.messages = [
        [message("heartbeat"), unfinished("a"), spoken(2), unfinished("b"), spoken(3), None],
        [None],
        [message("error")],
        [spoken(4), message("ended")],
        [],
    ]
    return records


async def test_follow_continues_after_the_last_utterance_until_the_end() -> None:
    records = a_broken_conversation()
    reports: list[Reconnecting] = []
    async with serving(records) as client:
        found = [each async for each in client.sessions.follow("sess_1", offset=2, on_reconnect=reports.append)]
    assert [each.text for each in found] == ["a", "u2", "b", "u3", "u4"]
    assert found[0] == PartialResult("a", 1.0, 2.0)
    assert [each.index for each in found if isinstance(each, Utterance)] == [2, 3, 4]
    assert [call.offset for call in records.calls] == [2, 4, 4, 4]
    assert {call.session_id for call in records.calls} == {"sess_1"}
    assert len(reports) == 3


async def test_follow_without_partials_on_the_synchronous_client() -> None:
    records = a_broken_conversation()

    def use(url: str) -> list[str]:
        with Client(url) as client:
            return [each.text for each in client.sessions.follow("sess_1", partials=False)]

    async with serving(records) as client:
        assert await asyncio.to_thread(use, f"http://{client._calls.endpoint.address}") == ["u2", "u3", "u4"]


async def test_follow_ends_with_an_error_that_a_retry_cannot_resolve() -> None:
    async with serving(Records(GONE)) as client:
        with pytest.raises(NotFound):
            await anext(client.sessions.follow("sess_1"))


async def test_watch_reports_reconnecting() -> None:
    records = Records(None, LOST, LOST)
    records.messages = [
        [session_pb2.WatchSessionsResponse(type="ready", resume_token="t1"), None],
        [],
        [],
        [session_pb2.WatchSessionsResponse(type="ready", resume_token="t2")],
    ]
    reports: list[Reconnecting] = []
    async with serving(records) as client:
        changes = client.sessions.watch(on_reconnect=reports.append)
        assert [(await anext(changes)).resume_token for _ in range(2)] == ["t1", "t2"]
    assert [each.attempt for each in reports] == [1, 2, 3]
    assert "cannot be reached" in reports[0].reason


async def test_watch_fails_if_the_service_was_never_available() -> None:
    async with serving(Records(*[LOST] * 1000), timeout=0.2) as client:
        with pytest.raises(Unavailable):
            await anext(client.sessions.watch())


async def test_closing_the_client_fails_calls_in_progress_without_cancelling_tasks() -> None:
    async def failing(run: Callable[[AsyncClient], Awaitable[object]]) -> None:
        records = Records()
        records.messages = [[]]
        async with serving(records) as client:
            running = asyncio.create_task(run(client))  # type: ignore[arg-type]
            await records.is_asked.wait()
            await client.close()
            with pytest.raises(RuntimeError, match="the client is closed"):
                await running

    await failing(lambda client: anext(client.sessions.watch()))
    await failing(lambda client: client.keys.create("slow", ["admin"]))


async def test_cancelling_the_caller_cancels_the_call() -> None:
    records = Records()
    records.messages = [[]]
    async with serving(records) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(client.sessions.watch())


async def test_watch_ends_with_an_error_that_a_retry_cannot_resolve() -> None:
    async with serving(Records(Failure(grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"))) as client:
        with pytest.raises(Unsupported):
            async for _ in client.sessions.watch():
                pass


async def test_key_is_sent_with_every_call_and_secrets_are_hidden() -> None:
    records = Records()
    async with serving(records, api_key="k3y") as client:
        made = await client.keys.create("mine", [Scope.REALTIME, "admin"], expires_in_seconds=60)
    assert records.metadata[0]["authorization"] == "Bearer k3y"
    assert records.calls[0].scopes == ["realtime", "admin"]
    assert made.secret == "s3cret"
    assert "s3cret" not in repr(made)
    assert made.key.scopes == {Scope.REALTIME, Scope.UNKNOWN}


async def test_silent_stream_times_out() -> None:
    records = Records()
    records.messages = [[]]
    async with serving(records) as client:
        stream = client._calls.stream(client._calls.sessions.WatchSessions, session_pb2.WatchSessionsRequest(), 0.1)
        with pytest.raises(DeadlineExceeded):
            async for _ in stream:
                pass


async def test_synchronous_client_runs_the_asynchronous_one() -> None:
    records = Records(LOST)

    def use(url: str) -> list[Session]:
        with Client(url) as client:
            assert client.sessions.get("sess_1").id == "sess_1"
            assert client.sessions.audio("sess_1").read() == WAV
            for _ in client.sessions.audio("sess_1"):
                break
            for _ in client.sessions.list():
                break
            return list(client.sessions.list(limit=150))

    async with serving(records) as client:
        listed = await asyncio.to_thread(use, f"http://{client._calls.endpoint.address}")
    assert len(listed) == 150
    assert len([thread for thread in threading.enumerate() if thread.name == "dalston"]) == 1


def test_interrupted_wait_cancels_the_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    def interrupted(*_: object) -> None:
        time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        background.run(endless())
    assert cancelled.wait(5)


def test_synchronous_client_rejects_calls_on_its_own_loop() -> None:
    async def inside() -> None:
        background.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="its own event loop"):
        background.run(inside())


def test_interpreter_exits_with_open_transcriptions(tmp_path: Path) -> None:
    program = """
import threading
from dalston import Client, Unavailable

def endless():
    yield b"12"
    threading.Event().wait()

client = Client("http://127.0.0.1:9")
listing = client.sessions.list()
stream = iter(client.transcribe(endless(), wait=60))
print(next(stream).attempt)
"""
    environment = {"PYTHONPATH": ":".join(each for each in sys.path if each)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert "Traceback" not in done.stderr


async def test_methods_of_an_unstarted_transcription_raise() -> None:
    with Client() as client:
        stream = client.transcribe(b"")
        for order in (stream.flush, stream.end, lambda: stream.set_language("en")):
            with pytest.raises(RuntimeError, match="not been started"):
                order()
    async with AsyncClient() as client:
        with pytest.raises(RuntimeError, match="not been started"):
            client.transcribe(b"").flush()


ASYNC_CALLS: dict[str, Callable[[AsyncClient], Awaitable[object]]] = {
    "list": lambda client: anext(client.sessions.list()),
    "page": lambda client: client.sessions.page(),
    "get": lambda client: client.sessions.get("s"),
    "delete": lambda client: client.sessions.delete("s"),
    "audio": lambda client: client.sessions.audio("s").read(),
    "transcript": lambda client: client.sessions.transcript("s"),
    "utterances": lambda client: anext(client.sessions.utterances("s")),
    "export": lambda client: client.sessions.export("s", "txt"),
    "watch": lambda client: anext(client.sessions.watch()),
    "follow": lambda client: anext(client.sessions.follow("s")),
    "enhance": lambda client: client.sessions.enhance("s"),
    "enhancement": lambda client: client.sessions.enhancement("s"),
    "list jobs": lambda client: anext(client.jobs.list()),
    "get a job": lambda client: client.jobs.get("j"),
    "cancel": lambda client: client.jobs.cancel("j"),
    "retry": lambda client: client.jobs.retry("j"),
    "watch a job": lambda client: anext(client.jobs.watch("j")),
    "wait": lambda client: client.jobs.wait("j"),
    "create a key": lambda client: client.keys.create("k", ["realtime"]),
    "list keys": lambda client: anext(client.keys.list()),
    "revoke": lambda client: client.keys.revoke("k"),
    "create a token": lambda client: client.tokens.create(),
    "enter": lambda client: client.__aenter__(),
}
CALLS: dict[str, Callable[[Client], object]] = {
    "list": lambda client: next(client.sessions.list()),
    "page": lambda client: client.sessions.page(),
    "get": lambda client: client.sessions.get("s"),
    "delete": lambda client: client.sessions.delete("s"),
    "audio": lambda client: client.sessions.audio("s").read(),
    "transcript": lambda client: client.sessions.transcript("s"),
    "utterances": lambda client: next(client.sessions.utterances("s")),
    "export": lambda client: client.sessions.export("s", "txt"),
    "watch": lambda client: next(client.sessions.watch()),
    "follow": lambda client: next(client.sessions.follow("s")),
    "enhance": lambda client: client.sessions.enhance("s"),
    "enhancement": lambda client: client.sessions.enhancement("s"),
    "list jobs": lambda client: next(client.jobs.list()),
    "get a job": lambda client: client.jobs.get("j"),
    "cancel": lambda client: client.jobs.cancel("j"),
    "retry": lambda client: client.jobs.retry("j"),
    "watch a job": lambda client: next(client.jobs.watch("j")),
    "wait": lambda client: client.jobs.wait("j"),
    "create a key": lambda client: client.keys.create("k", ["realtime"]),
    "list keys": lambda client: next(client.keys.list()),
    "revoke": lambda client: client.keys.revoke("k"),
    "create a token": lambda client: client.tokens.create(),
    "enter": lambda client: client.__enter__(),
    "transcribe": lambda client: client.transcribe(b"12", encoding="pcm_s16le"),
    "transcribe over WebSocket": lambda client: client.transcribe(b"1", encoding="alaw", transport="websocket"),
}


@pytest.mark.parametrize("call", ASYNC_CALLS)
@pytest.mark.parametrize("was_used", [True, False])
async def test_closed_client_raises(call: str, was_used: bool) -> None:
    async with serving(Records()) as client:
        if was_used:
            await client.sessions.get("sess_1")
        await client.close()
        with pytest.raises(RuntimeError, match=r"^the client is closed$"):
            await ASYNC_CALLS[call](client)
        await client.close()


async def test_closed_synchronous_client_raises() -> None:
    def use(url: str) -> list[str]:
        messages = []
        client = Client(url)
        waiting = client.transcribe(b"12", encoding="pcm_s16le", transport="websocket")
        client.sessions.get("sess_1")
        client.close()
        client.close()
        for call in (*CALLS.values(), lambda _client: waiting.wait(), lambda _client: waiting.__enter__()):
            with pytest.raises(RuntimeError) as refused:
                call(client)
            messages.append(str(refused.value))
        return messages

    async with serving(Records()) as client:
        messages = await asyncio.to_thread(use, f"http://{client._calls.endpoint.address}")
    assert set(messages) == {"the client is closed"}


FORKING = """
import os, signal, sys
from dalston import Client, DalstonError, FinalResult

used, address = sys.argv[1:]
signal.alarm(25)  # Ends a hanging process.
parent = Client(used, timeout=0.5)
try:
    parent.sessions.get("sess_1")
except DalstonError:
    pass
if {closes}:
    parent.close()
child = os.fork()
if child == 0:
    for client in (parent, Client(used, timeout=5)):
        for call in (client.sessions.get, lambda _id: list(client.transcribe(b"12", encoding="pcm_s16le"))):
            try:
                call("sess_1")
            except RuntimeError as error:
                print(error, flush=True)
        client.close()
    with Client(address) as client:
        events = list(client.transcribe(b"12", encoding="pcm_s16le", transport="websocket"))
    print("text:", events[-1].text, flush=True)
    sys.exit(7)
print("child:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("closes", [True, False])
async def test_forked_process_rejects_grpc_and_supports_websocket(closes: bool) -> None:
    async def answer(socket: ServerConnection) -> None:
        await socket.send('{"type":"session.begin","session_id":"s1","limits":{}}')
        async for frame in socket:
            if isinstance(frame, str) and "end" in frame:
                await socket.send('{"type":"transcript.final","text":"hello","start":0,"end":1}')
                await socket.send('{"type":"session.end","session_id":"s1"}')
                return

    records = Records()
    async with serving(records) as client, serve(answer, "127.0.0.1", 0) as bridge:
        port = bridge.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", FORKING.replace("{closes}", str(closes)), f"http://{client._calls.endpoint.address}"),
            f"http://127.0.0.1:{port}",
            env={"PYTHONPATH": ":".join(each for each in sys.path if each)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate()
    lines = out.decode().splitlines()
    closed = "the client is closed"
    assert [line for line in lines if line == closed] == [closed] * (2 if closes else 0), (lines, err)
    assert len([line for line in lines if "gRPC does not work in a process that was forked" in line]) == (
        2 if closes else 4
    )
    assert lines[-2:] == ["text: hello", "child: 7"], err.decode()
    assert len(records.calls) == 1
