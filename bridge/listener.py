"""The listening socket: who is let in, how each is seen off, and how all are when the process stops."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, cast

import grpc
import websockets.http11
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from bridge import metrics
from bridge.call import ServerCall
from bridge.client import ClientSocket
from bridge.closing import GONE, CloseReason, close_reason_for
from bridge.config import BridgeSettings
from bridge.frames import encode_error
from bridge.inquiry import Capacity, Inquiry
from bridge.metadata import Metadata
from bridge.parameters import MAX_QUERY_BYTES
from bridge.relay import relay
from bridge.responses import answer, in_json
from telemetry.logs import get_logger

log = get_logger(__name__)

REFUSED_AT_ONCE = 64
"""Refused clients that may take their time to hear why and to leave. Beyond that the first to come is dropped."""

SPARE_CONNECTIONS = REFUSED_AT_ONCE + 64
"""Connections beyond the limit of WebSockets: for those that are refused, handshakes and health checks."""

FULL = close_reason_for("NO_CAPACITY", "the bridge serves as many streams as it can; try again shortly")

# A module global is all there is to set. The default, 8 KiB, would cut the vocabulary off long before its limit.
websockets.http11.MAX_LINE_LENGTH = MAX_QUERY_BYTES + 1024


@asynccontextmanager
async def open_listener(settings: BridgeSettings, channel: grpc.aio.Channel) -> AsyncIterator[int]:
    """Serves WebSockets while the block runs, and yields the port; 0 where it is a Unix socket.

    At the end of the block nobody else is let in, and those inside are told and get `settings.shutdown_seconds` to
    leave. Who has not is told `server_shutdown` and seen off.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = _Listener(settings, channel)
    if settings.bridge_socket is None:
        listen = partial(serve, listener.handle, settings.bridge_host, settings.bridge_port)
    else:
        listen = partial(unix_serve, listener.handle, str(settings.bridge_socket))
    async with listen(
        create_connection=listener.create_connection,  # type: ignore[arg-type]  # a factory will do, says its docstring
        process_request=listener.process_request,
        process_response=_process_response,
        # Clients come in bursts, after a deploy for example.
        backlog=settings.bridge_max_connections,
        server_header=None,
        # Audio hardly gets smaller by deflate, and the messages to the client are short. A context for each
        # connection would cost more memory than all of its buffers together.
        compression=None,
        open_timeout=settings.bridge_handshake_seconds,
        close_timeout=settings.relay_limits.close_seconds,
        # The relay pings by itself.
        ping_interval=None,
        # In frames: below this much is read ahead, beyond it TCP holds the client back.
        max_queue=16,
        logger=_logger(),
    ) as server:
        try:
            yield server.sockets[0].getsockname()[1] if settings.bridge_socket is None else 0
        finally:
            await listener.close(server)


class _Listener:
    """What all connections share."""

    def __init__(self, settings: BridgeSettings, channel: grpc.aio.Channel) -> None:
        self._settings = settings
        self._pages = settings.pages
        self._stub = TranscriptionServiceStub(channel)
        self._inquiry = Inquiry(channel)
        self._stopping = asyncio.Event()
        self._open: set[ClientSocket] = set()
        # In the order in which they came.
        self._refused: dict[ClientSocket, None] = {}

    def create_connection(self, protocol: ServerProtocol, server: Server, **options: Any) -> ClientSocket:
        return ClientSocket(
            protocol,
            server,
            max_connections=self._settings.bridge_max_connections + SPARE_CONNECTIONS,
            **options,
        )

    async def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        peer = cast(ClientSocket, connection).peer
        capacity = Capacity(len(self._open), self._settings.bridge_max_connections)
        return await self._inquiry.answer(request, peer, capacity) or answer(request, self._pages)

    async def handle(self, connection: ServerConnection) -> None:
        """Serves one WebSocket from the handshake to the close."""
        socket = cast(ClientSocket, connection)
        if len(self._open) >= self._settings.bridge_max_connections:
            await self._turn_away(socket, FULL)
            return
        self._open.add(socket)
        metrics.OPEN_CONNECTIONS.inc()
        try:
            close_reason = await relay(socket, self._transcribe, self._settings.relay_limits, self._stopping)
            if socket.has_begun:
                await self._see_off(socket, close_reason)
        finally:
            self._open.discard(socket)
            metrics.OPEN_CONNECTIONS.dec()
        if not socket.has_begun:
            await self._turn_away(socket, close_reason)

    async def _turn_away(self, socket: ClientSocket, close_reason: CloseReason) -> None:
        """Sees off a client that had no session. It holds no place meanwhile, and others drop it where many wait."""
        self._refused[socket] = None
        if len(self._refused) > REFUSED_AT_ONCE:
            first = next(iter(self._refused))
            del self._refused[first]
            first.abort()
        try:
            await self._see_off(socket, close_reason)
        finally:
            self._refused.pop(socket, None)

    async def close(self, server: Server) -> None:
        """Stops listening, ends every stream, and drops those that do not end in time."""
        self._stopping.set()
        server.close(close_connections=False)
        try:
            limits = self._settings.relay_limits
            # For a client whose last message and whose close both take the longest.
            async with asyncio.timeout(limits.grace_seconds + 2 * limits.close_seconds):
                await server.wait_closed()
        except TimeoutError:
            log.warning("streams did not end in time", streams=len(self._open))
            for socket in (*self._open, *self._refused):
                socket.abort()

    def _transcribe(self, metadata: Metadata) -> ServerCall:
        return ServerCall(self._stub.Transcribe(None, metadata=metadata))

    async def _see_off(self, socket: ClientSocket, close_reason: CloseReason) -> None:
        """Says the last words, and drops the connection where the client does not hear them in time."""
        metrics.CLOSED.labels(code=str(close_reason.close_code)).inc()
        if close_reason is not GONE:
            seconds = self._settings.relay_limits.close_seconds
            with suppress(TimeoutError):
                # A client that sends without reading hears nothing before it is rid of what it sends.
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                    group.create_task(_discard(socket))
                    group.create_task(_say(socket, close_reason))
        socket.abort()


async def _say(socket: ClientSocket, close_reason: CloseReason) -> None:
    with suppress(ConnectionClosed):
        if close_reason.code:
            await socket.send(encode_error(close_reason))
        await socket.close(close_reason.close_code, close_reason.code)


async def _discard(socket: ClientSocket) -> None:
    with suppress(ConnectionClosed):
        while True:
            # As bytes, for nobody reads it: text that is not UTF-8 would be an error.
            await socket.recv(decode=False)


def _process_response(_socket: ServerConnection, _request: Request, response: Response) -> Response:
    return in_json(response)


def _logger() -> logging.Logger:
    # At DEBUG the library logs whole requests, keys included, and at INFO a line or two for every connection.
    logger = logging.getLogger("websockets.server")
    logger.setLevel(logging.WARNING)
    return logger
