"""One Transcribe call as the recording interceptor runs it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

import grpc
from dalston.v1.transcription_pb2 import (
    Final as FinalMessage,
)
from dalston.v1.transcription_pb2 import (
    SessionBegin,
    SessionEnd,
    TranscribeConfig,
    TranscribeRequest,
    TranscribeResponse,
)
from dalston.v1.transcription_pb2 import (
    Warning as WarningMessage,
)
from prometheus_client import Histogram

from domain.client_address import client_ip
from domain.session import EndReason
from domain.session_id import parse_session_id
from domain.tenancy import current_caller
from domain.transcript import TimedWord, Utterance
from persistence.errors import DiskUnavailable
from persistence.recording.interruptible import Interruptible
from persistence.recording.pipeline import Classify, RecordingPipeline
from persistence.recording.request_queue import RequestQueue
from persistence.recording.session_recorder import SessionRecorder
from persistence.session_values import SessionStart
from persistence.storing.finisher import Finishing
from telemetry.logs import get_logger

log = get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Servicer = Callable[[AsyncIterator[TranscribeRequest], Context], Awaitable[None]]

MAX_AUDIO_MESSAGE_BYTES: Final = 65_536
VANISHED: Final = EndReason("interrupted", "the client went away")
STOPPED: Final = EndReason("interrupted", "the server stopped")

# Recognition may lag this far behind before audio that is recorded is let go and read back later, and the client of a
# session that stores only its transcript is held back. One that stores nothing leaves the waiting to the transport.
_RECORDED_LAG_SECONDS: Final = 30.0
# An utterance lasts up to 28 s, and its audio is recognised when it has ended.
_CAUGHT_UP_SECONDS: Final = 15.0
_UNRECORDED_BYTES: Final = 256 * 1024
# A connection that breaks often looks half-closed first, and the cancellation follows. Waited for in turns: a loop that
# is busy hears of the cancellation later, and takes as much longer over each turn.
_BREAK_SECONDS: Final = 0.05
_BREAK_TURNS: Final = 10
_ROW_SECONDS: Final = 2.0

_lag = Histogram(
    "dalston_unprocessed_seconds",
    "Audio of a session that is received and not recognised, the utterance in progress included; each second of each.",
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 300, 1800),
)

_DEGRADED: Final = {
    "object_store": "the recording is kept on the server's disk: the object store does not take it",
    "database": "the recording is kept on the server's disk: the database does not answer",
    "disk": "the server's disk is full: audio is taken again when there is room",
    "audio_lost": "the object store has lost audio of this session: the recording has silence in its place",
}


class RecordedCall:
    """Stands between the transport and the servicer: what is received is recorded before the servicer sees it, what is
    said before the client sees it.

    Three tasks: the handler's own, which the transport cancels; one that reads and records requests; `run`, which runs
    the servicer and finishes the recording, and which no cancellation of the transport reaches.
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
        self._servicer = servicer
        self._context = context
        self._pipeline = pipeline
        self._classify = classify
        self._store_wait_seconds = store_wait_seconds
        self._vanished_grace_seconds = vanished_grace_seconds
        # Read now: the call must not be touched once the transport has given it up.
        self._client_ip = client_ip(context)
        self._requests = RequestQueue(_UNRECORDED_BYTES)
        self._config: TranscribeConfig | None = None
        self._beginning: asyncio.Task[SessionRecorder] | None = None
        self._recorder: SessionRecorder | None = None
        self._begun = asyncio.Event()
        self._finishing: Finishing | None = None
        self._has_vanished = asyncio.Event()
        self._ended_by_client = False
        self._has_half_closed = False
        self._is_refused = False
        self._taken_over: Exception | None = None
        self._listening_since: float | None = None
        self._wants_acks = False
        self._is_behind = False
        caller = current_caller.get(None)
        self.key_id = None if caller is None else caller.key_id
        """The key that the call was made with, or that made its token; None where there are no keys."""
        self._source: Interruptible[TranscribeRequest] | None = None
        self._limiting: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._cut: Exception | None = None
        # The transport takes one message at a time.
        self._writing = asyncio.Lock()

    @property
    def has_vanished(self) -> bool:
        """Whether the transport has given the call up."""
        return self._has_vanished.is_set()

    @property
    def session_id(self) -> UUID | None:
        """The session that it records; None before it has begun."""
        return None if self._recorder is None else self._recorder.start.id

    @property
    def tenant_id(self) -> UUID | None:
        """Whose the session is; None before it has begun."""
        return None if self._recorder is None else self._recorder.start.tenant_id

    @property
    def received_seconds(self) -> float:
        """Audio of the session that was received."""
        return 0.0 if self._recorder is None else self._recorder.received_seconds

    @property
    def silent_seconds(self) -> float:
        """How long the client has sent nothing, though it could have: infinite when it has gone."""
        if self.has_vanished:
            return math.inf
        return 0.0 if self._listening_since is None else time.monotonic() - self._listening_since

    def start_reading(self, requests: AsyncIterator[TranscribeRequest]) -> None:
        """Begins to record what the client sends and to hand it on, until the client ends it or vanishes."""
        self._source = Interruptible(requests)
        self._reading = asyncio.create_task(self._read(self._source), name="recorded requests")

    async def stop_reading(self) -> None:
        """Returns when nothing more will be recorded."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def _read(self, requests: AsyncIterator[TranscribeRequest]) -> None:
        try:
            self._listening_since = time.monotonic()
            async for request in requests:
                self._listening_since = None
                if request.WhichOneof("request") == "config" and self._config is None:
                    self._note_acks(request.config)
                await self._requests.put(request, await self._record_request(request))
                kind = request.WhichOneof("request")
                if kind == "config" and self._config is None:
                    self._config = request.config
                    await self._begun.wait()
                elif kind == "control" and request.control.WhichOneof("control") == "end":
                    self._ended_by_client = True
                    break
                self._listening_since = time.monotonic()
            self._has_half_closed = not self._ended_by_client
            self._requests.end()
        except OSError:
            # What follows would not be kept as was asked for: the session ends here, with what was recorded.
            log.exception("audio cannot be recorded")
            self._requests.end(DiskUnavailable("the recording cannot be kept: the spool cannot be written"))
        except grpc.aio.BaseError:
            self.client_vanished()
        except Exception as error:  # a message that cannot be decoded, for example: the servicer's to answer
            self._requests.end(error)

    def _note_acks(self, config: TranscribeConfig) -> None:
        # How far recognition is must be known to whoever resumes the session, whether its client asks or not.
        self._wants_acks = config.acks
        config.acks = True

    async def run(self) -> None:
        """Runs the servicer, then finishes the recording; raises what the servicer raised."""
        context = cast(Context, _RecordedContext(self._context, self))
        self._task = asyncio.ensure_future(self._servicer(self._requests, context))
        side_tasks = [
            asyncio.create_task(self._limit_after_vanishing(), name="grace of a vanished client"),
            asyncio.create_task(self._report_degradations(), name="warnings of a recorded call"),
        ]
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            # The process stops and has waited long enough.
            self._task.cancel()
            await asyncio.wait({self._task})
        finally:
            for task in side_tasks:
                task.cancel()
            await asyncio.wait(side_tasks)
        # A client may go on sending to a session that has failed; its recording ends here.
        await self.stop_reading()
        self._requests.end()
        self._requests.close()
        self._begun.set()
        if self._limiting is not None:
            self._limiting.cancel()
        error = self._error_of_servicer()
        if self._beginning is not None and self._recorder is None:
            self._recorder = await _result_or_none(self._beginning)
        if self._recorder is not None and self._finishing is None:
            self._finishing = self._pipeline.finish(self._recorder, await self._end_reason(error))
            await self._finishing.wait_for_row(_ROW_SECONDS)
        if self._taken_over is not None:
            # Whoever is still there, against all appearances, is told.
            raise self._taken_over
        if error is not None and not self.has_vanished:
            # A cancellation that the transport did not ask for would leave the client without an answer.
            raise RuntimeError("the session was cut short") if isinstance(error, asyncio.CancelledError) else error

    def client_vanished(self) -> None:
        """The transport has given the call up: nothing more is read from it or written to it."""
        self._has_vanished.set()
        self._requests.end()

    def take_over(self, error: Exception) -> None:
        """Ends the call as if its client had vanished: another session continues this one. May be repeated."""
        if self._taken_over is not None or self._recorder is None:
            return
        self._taken_over = error
        self.client_vanished()
        if self._reading is not None:
            self._reading.cancel()
        self._pipeline.flush_soon(self._recorder)

    def end(self, error: Exception, grace_seconds: float) -> bool:
        """Ends the session by `error` when what was received is recognised, or the grace is over.

        Nothing more is received from now on. Gives False where it has ended or is being ended already.
        """
        has_ended = self._finishing is not None or (self._task is not None and self._task.done())
        if self._limiting is not None or self._source is None or has_ended:
            return False
        self._source.end(error)
        self._limiting = asyncio.create_task(self._cut_after(grace_seconds, error), name="grace of an ended session")
        return True

    async def _cut_after(self, seconds: float, error: Exception) -> None:
        await asyncio.sleep(seconds)
        self.cut(error)

    def cut(self, error: Exception) -> None:
        """Ends the call by `error`, whatever it is doing."""
        self._cut = error
        self._requests.end(error)
        if self._task is not None:
            self._task.cancel()

    async def write(self, response: TranscribeResponse) -> None:
        """Records what the servicer says, then passes it on if the client is still there.

        Raises:
            StorageUnavailable: the session cannot be recorded as asked.
        """
        match response.WhichOneof("response"):
            case "session_begin":
                await self._begin(response.session_begin)
            case "final":
                await self._record_final(response.final)
            case "warning" if self._recorder is not None and response.warning.code == "speech_suppressed":
                details = response.warning.details
                self._recorder.note_suppressed(float(details["start"]), float(details["end"]))
            case "audio_ack" if self._recorder is not None:
                self._recorder.note_processed(response.audio_ack.processed_seconds)
                await self._tell_lag(self._recorder.received_seconds - response.audio_ack.processed_seconds)
                if not self._wants_acks:
                    return
                response.audio_ack.received_seconds = self._recorder.received_seconds
                response.audio_ack.stored_seconds = self._recorder.stored_seconds
            case "session_end" if self._recorder is not None:
                response = await self._end(response.session_end)
        await self._pass_on(response)
        self._begun.set()

    async def _pass_on(self, response: TranscribeResponse) -> None:
        async with self._writing:
            if self.has_vanished:
                return
            try:
                await self._context.write(response)
            except grpc.aio.BaseError:
                self.client_vanished()

    async def _begin(self, begin: SessionBegin) -> None:
        config = self._config or TranscribeConfig()
        caller = current_caller.get()
        start = SessionStart(
            id=parse_session_id(begin.session_id),
            tenant_id=caller.tenant_id,
            worker_id=self._pipeline.worker_id,
            started_at=datetime.now(UTC),
            language=begin.config.language,
            model=begin.config.model,
            encoding=begin.config.encoding,
            sample_rate=begin.config.sample_rate,
            channels=begin.config.channels,
            store_audio=config.store_audio,
            store_transcript=config.store_transcript,
            enhance_on_end=config.enhance_on_end,
            client_ip=self._client_ip,
            previous_session_id=parse_session_id(begin.resumed_from) if begin.resumed_from else None,
            resume_from_seconds=begin.resume_from_seconds if begin.HasField("resume_from_seconds") else None,
        )
        # A task of its own: cut short it would leave a row or a directory that nobody ends.
        self._beginning = asyncio.create_task(self._pipeline.begin(start, caller))
        self._recorder = await asyncio.shield(self._beginning)
        if start.stores:
            frames = int(_RECORDED_LAG_SECONDS * start.sample_rate)
            self._requests.limit_bytes = frames * self._recorder.frame_bytes
            self._requests.recorded = self._recorder.spool if start.store_audio else None

    async def _record_request(self, request: TranscribeRequest) -> int | None:
        """Where the request's audio is in the recording; None if it is not there."""
        if self._recorder is None or self._is_refused:
            return None
        if request.WhichOneof("request") == "audio":
            audio = request.audio
            if len(audio) <= MAX_AUDIO_MESSAGE_BYTES and len(audio) % self._recorder.frame_bytes == 0:
                await self._pipeline.append_audio(self._recorder, audio)
                return self._recorder.received_bytes - len(audio) if self._recorder.start.store_audio else None
        elif request.WhichOneof("request") == "control":
            return None
        # The servicer ends the session here: this message and what follows are not part of its audio.
        self._is_refused = True
        return None

    async def _record_final(self, final: FinalMessage) -> None:
        if self._recorder is None:
            return
        words = tuple(TimedWord(word.word, word.start, word.end, word.confidence) for word in final.words)
        utterance = Utterance(final.start, final.end, final.text, final.confidence, final.language, words=words)
        try:
            await self._pipeline.append_utterance(self._recorder, utterance)
        except OSError as error:
            log.exception("final cannot be recorded", session_id=self._recorder.start.session_id)
            raise DiskUnavailable("the recording cannot be kept: the spool cannot be written") from error

    async def _report_degradations(self) -> None:
        """Warns the client when its session is not stored as it should be, and says when that is over."""
        await self._begun.wait()
        told: frozenset[str] = frozenset()
        while self._recorder is not None and self._recorder.start.stores and self._finishing is None:
            lasting = await self._recorder.degradations.change()
            for reason in sorted(lasting ^ told):
                if self._finishing is None:
                    await self._pass_on(_degraded(reason, has_begun=reason in lasting))
            told = lasting

    async def _tell_lag(self, seconds: float) -> None:
        """Warns the client when recognition falls behind, and says when it has caught up."""
        _lag.observe(max(0.0, seconds))
        if self._recorder is None or not self._recorder.start.store_audio:
            return
        is_behind = seconds > (_CAUGHT_UP_SECONDS if self._is_behind else _RECORDED_LAG_SECONDS)
        if is_behind != self._is_behind:
            self._is_behind = is_behind
            await self._pass_on(_lagging(has_begun=is_behind))

    async def _end(self, end: SessionEnd) -> TranscribeResponse:
        """`session_end` with where the recording is, as far as it is stored in time."""
        assert self._recorder is not None  # noqa: S101 - its caller knows
        self._finishing = self._pipeline.finish(self._recorder, await self._end_reason(None))
        await self._finishing.wait(self._store_wait_seconds)
        response = TranscribeResponse(session_end=end)
        stored = self._finishing.stored
        if stored.audio_uri:
            response.session_end.audio_uri = stored.audio_uri
        if stored.transcript_uri:
            response.session_end.transcript_uri = stored.transcript_uri
        return response

    async def _end_reason(self, error: BaseException | None) -> EndReason:
        if error is None and not self._ended_by_client and self._has_half_closed:
            for _ in range(_BREAK_TURNS):
                await asyncio.sleep(_BREAK_SECONDS / _BREAK_TURNS)
            self._ended_by_client = not self.has_vanished
        was_cut = isinstance(error, asyncio.CancelledError)
        if self.has_vanished and (was_cut or not self._ended_by_client):
            return VANISHED
        if was_cut:
            return STOPPED
        return EndReason("completed") if error is None else self._classify(error)

    def _error_of_servicer(self) -> BaseException | None:
        assert self._task is not None  # noqa: S101 - its caller made it
        if self._cut is not None:
            return self._cut
        if self._task.cancelled():
            return asyncio.CancelledError("the servicer was cancelled")
        return self._task.exception()

    async def _limit_after_vanishing(self) -> None:
        """A client that is gone needs no recognition unless it is stored, and then not for ever."""
        await self._has_vanished.wait()
        if self._recorder is not None and self._recorder.start.stores:
            await asyncio.sleep(self._vanished_grace_seconds)
        if self._task is not None:
            self._task.cancel()


class _RecordedContext:
    """The servicer's context: writes go through the recording, the rest to the transport."""

    def __init__(self, context: Context, call: RecordedCall) -> None:
        self._context = context
        self.write = call.write

        self._call = call

    def __getattr__(self, name: str) -> Any:
        if self._call.has_vanished:
            raise RuntimeError("the call is over: the transport must not be touched")
        return getattr(self._context, name)


def _degraded(reason: str, *, has_begun: bool) -> TranscribeResponse:
    """`persistence_degraded`: `details` say whether it begins or ends, and what is in the way."""
    message = _DEGRADED[reason] if has_begun else "the session is stored as it should be again"
    details = {"state": "begin" if has_begun else "end", "reason": reason}
    return TranscribeResponse(warning=WarningMessage(code="persistence_degraded", message=message, details=details))


def _lagging(*, has_begun: bool) -> TranscribeResponse:
    """`processing_lag`: `details` say whether it begins or ends."""
    message = "recognition has caught up"
    if has_begun:
        message = f"recognition is {_RECORDED_LAG_SECONDS:g} s behind: audio is recorded, its text comes later"
    details = {"state": "begin" if has_begun else "end"}
    return TranscribeResponse(warning=WarningMessage(code="processing_lag", message=message, details=details))


async def _result_or_none(beginning: asyncio.Task[SessionRecorder]) -> SessionRecorder | None:
    await asyncio.wait({beginning})
    return None if beginning.exception() else beginning.result()
