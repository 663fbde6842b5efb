"""A stream that keeps the server's status. The client, the bridge and the uploads process share it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc

T = TypeVar("T")
Request = TypeVar("Request")
Response = TypeVar("Response")

STATUS_SECONDS = 1.0
"""For the server's status to arrive after the end of its messages."""


class GrpcCall(Generic[Request, Response]):
    """One stream to the server.

    When a write fails because the server has ended the stream, grpc.aio replaces the server's status by an INTERNAL
    of its own (grpc/grpc#36066), and `read` of the call drops the messages that were not read yet. A client that sends
    while it is refused, which is the usual case, would not learn the reason. So this class reads messages by
    iteration, which returns all of them, and keeps the first status that is the server's own.
    """

    def __init__(self, call: Any) -> None:  # The types of grpc.aio know a call that was given all requests at once.
        self._call = call
        self._responses = aiter(call)
        self._kept: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    def done(self) -> bool:
        """Whether nothing more can be written."""
        is_done: bool = self._call.done()
        return is_done

    async def write(self, request: Request) -> bool:
        """Writes one message once there is room for it; False when the stream is over, and `read` raises the reason."""
        if self.done():
            return False
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def half_close(self) -> None:
        """Ends the requests. The server may still write."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def read(self) -> Response | None:
        """The next message, or None after the last.

        Raises:
            AioRpcError: the stream failed; the status is the server's own where there was one.
        """
        try:
            response: Response | None = await anext(self._responses, None)
        except grpc.aio.AioRpcError as error:
            raise await self._servers_error(error) from None
        return response

    async def wait_done(self) -> None:
        """Waits until the stream is over."""
        await self._call.code()

    async def failure(self) -> grpc.aio.AioRpcError | None:
        """Waits until the stream is over, and returns its status; None if it did not fail. It reads no message."""
        if await self._call.code() is grpc.StatusCode.OK:
            return None
        return await self._servers_error(_error_of(self._call))

    def cancel(self) -> None:
        """Cancels the stream, unless it is over."""
        self._call.cancel()

    async def close(self) -> None:
        """Cancels the stream, unless it is over, and releases what it holds."""
        self.cancel()
        with suppress(RuntimeError):  # A task was cancelled while it read.
            await self._responses.aclose()

    def _keep(self, _call: object) -> None:
        if self._kept is not None:
            return
        error = _error_of(self._call)
        if error.code() is not grpc.StatusCode.OK and _is_the_servers(error):
            self._kept = error

    async def _servers_error(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        waited = 0.0
        while self._kept is None and waited < STATUS_SECONDS:
            self._keep(self._call)
            await asyncio.sleep(0.02)
            waited += 0.02
        return self._kept or error


def _error_of(call: Any) -> grpc.aio.AioRpcError:
    """The status of a call that is over."""
    # The status has arrived, so none of these coroutines waits. A task that awaited them would run too late.
    return grpc.aio.AioRpcError(
        _result_of(call.code()),
        grpc.aio.Metadata(),
        _result_of(call.trailing_metadata()),
        _result_of(call.details()),
        "",  # The debugging text, which the published types of grpc.aio do not offer.
    )


def _is_the_servers(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is not grpc.StatusCode.INTERNAL or error.details() != "Internal error from Core"


def _result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("the coroutine waits")
