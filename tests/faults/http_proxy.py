"""A proxy that parses HTTP/1.1, for faults in the answers of an S3 server.

async with HttpProxy("127.0.0.1", 8333) as proxy:
    proxy.rule = every_third(fail)    # 500 to every third request
    proxy.rule = lose_answer          # the request is done, its 200 is lost with the connection
    proxy.rule = hang                 # the request is read and never answered
    proxy.rule = None
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

_LIMIT = 1 << 20
_ERROR_BODY = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b"<Error><Code>InternalError</Code><Message>We encountered an internal error. Please try again.</Message></Error>"
)


class Fate(Enum):
    """How the proxy treats a request."""

    PASS = auto()
    FAIL = auto()
    """500, and the server never sees it."""
    FAIL_AFTER = auto()
    """500, although the server did it."""
    LOSE = auto()
    """The server does it; the connection is reset in place of its answer."""
    HANG = auto()
    """Read to its end, not passed on, never answered."""
    HANG_AFTER = auto()
    """The server does it; the answer never comes."""
    REFUSE = auto()
    """The connection is reset."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a rule may depend on."""

    number: int
    """From 1, over all connections."""
    method: str
    path: str
    query: dict[str, str]

    @property
    def operation(self) -> str:
        """The S3 operation, by its usual name."""
        return _operation(self.method, self.path, self.query)


Rule = Callable[[Request], Fate]


def always(fate: Fate) -> Rule:
    """Applies one action to every request."""
    return lambda _: fate


def every_third(fate: Fate) -> Rule:
    """Applies an action to requests 3, 6, 9..."""
    return lambda request: fate if request.number % 3 == 0 else Fate.PASS


def on(operation: str, fate: Fate) -> Rule:
    """Applies an action to one kind of request."""
    return lambda request: fate if request.operation == operation else Fate.PASS


class HttpProxy:
    """Listens on `port` while it is entered; `rule` decides each request's fate when its head has been read."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.rule: Rule | None = None
        self.port = 0
        self.requests: Counter[str] = Counter()
        """Requests by operation."""
        self.faults: Counter[Fate] = Counter()
        """Requests that did not just pass."""
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """As a client's endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def restore(self) -> None:
        """Passes everything; requests that hang are reset."""
        self.rule = None
        self._released.set()
        self._released = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            far_reader, upstream = await asyncio.open_connection(*self._target, limit=_LIMIT)
            while await self._exchange(reader, writer, far_reader, upstream):
                pass
        except (OSError, EOFError, asyncio.CancelledError, asyncio.LimitOverrunError):
            _reset(writer)
        finally:
            for each in (writer, upstream):
                if each is not None:
                    each.close()
            self._tasks.discard(task)

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> bool:
        """Handles one request and its answer; returns False if the client has ended the connection."""
        head = await _head_or_none(reader)
        if head is None:
            return False
        request = self._request(head)
        fate = self.rule(request) if self.rule is not None else Fate.PASS
        if fate is not Fate.PASS:
            self.faults[fate] += 1
        if fate is Fate.REFUSE:
            raise ConnectionResetError
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
        body = await _body(reader, head)
        if fate is Fate.HANG:
            await self._released.wait()
            raise ConnectionResetError
        answer = b""
        if fate is not Fate.FAIL:
            upstream.write(head + body)
            await upstream.drain()
            answer = await _answer(far_reader, request.method)
        if fate is Fate.HANG_AFTER:
            await self._released.wait()
        if fate in (Fate.LOSE, Fate.HANG_AFTER):
            raise ConnectionResetError
        writer.write(answer if fate is Fate.PASS else _error(request.method))
        await writer.drain()
        return True

    def _request(self, head: bytes) -> Request:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        url = urlsplit(target)
        request = Request(
            self.requests.total() + 1, method, url.path, dict(parse_qsl(url.query, keep_blank_values=True))
        )
        self.requests[request.operation] += 1
        return request


def _operation(method: str, path: str, query: dict[str, str]) -> str:
    has_key = path.strip("/").count("/") > 0
    if "uploadId" in query:
        return {"PUT": "upload_part", "POST": "complete_multipart_upload", "DELETE": "abort_multipart_upload"}.get(
            method, "list_parts"
        )
    if "uploads" in query:
        return "create_multipart_upload" if method == "POST" else "list_multipart_uploads"
    if "delete" in query:
        return "delete_objects"
    name = method.lower()
    return f"{name}_object" if has_key else {"get": "list_objects"}.get(name, f"{name}_bucket")


async def _head_or_none(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body as it was on the wire."""
    if (_header(head, b"transfer-encoding") or b"").lower() == b"chunked":
        return await _chunks(reader)
    return await reader.readexactly(int(_header(head, b"content-length") or 0))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while True:
        size = await reader.readline()
        pieces += [size, await reader.readexactly(int(size.split(b";")[0], 16) + 2)]
        if int(size.split(b";")[0], 16) == 0:
            return b"".join(pieces)


async def _answer(reader: asyncio.StreamReader, method: str) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if 100 <= status < 200:
        return await _answer(reader, method)
    if method == "HEAD" or status in (204, 304):
        return head
    return head + await _body(reader, head)


def _error(method: str) -> bytes:
    head = (
        f"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\nContent-Length: {len(_ERROR_BODY)}"
        "\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else _ERROR_BODY)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
