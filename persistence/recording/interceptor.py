"""The recording interceptor: the only place where sessions are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias
from uuid import UUID

import grpc
from dalston.v1.transcription_pb2 import TranscribeRequest

from persistence.recording.call import Context, RecordedCall
from persistence.recording.pipeline import Classify, RecordingPipeline
from telemetry.logs import get_logger

log = get_logger(__name__)

# A call that is cut waits for its row to be written, and then no longer.
_CUT_SECONDS: Final = 3.0
_METHOD: Final = "/dalston.v1.TranscriptionService/Transcribe"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class RecordingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Records every Transcribe call; other methods pass through untouched.

    Stands inside authentication, which sets `current_caller`, and directly outside the servicer. Take it away and a
    working transcriber remains.
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
        self._calls: set[asyncio.Task[None]] = set()
        self._recorded: set[RecordedCall] = set()

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
        self._recorded.add(call)
        running.add_done_callback(lambda _: self._recorded.discard(call))
        self._calls.add(running)
        running.add_done_callback(self._retire)
        call.start_reading(requests)
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            call.client_vanished()
            raise
        finally:
            await call.stop_reading()
        running.result()

    def _retire(self, running: asyncio.Task[None]) -> None:
        self._calls.discard(running)
        if not running.cancelled():
            running.exception()  # told to the client if it is still there; nobody else waits for it

    def call_of(self, session_id: UUID) -> RecordedCall | None:
        """The call that runs a session, None if this process has none that does."""
        return next((call for call in self._recorded if call.session_id == session_id), None)

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """The calls in progress."""
        return tuple(self._recorded)

    def cut(self, error: Exception) -> None:
        """Ends all calls by `error`: their sessions are not this process's any more."""
        for call in list(self._recorded):
            call.cut(error)

    async def close(self, grace_seconds: float) -> None:
        """Waits for the calls whose client has gone, then ends them; their pipeline are finished all the same.

        To be called when the gRPC server has stopped.
        """
        calls = set(self._calls)
        if not calls:
            return
        _, late = await asyncio.wait(calls, timeout=grace_seconds)
        for running in late:
            running.cancel()
        if late:
            log.warning("recognition of vanished clients was cut short", count=len(late))
            await asyncio.wait(late, timeout=_CUT_SECONDS)
