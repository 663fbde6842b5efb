"""One Transcribe call as the recording interceptor runs it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, cast
from uuid import UUID

from dalston.v1.transcription_pb2 import TranscribeRequest

from domain.client_address import client_ip
from domain.tenancy import current_caller
from persistence.recording.call_end import CallEnd
from persistence.recording.call_recording import CallRecording
from persistence.recording.pipeline import Classify, RecordingPipeline
from persistence.recording.request_queue import Request
from persistence.recording.request_reader import RequestReader
from persistence.recording.response_writer import Context, ResponseWriter

Servicer = Callable[[AsyncIterator[Request], Context], Awaitable[None]]

_ROW_SECONDS: Final = 2.0


class RecordedCall:
    """Runs the servicer between a reader that records requests before the servicer receives them, and a writer that
    records responses before the client receives them.

    Three tasks: the handler's own, which the transport cancels; the reader's; and `run`, which runs the servicer and
    finishes the recording, and which no cancellation by the transport reaches.
    """

    def __init__(
        self,
        servicer: Servicer,
        context: Context,
        pipeline: RecordingPipeline,
        classify: Classify,
        *,
        store_wait_seconds: float,
        vanished_grace_seconds: float,
    ) -> None:
        """
        Args:
            classify: returns the end reason of a session that an exception of the servicer ended.
            store_wait_seconds: how long `session_end` waits for the session to be stored.
            vanished_grace_seconds: how long recognition of a stored session continues after its client disconnected.
        """
        caller = current_caller.get(None)
        self.key_id = None if caller is None else caller.key_id
        """The key that the call was made with, or that made its token; None where there are no keys."""
        self._servicer = servicer
        self._context = context
        self._vanished_grace_seconds = vanished_grace_seconds
        self._end = CallEnd(classify)
        # The address is read now: the context must not be used once the transport has abandoned the call.
        self._recording = CallRecording(pipeline, client_ip(context))
        self._reader = RequestReader(self._recording, self._end)
        self._writer = ResponseWriter(
            context, self._recording, self._reader, self._end, store_wait_seconds=store_wait_seconds
        )
        self._serving: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def session_id(self) -> UUID | None:
        """The session that the call records; None before it has begun."""
        recorder = self._recording.recorder
        return None if recorder is None else recorder.start.id

    @property
    def tenant_id(self) -> UUID | None:
        """The tenant of the session; None before it has begun."""
        recorder = self._recording.recorder
        return None if recorder is None else recorder.start.tenant_id

    @property
    def received_seconds(self) -> float:
        """Audio of the session that was received."""
        recorder = self._recording.recorder
        return 0.0 if recorder is None else recorder.received_seconds

    @property
    def silent_seconds(self) -> float:
        """How long the client has sent nothing although it could have; infinite after a disconnect."""
        return self._reader.silent_seconds

    def start_reading(self, requests: AsyncIterator[TranscribeRequest]) -> None:
        """Begins to record the client's requests and to queue them for the servicer."""
        self._reader.start(requests)

    async def stop_reading(self) -> None:
        """Returns when nothing more will be recorded."""
        await self._reader.stop()

    async def run(self) -> None:
        """Runs the servicer, then finishes the recording; raises the error that the client is to receive."""
        await self._serve()
        await self._close_requests()
        error = self._error()
        await self._recording.settle()
        if self._recording.recorder is not None and self._recording.finishing is None:
            finishing = self._recording.finish(await self._end.decide(error))
            await finishing.wait_for_row(_ROW_SECONDS)
        if (client_error := self._end.client_error(error)) is not None:
            raise client_error

    def disconnect(self) -> None:
        """The transport has abandoned the call: nothing more is read from it or written to it."""
        self._reader.disconnect()

    def take_over(self, error: Exception) -> None:
        """Ends the call as after a disconnect, because another session continues this one. May be repeated."""
        recorder = self._recording.recorder
        if self._end.is_superseded or recorder is None:
            return
        self._end.note_superseded(error)
        self.disconnect()
        self._reader.cancel()
        self._recording.pipeline.flush_soon(recorder)

    def end(self, error: Exception, grace_seconds: float) -> bool:
        """Ends the session by `error` when the received audio is recognised, or after the grace period.

        From now on nothing more is received. Returns False if the session has ended, or is being ended already.
        """
        has_ended = self._recording.finishing is not None or (self._serving is not None and self._serving.done())
        if self._ending is not None or not self._reader.has_started or has_ended:
            return False
        self._reader.interrupt(error)
        self._ending = asyncio.create_task(self._cut_after(grace_seconds, error), name="grace period of a session")
        return True

    def cut(self, error: Exception) -> None:
        """Ends the call by `error` at once."""
        self._end.note_forced(error)
        self._reader.queue.end(error)
        if self._serving is not None:
            self._serving.cancel()

    async def _serve(self) -> None:
        """Runs the servicer to its end."""
        context = cast(Context, _RecordedContext(self._context, self._writer, self._end))
        self._serving = asyncio.ensure_future(self._servicer(self._reader.queue, context))
        side_tasks = [
            asyncio.create_task(self._limit_after_disconnect(), name="grace period of a disconnected client"),
            asyncio.create_task(self._writer.report_degradations(), name="warnings of a recorded call"),
        ]
        try:
            await asyncio.wait({self._serving})
        except asyncio.CancelledError:
            # The process stops and has waited long enough.
            self._serving.cancel()
            await asyncio.wait({self._serving})
        finally:
            for task in side_tasks:
                task.cancel()
            await asyncio.wait(side_tasks)

    async def _close_requests(self) -> None:
        # A client may continue to send to a session that has failed; its recording ends here.
        await self._reader.stop()
        self._reader.queue.end()
        self._reader.queue.close()
        self._recording.begun.set()
        if self._ending is not None:
            self._ending.cancel()

    def _error(self) -> BaseException | None:
        assert self._serving is not None  # noqa: S101 - its caller has run the servicer
        return self._end.servicer_error(self._serving)

    async def _cut_after(self, seconds: float, error: Exception) -> None:
        await asyncio.sleep(seconds)
        self.cut(error)

    async def _limit_after_disconnect(self) -> None:
        """Ends recognition after a disconnect: at once if nothing is stored, and after the grace period otherwise."""
        await self._end.wait_disconnected()
        recorder = self._recording.recorder
        if recorder is not None and recorder.start.stores:
            await asyncio.sleep(self._vanished_grace_seconds)
        if self._serving is not None:
            self._serving.cancel()


class _RecordedContext:
    """The servicer's context: responses are written by the writer, everything else is done by the transport."""

    def __init__(self, context: Context, writer: ResponseWriter, end: CallEnd) -> None:
        self._context = context
        self._end = end
        self.write = writer.write

    def __getattr__(self, name: str) -> Any:
        if self._end.is_disconnected:
            raise RuntimeError("the call is over: its transport must not be used")
        return getattr(self._context, name)
