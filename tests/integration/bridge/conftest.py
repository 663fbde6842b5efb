"""A bridge between a real WebSocket client and a real gRPC server with a scripted servicer."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from dalston.v1 import transcription_pb2 as pb
from dalston.v1.session_pb2 import ListSessionsResponse
from dalston.v1.session_pb2_grpc import SessionServiceServicer, add_SessionServiceServicer_to_server
from dalston.v1.transcription_pb2_grpc import (
    TranscriptionServiceServicer,
    add_TranscriptionServiceServicer_to_server,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bridge.config import BridgeSettings
from bridge.listener import open_listener
from bridge.protocols.interface import Protocols
from bridge.protocols.registry import PROTOCOLS
from edge.channel import open_channel

STREAM_PATH = "/v1/audio/transcriptions/stream"

# The keepalive of the bridge needs these options of a server.
SERVER_OPTIONS = (("grpc.http2.min_ping_interval_without_data_ms", 4000), ("grpc.so_reuseport", 0))


class Stream:
    """One call as a script sees it."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context
        self.metadata = dict(context.invocation_metadata())
        self.config: pb.TranscribeConfig | None = None
        self.received: list[pb.TranscribeRequest] = []
        self.written = 0
        self.ended = asyncio.Event()
        self.cancelled = False

    async def read(self) -> pb.TranscribeRequest | None:
        request = await self._context.read()
        if request is grpc.aio.EOF:
            # The end of the requests is a half-close or a cancel; a cancel shows at the next await.
            await asyncio.sleep(0)
            return None
        self.received.append(request)
        return request

    async def begin(self) -> None:
        request = await self.read()
        assert request is not None
        assert request.WhichOneof("request") == "config"
        self.config = request.config
        await self.write(session_begin=pb.SessionBegin(session_id="sess_0", limits={"max_message_bytes": 65536}))

    async def write(self, **response: Any) -> None:
        await self._context.write(pb.TranscribeResponse(**response))
        self.written += 1

    async def fail(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(reason=reason, domain="dalston.v1"))
        status = Status(code=code.value[0], message=message, details=[detail])
        await self._context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))

    @property
    def audio(self) -> bytes:
        return b"".join(request.audio for request in self.received)


Script = Callable[[Stream], Awaitable[None]]


async def transcribe(stream: Stream) -> None:
    """The script of a normal session: languages come back as finals, flushes as flushed."""
    await stream.begin()
    while request := await stream.read():
        match request.control.WhichOneof("control"):
            case "set_language":
                await stream.write(final=pb.Final(text=request.control.set_language.language))
            case "flush":
                await stream.write(flushed=pb.Flushed(timestamp=len(stream.audio) / 32000))
            case "end":
                break
        if not request.WhichOneof("request"):
            await stream.fail(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE", "the message is empty")
    await stream.write(session_end=pb.SessionEnd(session_id="sess_0", total_duration=len(stream.audio) / 32000))


class Servicer(TranscriptionServiceServicer):
    def __init__(self) -> None:
        self.script: Script = transcribe
        self.streams: list[Stream] = []
        self.arrived = asyncio.Condition()

    async def Transcribe(self, _requests, context):
        stream = Stream(context)
        async with self.arrived:
            self.streams.append(stream)
            self.arrived.notify_all()
        try:
            await self.script(stream)
        except asyncio.CancelledError:
            stream.cancelled = True
            raise
        finally:
            stream.ended.set()

    async def stream(self, number: int = 0) -> Stream:
        """The stream of this number, once it exists."""
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: len(self.streams) > number)
        return self.streams[number]


class Sessions(SessionServiceServicer):
    """Returns how many sessions a caller has, if a test has set it."""

    def __init__(self) -> None:
        self.own: dict[str, int] | None = None

    async def ListSessions(self, request, context):
        if self.own is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED)
        count = self.own.get(dict(context.invocation_metadata()).get("authorization", ""))
        if count is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED)
        assert request.status == "active"
        return ListSessionsResponse(pagination={"total": count})


class Backend:
    """A gRPC server that can be killed and restarted on its port."""

    def __init__(self) -> None:
        self.servicer = Servicer()
        self.sessions = Sessions()
        self.port = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server(options=SERVER_OPTIONS)
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        add_TranscriptionServiceServicer_to_server(self.servicer, self._server)
        add_SessionServiceServicer_to_server(self.sessions, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def drain(self) -> None:
        """Sets the health to NOT_SERVING; streams continue."""
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None


class Client:
    """A WebSocket client that decodes messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            message = json.loads(await self.socket.recv())
        assert isinstance(message, dict)
        return message

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def rest(self) -> tuple[list[dict[str, Any]], int]:
        """The messages until the connection is closed, and the close code."""
        messages = []
        try:
            while True:
                messages.append(await self.receive())
        except ConnectionClosed:
            return messages, self.code

    @property
    def code(self) -> int:
        assert self.socket.close_code is not None
        return self.socket.close_code


class Bridge:
    def __init__(self, port: int, backend: Backend) -> None:
        self.port = port
        self.backend = backend
        self.servicer = backend.servicer

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{STREAM_PATH}"

    @asynccontextmanager
    async def connect(self, query: str = "", **options: Any) -> AsyncIterator[Client]:
        address = f"{self.url}?{query}" if query else self.url
        async with connect(address, proxy=None, compression=None, **options) as socket:
            yield Client(socket)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = Backend()
    await backend.start()
    yield backend
    await backend.stop()


@pytest.fixture
async def start_bridge(backend: Backend) -> AsyncIterator[Callable[..., Awaitable[Bridge]]]:
    """Starts a bridge with the given settings; it is stopped when the test ends, and must not leak a task."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:

        async def start(protocols: Protocols = PROTOCOLS, **settings: Any) -> Bridge:
            channel = await stack.enter_async_context(open_channel(f"127.0.0.1:{backend.port}"))
            defaults = {"bridge_port": 0, "shutdown_seconds": 0.5, "bridge_close_seconds": 1}
            listening = open_listener(BridgeSettings(**(defaults | settings)), channel, protocols)
            port = await stack.enter_async_context(listening)
            return Bridge(port, backend)

        yield start
    leaked = [task for task in asyncio.all_tasks() - before if "bridge" in repr(task.get_coro())]
    assert not leaked


@pytest.fixture
async def bridge(start_bridge: Callable[..., Awaitable[Bridge]]) -> Bridge:
    return await start_bridge()
