"""Graceful shutdown of the server, and of the bridge, while streams run through Envoy."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import pytest
from dalston.grpc_call import GrpcCall
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeRequest
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub
from websockets.exceptions import ConnectionClosed

from edge.closing import close_reason_of_failure
from stack import parts
from stack.envoy import Envoy
from stack.parts import Programs
from stack.ports import free_port
from stack.process import Process
from stack.settings import StackSettings
from stack.supervisor import Stack, running_stack
from tests.e2e.conftest import Client, Sample, chunks

GRACE = 6
STORED = {"store_audio": "true", "store_transcript": "true", "language": "en"}


@pytest.fixture
def own_stack(tmp_path: Path, weights_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack of the test's own, whose server may be stopped."""
    monkeypatch.setenv("DALSTON_SHUTDOWN_SECONDS", str(GRACE))
    settings = StackSettings(
        home=tmp_path, port=free_port(), auth="none", cache_dir=weights_cache, database_url=None, s3_endpoint_url=None
    )
    with running_stack(settings) as stack:
        yield stack


@pytest.fixture
def own_bridge(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, Process]]:
    """The shared stack behind an Envoy and a bridge of the test's own, which may be stopped."""
    env = {
        "DALSTON_SERVER_TARGET": f"unix:{stack.endpoints.server_socket}",
        "DALSTON_SHUTDOWN_SECONDS": str(GRACE),
    }
    # Beside the sockets of the stack, for the same user.
    home = stack.home
    path = home.socket("own")
    endpoints = replace(stack.endpoints, port=free_port(), bridge_socket=path)
    with ExitStack() as parts_of_its_own:
        own = parts.bridge(Programs().bridge, home, env, path)
        process = parts_of_its_own.enter_context(own.launch())
        process.wait_until(own.is_ready, own.ready_seconds)
        proxy = Envoy(home.data("own-envoy"), endpoints, home.identity, log=tmp_path / "envoy.log")
        front = parts_of_its_own.enter_context(proxy.launch())
        front.wait_until(proxy.is_ready, 30)
        yield replace(stack, port=endpoints.port), process


def part(stack: Stack, name: str) -> Process:
    return next(process for process in stack.processes if process.name == name)


async def exit_code(process: Process, seconds: float) -> int:
    async with asyncio.timeout(seconds):
        while (code := process.exit_code()) is None:  # noqa: ASYNC110 - Popen has no event
            await asyncio.sleep(0.05)
    return code


async def row(stack: Stack, session_id: str) -> dict[str, Any]:
    """The row of a session, read from Postgres because the server has stopped."""
    connection = await asyncpg.connect(stack.database_url)
    try:
        found = await connection.fetchrow(
            "SELECT * FROM realtime_sessions WHERE id = $1", UUID(session_id.removeprefix("sess_"))
        )
    finally:
        await connection.close()
    return dict(found)


class LiveClient:
    """A WebSocket client that sends speech in real time until it is notified of the shutdown or the socket closes."""

    def __init__(self, client: Client, sample: Sample) -> None:
        self._client = client
        self._pieces = chunks(sample.pcm.tobytes())
        self.messages: list[dict[str, Any]] = []
        self.code: int | None = None
        self.begun = asyncio.Event()
        self.notified = asyncio.Event()

    @property
    def session_id(self) -> str:
        return str(self.messages[0]["session_id"])

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.messages]

    async def run(self, *, ends_when_notified: bool) -> None:
        async with self._client.open(**STORED) as socket:
            reading = asyncio.create_task(self._read(socket))
            try:
                for piece in self._pieces:
                    await socket.send(piece)
                    await asyncio.sleep(0.1)
                    if ends_when_notified and self.notified.is_set():
                        await socket.send('{"type":"end"}')
                        break
            except ConnectionClosed:
                pass
            await reading
            self.code = socket.close_code

    async def _read(self, socket: Any) -> None:
        try:
            while True:
                message = json.loads(await socket.recv())
                self.messages.append(message)
                self.begun.set()
                if message["type"] == "session.terminating":
                    self.notified.set()
        except ConnectionClosed:
            pass


async def native(stack: Stack, sample: Sample) -> tuple[str, str, str]:
    """A gRPC client that ignores the notice. Returns its session's id, and status and error code of its end."""
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        call = GrpcCall(TranscriptionServiceStub(channel).Transcribe())
        config = TranscribeConfig(language="en", store_audio=True, store_transcript=True)
        await call.write(TranscribeRequest(config=config))
        begin = await call.read()
        assert begin is not None

        async def send() -> None:
            for piece in chunks(sample.pcm.tobytes()):
                await call.write(TranscribeRequest(audio=piece))
                await asyncio.sleep(0.1)

        sending = asyncio.create_task(send())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while await call.read() is not None:
                pass
        sending.cancel()
        await asyncio.wait({sending})
        return begin.session_begin.session_id, ended.value.code().name, close_reason_of_failure(ended.value).code


@pytest.mark.timeout(120)
async def test_a_stopping_server_lets_streams_finish_and_stores_all(own_stack: Stack, sample: Sample) -> None:
    client = Client(own_stack)
    polite, stubborn = LiveClient(client, sample), LiveClient(client, sample)
    async with client.http, asyncio.TaskGroup() as group:
        group.create_task(polite.run(ends_when_notified=True))
        group.create_task(stubborn.run(ends_when_notified=False))
        careless = group.create_task(native(own_stack, sample))
        await polite.begun.wait()
        await stubborn.begun.wait()
        await asyncio.sleep(5)
        server = part(own_stack, "server")
        server.popen.send_signal(signal.SIGTERM)
        async with asyncio.timeout(3):
            await polite.notified.wait()
            await stubborn.notified.wait()
        await asyncio.sleep(0.5)
        refused = await client.transcribe(*chunks(sample.pcm[:16_000].tobytes()))
    assert refused.messages[-1]["code"] in ("unavailable", "server_shutdown")
    assert refused.messages[-1]["recoverable"] is True
    assert refused.close_code in (4503, 1012)

    assert polite.code == 1000
    assert polite.kinds()[-1] == "session.end"
    assert (stubborn.code, stubborn.messages[-1]["code"]) == (1012, "server_shutdown")
    assert stubborn.kinds()[-2] == "transcript.final"  # the utterance in progress at the end
    terminating = next(m for m in stubborn.messages if m["type"] == "session.terminating")
    assert terminating["resume_session_id"] == stubborn.session_id
    assert GRACE - 1 < terminating["grace_seconds"] <= GRACE
    native_id, status, reason = careless.result()
    assert (status, reason) == ("UNAVAILABLE", "server_shutdown")

    assert await exit_code(server, 30) == 0
    for session_id, expected in (
        (polite.session_id, "completed"),
        (stubborn.session_id, "interrupted"),
        (native_id, "interrupted"),
    ):
        found = await row(own_stack, session_id)
        assert found["status"] == expected
        assert found["audio_uri"]
        assert found["transcript_uri"]
    # It was received before the signal and during the grace period; a client on a busy machine sends a little slower.
    assert (await row(own_stack, stubborn.session_id))["audio_duration_seconds"] > GRACE + 1


@pytest.mark.timeout(120)
async def test_a_stopping_bridge_lets_websockets_finish(own_bridge: tuple[Stack, Process], sample: Sample) -> None:
    stack, bridge = own_bridge
    client = Client(stack)
    polite, stubborn = LiveClient(client, sample), LiveClient(client, sample)
    async with client.http:
        async with asyncio.TaskGroup() as group:
            group.create_task(polite.run(ends_when_notified=True))
            group.create_task(stubborn.run(ends_when_notified=False))
            await polite.begun.wait()
            await stubborn.begun.wait()
            await asyncio.sleep(3)
            bridge.popen.send_signal(signal.SIGTERM)
        assert polite.code == 1000
        assert (stubborn.code, stubborn.messages[-1]["code"]) == (1012, "server_shutdown")
        assert await exit_code(bridge, 10) == 0
        record = {}
        async with asyncio.timeout(20):
            while "transcript_uri" not in record or "audio_uri" not in record:
                record = (await client.http.get(f"/v1/realtime/sessions/{stubborn.session_id}")).json()
                await asyncio.sleep(0.1)
    assert record["status"] == "interrupted"
