"""Graceful shutdown: new streams are refused, and running ones are ended after a grace period."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from dalston.v1.transcription_pb2 import TranscribeRequest

from server.rpc.interceptor import Context
from server.session.errors import ServerStopping

_METHOD = "/dalston.v1.TranscriptionService/Transcribe"


class Drain:
    """The state of the shutdown, and the streams in progress. One for a server."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._end: float | None = None
        self._streams: set[_Requests] = set()
        self._wakes: set[Callable[[], None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def has_begun(self) -> bool:
        """Whether new streams are refused."""
        return self._end is not None

    @property
    def streams(self) -> int:
        """Streams in progress."""
        return len(self._streams)

    def begin(self, grace_seconds: float) -> None:
        """Refuses new streams from now on, and ends the requests of running ones after `grace_seconds`."""
        self._end = asyncio.get_running_loop().time() + grace_seconds
        self._begun.set()
        for requests in self._streams:
            requests.end_at(self._end)
        for wake in self._wakes:
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Calls `wake` when the drain begins, for calls that check `has_begun` rarely."""
        self._wakes.add(wake)
        try:
            yield
        finally:
            self._wakes.discard(wake)

    async def wait_begun(self) -> float:
        """Waits until the server drains; returns the rest of the grace period in seconds."""
        await self._begun.wait()
        assert self._end is not None  # noqa: S101 - set before the event
        return max(0.0, self._end - asyncio.get_running_loop().time())

    async def wait_empty(self, seconds: float) -> bool:
        """Waits until no stream is in progress; returns False if `seconds` pass first."""
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def run(
        self,
        serve: Callable[[AsyncIterator[TranscribeRequest]], Awaitable[None]],
        requests: AsyncIterator[TranscribeRequest],
    ) -> None:
        """Serves one stream.

        Raises:
            ServerStopping: the server drains.
        """
        if self.has_begun:
            raise ServerStopping("the server is stopping: connect again")
        stream = _Requests(requests)
        self._streams.add(stream)
        self._empty.clear()
        try:
            await serve(stream)
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._empty.set()


class DrainInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Applies a drain to Transcribe; other methods pass unchanged.

    It is outside of the recording, so that nothing is recorded after the end, and inside of the interceptor that
    converts errors to statuses.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain = drain

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler: Any = await continuation(details)
        if handler is None or details.method != _METHOD:
            return handler  # type: ignore[no-any-return]

        async def transcribe(requests: AsyncIterator[TranscribeRequest], context: Context) -> None:
            await self._drain.run(lambda stream: handler.stream_stream(stream, context), requests)

        return grpc.stream_stream_rpc_method_handler(
            transcribe, handler.request_deserializer, handler.response_serializer
        )


class _Requests:
    """The requests of a stream, until the server ends them."""

    def __init__(self, requests: AsyncIterator[TranscribeRequest]) -> None:
        self._requests = aiter(requests)
        self._end: float | None = None
        self._waiting: asyncio.Timeout | None = None

    def end_at(self, end: float) -> None:
        """Ends them at `end`, in the event loop's time."""
        self._end = end
        if self._waiting is not None:
            self._waiting.reschedule(end)

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> TranscribeRequest:
        # A stream whose requests are always available never waits, and so never times out.
        if self._end is not None and asyncio.get_running_loop().time() >= self._end:
            raise self._stopping()
        try:
            async with asyncio.timeout_at(self._end) as self._waiting:
                return await anext(self._requests)
        except TimeoutError:
            raise self._stopping() from None
        finally:
            self._waiting = None

    def _stopping(self) -> ServerStopping:
        return ServerStopping("the server stopped before the session ended: connect again and resume it")
