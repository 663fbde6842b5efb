"""The `Transcribe` stream as the bridge uses it."""

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

import grpc
from dalston.v1.transcription_pb2 import TranscribeRequest, TranscribeResponse

T = TypeVar("T")

GrpcCall: TypeAlias = "grpc.aio.StreamStreamCall[TranscribeRequest, TranscribeResponse]"

STATUS_SECONDS = 1.0
"""For the server's status to arrive after the end of its messages."""


class ServerCall:
    """One stream to the server.

    When a write fails because the server has ended the stream, grpc.aio replaces the server's status by an INTERNAL
    of its own (grpc/grpc#36066), and `read` of the call gives up what was not read yet. A client that sends while it
    is refused, as all do, would not learn why. So messages are read by iteration, which goes to their end, and the
    first status that is the server's is kept.
    """

    def __init__(self, call: GrpcCall) -> None:
        self._call = call
        self._responses = call.__aiter__()
        self._kept: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    def done(self) -> bool:
        """Whether nothing more can be written."""
        return self._call.done()

    async def write(self, request: TranscribeRequest) -> bool:
        """Writes one message once there is room for it; False when the stream is over, and `read` says why."""
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def half_close(self) -> None:
        """Says that nothing more will be written."""
        await self._call.done_writing()

    async def read(self) -> TranscribeResponse | None:
        """The next message, or None after the last.

        Raises:
            AioRpcError: the stream failed.
        """
        try:
            return await anext(self._responses, None)
        except grpc.aio.AioRpcError as error:
            raise await self._true_failure(error) from None

    async def wait_done(self) -> None:
        """Waits until the stream is over."""
        await self._call.code()

    async def close(self) -> None:
        """Ends the stream, by a cancel unless it is over."""
        self._call.cancel()
        async with aclosing(self._responses):  # type: ignore[type-var]  # It is an async generator.
            pass

    def _keep(self, _call: object) -> None:
        # The status is there, so none of these has anything to wait for; a task of its own would come too late.
        code = _finished(self._call.code())
        if code is grpc.StatusCode.OK:
            return
        error = grpc.aio.AioRpcError(
            code,
            grpc.aio.Metadata(),
            _finished(self._call.trailing_metadata()),
            _finished(self._call.details()),
            "",  # The debugging text, which grpc.aio does not offer in its published types.
        )
        if _is_the_servers(error):
            self._kept = error

    async def _true_failure(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        waited = 0.0
        while self._kept is None and waited < STATUS_SECONDS:
            self._keep(self._call)
            await asyncio.sleep(0.02)
            waited += 0.02
        return self._kept or error


def _is_the_servers(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is not grpc.StatusCode.INTERNAL or error.details() != "Internal error from Core"


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that needs not wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("the coroutine is not finished")
