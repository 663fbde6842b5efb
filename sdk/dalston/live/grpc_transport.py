"""Sessions over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from dalston.calls import Calls
from dalston.failures import error_of
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeControl, TranscribeRequest, TranscribeResponse

T = TypeVar("T")

_STATUS_SECONDS = 1.0
"""Longest wait for the service's status after its last message."""


class GrpcTransport:
    """Opens streams on the client's connection."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def open(self, config: TranscribeConfig) -> GrpcConnection:
        """See `Transport.open`. `receive` raises the error of a rejected stream."""
        transcribe: Any = self._calls.transcription.Transcribe  # Its type requires an iterator of all requests.
        connection = GrpcConnection(transcribe(metadata=self._calls.metadata()))
        await connection.send(TranscribeRequest(config=config))
        return connection


class GrpcConnection:
    """One stream.

    When a write fails because the service has ended the stream, grpc.aio replaces the service's status with its own
    INTERNAL (grpc/grpc#36066), and `read` discards messages that were not read yet. Therefore messages are read by
    iteration, which reads all of them, and the first status that the service sent is kept.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._responses = aiter(call)
        self._kept: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._keep)

    async def send_audio(self, audio: bytes) -> bool:
        return await self.send(TranscribeRequest(audio=audio))

    async def send_control(self, control: TranscribeControl) -> bool:
        is_sent = await self.send(TranscribeRequest(control=control))
        if is_sent and control.HasField("end"):
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.done_writing()
        return is_sent

    async def send(self, request: TranscribeRequest) -> bool:
        """Sends a message. Returns False if the stream is over."""
        if self._call.done():
            return False
        try:
            await self._call.write(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        return True

    async def receive(self) -> TranscribeResponse | None:
        try:
            response: TranscribeResponse | None = await anext(self._responses, None)
        except grpc.aio.AioRpcError as failure:
            raise error_of(await self._true_failure(failure)) from None
        return response

    async def close(self) -> None:
        self._call.cancel()
        with suppress(RuntimeError):  # A read was cancelled while it was in progress.
            await self._responses.aclose()

    def _keep(self, _call: object) -> None:
        # The status has arrived, so these coroutines finish without waiting; a separate task would run too late.
        code = _finished(self._call.code())
        if code is grpc.StatusCode.OK or self._kept is not None:
            return
        failure = grpc.aio.AioRpcError(
            code,
            grpc.aio.Metadata(),
            _finished(self._call.trailing_metadata()),
            _finished(self._call.details()),
            "",
        )
        if failure.code() is not grpc.StatusCode.INTERNAL or failure.details() != "Internal error from Core":
            self._kept = failure

    async def _true_failure(self, failure: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        waited = 0.0
        while self._kept is None and waited < _STATUS_SECONDS:
            self._keep(self._call)
            await asyncio.sleep(0.02)
            waited += 0.02
        return self._kept or failure


def _finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that finishes without waiting."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("the coroutine is not finished")
