"""The WebSocket as the contract wants it: no connection fails without an `error` message that says why."""

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

from bridge.closing import CloseReason, close_reason_for
from bridge.frames import MAX_MESSAGE_BYTES, TOO_BIG, encode_error

MAX_HEAD_BYTES = 128 * 1024
"""Largest HTTP request, line and headers together."""

KERNEL_BUFFER_BYTES = 256 * 1024
"""What the kernel may hold for one connection each way, where by itself it would take megabytes for a stuck reader. It
is eight seconds of audio of the default format."""

LOOK_SECONDS = 1.0
"""Between two looks whether a client is still connected."""

# The library fails a connection by itself on a frame that is too long, which is never read, and on text that is not
# UTF-8. In its own words that is a bare close frame, and 1007 is no code of the contract.
_REFUSALS: dict[int, CloseReason] = {
    CloseCode.MESSAGE_TOO_BIG: close_reason_for("MESSAGE_TOO_BIG", TOO_BIG),
    CloseCode.INVALID_DATA: close_reason_for("INVALID_MESSAGE", "a text message must be JSON in UTF-8"),
}


class _Protocol(ServerProtocol):
    """A protocol that tells the client why it fails, and its owner that it did."""

    def __init__(self, refuse: Callable[[CloseReason], None], **options: Any) -> None:
        super().__init__(**options)
        self._refuse = refuse

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        refusal = _REFUSALS.get(code)
        if refusal is not None and self.state is OPEN:
            self.send_text(encode_error(refusal).encode())
            self._refuse(refusal)
            code, reason = refusal.close_code, refusal.code
        super().fail(code, reason)


class ClientSocket(ServerConnection):
    """One client's connection, from TCP accept to TCP close."""

    def __init__(self, protocol: ServerProtocol, server: Server, *, max_connections: int, **options: Any) -> None:
        self._max_connections = max_connections
        self._refusal: asyncio.Future[CloseReason] = asyncio.get_running_loop().create_future()
        self._head_bytes = 0
        self.has_begun = False
        """Whether it has been sent `session.begin`."""
        super().__init__(
            _Protocol(
                self._refuse,
                origins=protocol.origins,
                max_size=MAX_MESSAGE_BYTES,
                logger=protocol.logger,
            ),
            server,
            **options,
        )

    def _refuse(self, close_reason: CloseReason) -> None:
        # A client may send more than one frame that is refused; the first counts.
        if not self._refusal.done():
            self._refusal.set_result(close_reason)

    async def refused(self) -> CloseReason:
        """Waits until the client sent a frame that the socket refuses. It has been told, and is being closed."""
        return await asyncio.shield(self._refusal)

    @property
    def is_refused(self) -> bool:
        """Whether `refused` has come true."""
        return self._refusal.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER_BYTES)
        if len(self.server.handler_tasks) > self._max_connections:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.request is None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def abort(self) -> None:
        """Drops the connection without a word."""
        # asyncio of Python 3.11 fails to abort a transport that was closed with unsent data and has sent it since.
        if self.state is not CLOSED:
            self.transport.abort()

    async def lost(self) -> None:
        """Waits until the other end has closed the connection.

        asyncio finds that out by reading, and nothing is read while frames wait to be taken. Behind data that the
        kernel has no room for, a close comes as the answer to the next ping.
        """
        connection = self.transport.get_extra_info("socket")
        while (descriptor := connection.fileno()) >= 0:
            poll = select.poll()
            poll.register(descriptor, select.POLLRDHUP)
            if poll.poll(0):
                return
            await asyncio.sleep(LOOK_SECONDS)

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
