"""The recording interceptor: the only place where sessions are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

import grpc
from dalston.v1.transcription_pb2 import TranscribeRequest

from persistence.recording.call import RecordedCall
from persistence.recording.pipeline import Classify, RecordingPipeline
from persistence.recording.response_writer import Context
from telemetry.logs import get_logger

log = get_logger(__name__)

# A call that is cancelled waits this long for its row to be written.
_CUT_SECONDS: Final = 3.0
_METHOD: Final = "/dalston.v1.TranscriptionService/Transcribe"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class RecordingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Records every Transcribe call; other methods pass through unchanged.

    It is inside of authentication, which sets `current_caller`, and directly outside of the servicer. Without it the
    server transcribes and stores nothing.
    """

    def __init__(
        self,
        pipeline: RecordingPipeline,
        classify: Classify,
        *,
        store_wait_seconds: float,
        vanished_grace_seconds: float,
    ) -> None:
        self._pipeline = pipeline
        self._classify = classify
        self._store_wait_seconds = store_wait_seconds
        self._vanished_grace_seconds = vanished_grace_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[RecordedCall] = set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps Transcribe."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method != _METHOD:
            return handler
        servicer: Any = handler.stream_stream

        async def transcribe(requests: AsyncIterator[TranscribeRequest], context: Context) -> None:
            call = RecordedCall(
                servicer,
                context,
                self._pipeline,
                self._classify,
                store_wait_seconds=self._store_wait_seconds,
                vanished_grace_seconds=self._vanished_grace_seconds,
            )
            await self._serve(call, requests)

        return grpc.stream_stream_rpc_method_handler(
            transcribe, handler.request_deserializer, handler.response_serializer
        )

    async def _serve(self, call: RecordedCall, requests: AsyncIterator[TranscribeRequest]) -> None:
        running = asyncio.create_task(call.run(), name="recorded call")
        self._calls.add(call)
        running.add_done_callback(lambda _: self._calls.discard(call))
        self._tasks.add(running)
        running.add_done_callback(self._retire)
        call.start_reading(requests)
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            call.disconnect()
            raise
        finally:
            await call.stop_reading()
        running.result()

    def _retire(self, running: asyncio.Task[None]) -> None:
        self._tasks.discard(running)
        if not running.cancelled():
            # `_serve` raises the error for a client that is still connected. For others it must be retrieved here.
            running.exception()

    def call_of(self, session_id: UUID) -> RecordedCall | None:
        """The call that runs a session; None if no call of this process does."""
        return next((call for call in self._calls if call.session_id == session_id), None)

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """The calls in progress."""
        return tuple(self._calls)

    def cut(self, error: Exception) -> None:
        """Ends all calls by `error`: this process does not own their sessions any more."""
        for call in list(self._calls):
            call.cut(error)

    async def close(self, grace_seconds: float) -> None:
        """Waits for the calls of disconnected clients, then cancels them; their recordings are finished all the same.

        To be called when the gRPC server has stopped.
        """
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_seconds)
        for running in late:
            running.cancel()
        if late:
            log.warning("recognition for disconnected clients was cancelled", count=len(late))
            await asyncio.wait(late, timeout=_CUT_SECONDS)
