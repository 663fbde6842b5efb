"""A TCP proxy on loopback that breaks what passes through it, each direction by itself and changeable at any moment.

async with Proxy("127.0.0.1", 5432) as proxy:
    connect_to(proxy.port)
    proxy.cut()                       # every connection is reset
    proxy.refuse()                    # every connection, and every new one, until restore()
    proxy.stall()                     # no byte, no FIN and no RST in either direction, until restore()
    proxy.stall(proxy.to_client)      # requests arrive, answers do not
    proxy.swallow(proxy.to_server)    # bytes are taken and thrown away
    proxy.delay(0.2)                  # every chunk comes later, in its order
    proxy.lose_answers()              # what the client asks is done; the answer's first byte resets the connection
    proxy.cut_on(b"COMMIT")           # the next chunk towards the server that holds these bytes is its last
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any, Self

_CHUNK_BYTES = 65_536


class Direction:
    """One direction of a connection through the proxy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.passed_bytes = 0
        """Handed on so far, over all connections."""
        self._flowing = asyncio.Event()
        self.restore()

    def restore(self) -> None:
        """Passes bytes at once and complete."""
        self.swallowing = False
        self.losing = False
        self.delay_seconds = 0.0
        self.cut_on: bytes | None = None
        self.cut_before = False
        self._flowing.set()

    def stall(self) -> None:
        """Holds back every byte, and the end of the stream too, until `restore`."""
        self._flowing.clear()

    async def flow(self) -> None:
        """Waits while stalled."""
        await self._flowing.wait()


class Proxy:
    """Listens on `port` while it is entered. All methods take effect on open connections and on new ones."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        """May be changed: new connections go there."""
        self.to_server = Direction("to server")
        self.to_client = Direction("to client")
        self.port = 0
        self.accepted = 0
        """Connections taken so far."""
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2 * _CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        self.restore()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """`host:port` of the proxy."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    def cut(self) -> None:
        """Resets every connection; new ones are accepted."""
        for writer in list(self._writers):
            _reset(writer)

    def refuse(self) -> None:
        """Resets every connection, and every new one as it comes."""
        self._refusing = True
        self.cut()

    def stall(self, *directions: Direction) -> None:
        """Passes nothing, like a machine that hangs: the other side is not notified."""
        for direction in directions or (self.to_server, self.to_client):
            direction.stall()

    def swallow(self, *directions: Direction) -> None:
        """Discards bytes. A connection that has lost any can only be cut."""
        for direction in directions or (self.to_server, self.to_client):
            direction.swallowing = True

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Passes every chunk on with this delay."""
        for direction in directions or (self.to_server, self.to_client):
            direction.delay_seconds = seconds

    def lose_answers(self) -> None:
        """Resets a connection on the first byte that the server sends on it from now on."""
        self.to_client.losing = True

    def cut_on(self, what: bytes, *, before: bool = False) -> None:
        """Resets the one connection on which `what` next goes to the server: after it has passed, or before it does.

        Once only. `what` must not be torn between two chunks, so it should be short.
        """
        self.to_server.cut_on = what
        self.to_server.cut_before = before

    def restore(self) -> None:
        """Ends every fault; what was held back is passed on."""
        self._refusing = False
        self.to_server.restore()
        self.to_client.restore()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream = None
        try:
            far_reader, upstream = await asyncio.open_connection(*self.target)
            self._writers.add(upstream)
            await self._join(reader, writer, far_reader, upstream)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Whichever side is gone, or the test is over: the other learns it by a reset.
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    self._writers.discard(each)
                    _reset(each)
            self._tasks.discard(task)

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_failing_alone(self._pump(reader, upstream, self.to_server), writer, upstream))
            group.create_task(_failing_alone(self._pump(far_reader, writer, self.to_client), writer, upstream))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Passes the bytes of one direction."""
        while data := await reader.read(_CHUNK_BYTES):
            if direction.swallowing:
                continue
            if direction.losing:
                raise ConnectionResetError
            if direction.delay_seconds:
                await asyncio.sleep(direction.delay_seconds)
            await direction.flow()
            is_last = direction.cut_on is not None and direction.cut_on in data
            if is_last:
                direction.cut_on = None
                if direction.cut_before:
                    raise ConnectionResetError
            writer.write(data)
            await writer.drain()
            direction.passed_bytes += len(data)
            if is_last:
                await asyncio.sleep(0.02)  # a reset may overtake bytes that the other side has not read
                raise ConnectionResetError
        await direction.flow()
        if not direction.swallowing:
            with suppress(OSError):
                writer.write_eof()


async def _failing_alone(pump: Any, *writers: asyncio.StreamWriter) -> None:
    """Runs a direction; when it breaks, both connections are reset and so the other direction ends as well."""
    try:
        await pump
    except OSError:
        for writer in writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
