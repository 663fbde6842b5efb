"""The WebSocket of a client. No connection fails without the error message of its protocol."""

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import CLOSED, OPEN
from websockets.server import ServerProtocol

from bridge.protocols.interface import ClientProtocol
from edge.closing import CloseReason, close_reason_for
from edge.refusal import too_big

MAX_HEAD_BYTES = 128 * 1024
"""Largest HTTP request, line and headers together."""

KERNEL_BUFFER_BYTES = 256 * 1024
"""What the kernel may buffer for one connection each way; by default it buffers megabytes for a client that does not
read. It is eight seconds of audio of the default format."""

POLL_SECONDS = 1.0
"""Between two checks whether a client is still connected."""


class _WebSocketProtocol(ServerProtocol):
    """Sends the client an error before the library fails the connection, and reports the refusal to its owner.

    The library fails a connection by itself on a frame that is too long, which it never reads, and on text that is not
    UTF-8. It would send a bare close frame with a code that need not be the protocol's.
    """

    def __init__(self, refuse: Callable[[CloseReason], None], **options: Any) -> None:
        super().__init__(**options)
        self._refuse = refuse
        self.client_protocol: ClientProtocol | None = None

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        refusal = self._refusal(code)
        if refusal is not None and self.client_protocol is not None and self.state is OPEN:
            closing = self.client_protocol.close(refusal)
            if closing.message is not None:
                self.send_text(closing.message.encode())
            self._refuse(refusal)
            code, reason = closing.code, closing.reason
        super().fail(code, reason)

    def _refusal(self, code: CloseCode | int) -> CloseReason | None:
        if code == CloseCode.MESSAGE_TOO_BIG and self.client_protocol is not None:
            refused = too_big(self.client_protocol.max_frame_bytes)
            return close_reason_for(refused.reason, refused.message)
        if code == CloseCode.INVALID_DATA:
            return close_reason_for("INVALID_MESSAGE", "a text message must be JSON in UTF-8")
        return None


class ClientSocket(ServerConnection):
    """One client's connection, from TCP accept to TCP close."""

    def __init__(
        self,
        protocol: ServerProtocol,
        server: Server,
        *,
        max_connections: int,
        on_lost: Callable[["ClientSocket"], None],
        **options: Any,
    ) -> None:
        self._max_connections = max_connections
        self._on_lost = on_lost
        self._refusal: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self._head_bytes = 0
        self.is_lost = False
        """Whether the connection is lost, and `on_lost` has been called."""
        self.has_begun = False
        """Whether the server has begun its session."""
        self._websocket = _WebSocketProtocol(self._refuse, origins=protocol.origins, logger=protocol.logger)
        super().__init__(self._websocket, server, **options)

    @property
    def client_protocol(self) -> ClientProtocol:
        """The protocol that the client speaks."""
        if self._websocket.client_protocol is None:
            raise RuntimeError("the handshake is not done")
        return self._websocket.client_protocol

    @client_protocol.setter
    def client_protocol(self, client_protocol: ClientProtocol) -> None:
        self._websocket.client_protocol = client_protocol
        self._websocket.max_message_size = client_protocol.max_frame_bytes

    def _refuse(self, close_reason: CloseReason) -> None:
        # A client may send more than one frame that is refused; the first counts.
        if not self._refusal.done():
            self._refusal.set_result(close_reason)

    async def refused(self) -> CloseReason:
        """Waits until the client sends a frame that the socket refuses. The error is sent by then, and the close."""
        return await asyncio.shield(self._refusal)

    @property
    def is_refused(self) -> bool:
        """Whether the client has sent a frame that the socket refuses."""
        return self._refusal.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
        if len(self.server.handler_tasks) > self._max_connections:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_lost = True
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        if self.request is None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def abort(self) -> None:
        """Drops the connection without a close frame."""
        # asyncio of Python 3.11 fails to abort a transport that was closed with unsent data and has sent it since.
        if self.state is not CLOSED:
            self.transport.abort()

    async def lost(self) -> None:
        """Waits until the other end has closed the connection.

        asyncio notices it by reading, and reads nothing while frames are queued. A close that is behind data for which
        the kernel has no room arrives as the answer to the next ping.
        """
        connection = self.transport.get_extra_info("socket")
        while (descriptor := connection.fileno()) >= 0:
            poll = select.poll()
            poll.register(descriptor, select.POLLRDHUP)
            if poll.poll(0):
                return
            await asyncio.sleep(POLL_SECONDS)

    @property
    def opening_request(self) -> Request:
        """The request that became this WebSocket."""
        if self.request is None:
            raise RuntimeError("the handshake is not done")
        return self.request

    @property
    def peer(self) -> str:
        """The address of the other end, without its port; empty where there is none."""
        address = self.remote_address
        return str(address[0]) if isinstance(address, tuple) else ""
