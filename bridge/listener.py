"""The listening socket: which connections are admitted, and how they are closed, also when the process stops."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import websockets.http11
from dalston.grpc_call import GrpcCall
from dalston.v1.transcription_pb2_grpc import TranscriptionServiceStub
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from bridge import metrics
from bridge.client import ClientSocket
from bridge.config import BridgeSettings
from bridge.protocols.interface import MAX_QUERY_BYTES, Closing, Opening, Protocols
from bridge.protocols.registry import PROTOCOLS
from bridge.readiness import Capacity, Readiness
from bridge.relay import Relay, TranscribeCall
from bridge.responses import answer, in_json
from edge.closing import DISCONNECTED, CloseReason, close_reason_for
from edge.metadata import call_metadata
from edge.refusal import Refused
from telemetry.logs import get_logger

log = get_logger(__name__)

REFUSED_AT_ONCE = 64
"""Refused clients that get time to read the error and to close. Beyond that the one refused first is dropped."""

SPARE_CONNECTIONS = REFUSED_AT_ONCE + 64
"""Connections beyond the limit of WebSockets: for those that are refused, handshakes and health checks."""

FULL = close_reason_for("NO_CAPACITY", "the bridge serves as many streams as it can; try again shortly")

# The library has no other way to set it. The default, 8 KiB, is far below the longest vocabulary.
websockets.http11.MAX_LINE_LENGTH = MAX_QUERY_BYTES + 1024


@asynccontextmanager
async def open_listener(
    settings: BridgeSettings, channel: grpc.aio.Channel, protocols: Protocols = PROTOCOLS
) -> AsyncIterator[int]:
    """Serves WebSockets while the block runs, and yields the port; 0 where it is a Unix socket.

    At the end of the block no further connection is admitted. Clients are notified and get `settings.shutdown_seconds`
    to finish; those that have not are closed with SERVER_SHUTDOWN.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = _Listener(settings, channel, protocols)
    if settings.bridge_socket is None:
        listen = partial(serve, listener.handle, settings.bridge_host, settings.bridge_port)
    else:
        listen = partial(unix_serve, listener.handle, str(settings.bridge_socket))
    async with listen(
        create_connection=listener.create_connection,  # type: ignore[arg-type]  # its docstring allows any factory
        process_request=listener.process_request,
        process_response=listener.process_response,
        # Clients connect in bursts, after a deploy for example.
        backlog=settings.bridge_max_connections,
        server_header=None,
        # Audio hardly gets smaller by deflate, and the messages to the client are short. A context for each
        # connection would cost more memory than all of its buffers together.
        compression=None,
        open_timeout=settings.bridge_handshake_seconds,
        close_timeout=settings.relay_limits.close_seconds,
        # The relay sends pings itself.
        ping_interval=None,
        # In frames: so many are read ahead; beyond that, TCP slows the client.
        max_queue=16,
        logger=_logger(),
    ) as server:
        try:
            yield server.sockets[0].getsockname()[1] if settings.bridge_socket is None else 0
        finally:
            await listener.close(server)


class _Listener:
    """What all connections share."""

    def __init__(self, settings: BridgeSettings, channel: grpc.aio.Channel, protocols: Protocols) -> None:
        self._settings = settings
        self._pages = settings.pages
        self._protocols = protocols
        self._stub = TranscriptionServiceStub(channel)
        self._readiness = Readiness(channel)
        self._stopping = asyncio.Event()
        self._open: set[ClientSocket] = set()
        # What the handshake of a connection led to, until `handle` takes it over.
        self._prepared: dict[ClientSocket, Relay | CloseReason] = {}
        # In the order of the refusals.
        self._refused: dict[ClientSocket, None] = {}

    def create_connection(self, protocol: ServerProtocol, server: Server, **options: Any) -> ClientSocket:
        return ClientSocket(
            protocol,
            server,
            max_connections=self._settings.bridge_max_connections + SPARE_CONNECTIONS,
            on_lost=self._connection_lost,
            **options,
        )

    async def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """The response to a request that is refused or is no handshake."""
        socket = cast(ClientSocket, connection)
        capacity = Capacity(len(self._open), self._settings.bridge_max_connections)
        response = await self._readiness.answer(request, socket.peer, capacity) or answer(
            request, self._pages, self._protocols
        )
        if response is None:
            socket.client_protocol = self._protocols[urlsplit(request.path).path]()
        return response

    async def process_response(
        self, connection: ServerConnection, request: Request, response: Response
    ) -> Response | None:
        """The response to a valid handshake: 101, or the refusal of a protocol that refuses at the handshake."""
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return in_json(response)
        socket = cast(ClientSocket, connection)
        if socket.is_lost:
            return None  # `handle` is not called for it.
        try:
            address = urlsplit(request.path)
            opening = socket.client_protocol.opening(address.path, address.query, request.headers)
            relay = self._relay(socket, opening, request.headers)
        except Refused as refused:
            return self._prepare_refusal(socket, close_reason_for(refused.reason, refused.message))
        if socket.client_protocol.refuses_at_handshake:
            reason = await self._admit_in_handshake(socket, relay)
            if reason is not None:
                return self._prepare_refusal(socket, reason)
        # It is not lost: where the handshake has waited, `_admit_in_handshake` has checked that.
        self._prepared[socket] = relay
        for name, value in opening.headers.items():
            response.headers[name] = value
        if opening.subprotocol is not None:
            response.headers["Sec-WebSocket-Protocol"] = opening.subprotocol
        return None

    def _relay(self, socket: ClientSocket, opening: Opening, headers: Headers) -> Relay:
        metadata = call_metadata(headers.get_all, socket.peer, opening.authorization)

        def transcribe() -> TranscribeCall:
            return GrpcCall(self._stub.Transcribe(None, metadata=metadata))

        return Relay(socket, opening, transcribe, self._settings.relay_limits, self._stopping)

    def _prepare_refusal(self, socket: ClientSocket, reason: CloseReason) -> Response | None:
        if not socket.client_protocol.refuses_at_handshake:
            self._prepared[socket] = reason
            return None
        refusal = socket.client_protocol.refuse(reason)
        headers = Headers({"Content-Length": str(len(refusal.body)), "Connection": "close", **refusal.headers})
        return Response(refusal.status, refusal.status.phrase, headers, refusal.body)

    async def _admit_in_handshake(self, socket: ClientSocket, relay: Relay) -> CloseReason | None:
        """Takes a place for the connection, and begins its session where the protocol wants that."""
        if self._is_full():
            return FULL
        self._take_place(socket)
        if not socket.client_protocol.begins_in_handshake:
            return None
        reason: CloseReason | None = DISCONNECTED
        try:
            reason = await relay.begin()
            if reason is None and socket.is_lost:
                relay.cancel()
                reason = DISCONNECTED
        finally:
            if reason is not None:
                self._free_place(socket)
        return reason

    def _connection_lost(self, socket: ClientSocket) -> None:
        """Releases what the handshake of a connection took that was lost before `handle`."""
        prepared = self._prepared.pop(socket, None)
        if isinstance(prepared, Relay):
            prepared.cancel()
            self._free_place(socket)

    async def handle(self, connection: ServerConnection) -> None:
        """Serves one WebSocket from the handshake to the close."""
        socket = cast(ClientSocket, connection)
        prepared = self._prepared.pop(socket, None)
        if prepared is None:
            return  # The connection was lost between the handshake and here.
        if socket not in self._open:
            if self._is_full():
                await self._reject(socket, FULL)
                return
            self._take_place(socket)
        try:
            close_reason = await prepared.run() if isinstance(prepared, Relay) else prepared
            if socket.has_begun:
                await self._close_socket(socket, close_reason)
        finally:
            self._free_place(socket)
        if not socket.has_begun:
            await self._reject(socket, close_reason)

    def _is_full(self) -> bool:
        return len(self._open) >= self._settings.bridge_max_connections

    def _take_place(self, socket: ClientSocket) -> None:
        self._open.add(socket)
        metrics.OPEN_CONNECTIONS.inc()

    def _free_place(self, socket: ClientSocket) -> None:
        if socket in self._open:
            self._open.remove(socket)
            metrics.OPEN_CONNECTIONS.dec()

    async def _reject(self, socket: ClientSocket, close_reason: CloseReason) -> None:
        """Closes a connection that had no session. It holds no place meanwhile, and is dropped if too many wait."""
        self._refused[socket] = None
        if len(self._refused) > REFUSED_AT_ONCE:
            first = next(iter(self._refused))
            del self._refused[first]
            first.abort()
        try:
            await self._close_socket(socket, close_reason)
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

    async def _close_socket(self, socket: ClientSocket, close_reason: CloseReason) -> None:
        """Sends the last message and the close, and drops the connection if the client does not read them in time."""
        if close_reason is DISCONNECTED:
            metrics.CLOSED.labels(code=str(CloseCode.ABNORMAL_CLOSURE.value)).inc()
        else:
            closing = socket.client_protocol.close(close_reason)
            metrics.CLOSED.labels(code=str(closing.code)).inc()
            seconds = self._settings.relay_limits.close_seconds
            with suppress(TimeoutError):
                # A client that sends without reading receives nothing before the bridge has read what it sends.
                async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                    group.create_task(_discard(socket))
                    group.create_task(_send_close(socket, closing))
        socket.abort()


async def _send_close(socket: ClientSocket, closing: Closing) -> None:
    with suppress(ConnectionClosed):
        if closing.message is not None:
            await socket.send(closing.message)
        await socket.close(closing.code, closing.reason)


async def _discard(socket: ClientSocket) -> None:
    with suppress(ConnectionClosed):
        while True:
            # As bytes, because they are discarded: text that is not UTF-8 would be an error.
            await socket.recv(decode=False)


def _logger() -> logging.Logger:
    # At DEBUG the library logs whole requests, keys included, and at INFO a line or two for every connection.
    logger = logging.getLogger("websockets.server")
    logger.setLevel(logging.WARNING)
    return logger
