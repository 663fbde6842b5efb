"""Writes the responses of one call: records the servicer's finals, then passes them on to the client."""

import asyncio
from typing import Any, Final

import grpc
from dalston.v1 import transcription_pb2 as pb
from prometheus_client import Histogram

from domain.job import format_job_id
from domain.transcript import TimedWord, Utterance
from persistence.errors import DiskUnavailable
from persistence.recording.call_end import CallEnd
from persistence.recording.call_recording import CallRecording
from persistence.recording.request_reader import RECORDED_LAG_SECONDS, RequestReader
from telemetry.logs import get_logger

log = get_logger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

# An utterance lasts up to 28 s, and its audio is recognised when it has ended.
_CAUGHT_UP_SECONDS: Final = 15.0

_lag = Histogram(
    "dalston_unprocessed_seconds",
    "Audio of a session that is received and not recognised, the utterance in progress included; each second of each.",
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 300, 1800),
)

_DEGRADED: Final = {
    "object_store": "the recording is kept on the server's disk: the object store is unavailable",
    "database": "the recording is kept on the server's disk: the database is unavailable",
    "disk": "the server's disk is full: audio is accepted again when there is room",
    "audio_lost": "the object store has lost audio of this session: the recording has silence in its place",
}


class ResponseWriter:
    """What the servicer has as its context's `write`."""

    def __init__(
        self,
        context: Context,
        recording: CallRecording,
        reader: RequestReader,
        end: CallEnd,
        *,
        store_wait_seconds: float,
    ) -> None:
        """`store_wait_seconds`: how long `session_end` waits for the session to be stored."""
        self._context = context
        self._recording = recording
        self._reader = reader
        self._end = end
        self._store_wait_seconds = store_wait_seconds
        self._is_behind = False
        # The transport accepts one message at a time.
        self._writing = asyncio.Lock()

    async def write(self, response: pb.TranscribeResponse) -> None:
        """Records what the response contains, then passes it on if the client is still connected.

        Raises:
            StorageUnavailable: the session cannot be recorded as requested.
        """
        recorder = self._recording.recorder
        match response.WhichOneof("response"):
            case "session_begin":
                config = self._reader.config or pb.TranscribeConfig()
                self._reader.configure_queue(await self._recording.begin(response.session_begin, config))
            case "final":
                await self._record_final(response.final)
            case "partial" if recorder is not None:
                partial = response.partial
                self._recording.pipeline.publish_partial(recorder, partial.text, partial.start, partial.end)
            case "warning" if recorder is not None and response.warning.code == "speech_suppressed":
                details = response.warning.details
                start, end = float(details["start"]), float(details["end"])
                recorder.note_suppressed(start, end)
                self._recording.pipeline.publish_partial(recorder, "", start, end)
            case "audio_ack" if recorder is not None:
                recorder.note_processed(response.audio_ack.processed_seconds)
                await self._report_lag(recorder.received_seconds - response.audio_ack.processed_seconds)
                if not self._reader.wants_acks:
                    return
                response.audio_ack.received_seconds = recorder.received_seconds
                response.audio_ack.stored_seconds = recorder.stored_seconds
            case "session_end" if recorder is not None:
                await self._finish(response.session_end)
        await self._pass_on(response)
        self._recording.begun.set()

    async def report_degradations(self) -> None:
        """Warns the client when its session is not stored as it should be, and reports when that is over."""
        await self._recording.begun.wait()
        recorder = self._recording.recorder
        reported: frozenset[str] = frozenset()
        while recorder is not None and recorder.start.stores and self._recording.finishing is None:
            lasting = await recorder.degradations.change()
            for reason in sorted(lasting ^ reported):
                if self._recording.finishing is None:
                    await self._pass_on(_degraded(reason, has_begun=reason in lasting))
            reported = lasting

    async def _pass_on(self, response: pb.TranscribeResponse) -> None:
        async with self._writing:
            if self._end.is_disconnected:
                return
            try:
                await self._context.write(response)
            except grpc.aio.BaseError:
                self._reader.disconnect()

    async def _record_final(self, final: pb.Final) -> None:
        recorder = self._recording.recorder
        if recorder is None:
            return
        try:
            await self._recording.pipeline.append_utterance(recorder, utterance_of(final))
        except OSError as error:
            log.exception("final cannot be recorded", session_id=recorder.start.session_id)
            raise DiskUnavailable("the recording cannot be kept: the spool cannot be written") from error

    async def _report_lag(self, seconds: float) -> None:
        """Warns the client when recognition falls behind, and reports when it has caught up."""
        _lag.observe(max(0.0, seconds))
        recorder = self._recording.recorder
        if recorder is None or not recorder.start.store_audio:
            return
        is_behind = seconds > (_CAUGHT_UP_SECONDS if self._is_behind else RECORDED_LAG_SECONDS)
        if is_behind != self._is_behind:
            self._is_behind = is_behind
            await self._pass_on(_lagging(has_begun=is_behind))

    async def _finish(self, end: pb.SessionEnd) -> None:
        """Finishes the recording and adds the places of its objects, if they are stored in time."""
        finishing = self._recording.finish(await self._end.decide(None))
        await finishing.wait(self._store_wait_seconds)
        if finishing.stored.audio_uri:
            end.audio_uri = finishing.stored.audio_uri
        if finishing.stored.transcript_uri:
            end.transcript_uri = finishing.stored.transcript_uri
        recorder = self._recording.recorder
        if recorder is not None and recorder.start.enhance_on_end and recorder.received_seconds > 0:
            # It may not exist yet: it is created with the row of the stored audio, however late that is.
            end.enhancement_job_id = format_job_id(recorder.start.id)


def utterance_of(final: pb.Final) -> Utterance:
    """The final of a response as it is stored: the one place that reads it."""
    return Utterance(
        start=final.start,
        end=final.end,
        text=final.text,
        confidence=final.confidence,
        language=final.language,
        language_probability=final.language_probability if final.HasField("language_probability") else None,
        words=tuple(
            TimedWord(word=word.word, start=word.start, end=word.end, confidence=word.confidence)
            for word in final.words
        ),
    )


def _degraded(reason: str, *, has_begun: bool) -> pb.TranscribeResponse:
    """`persistence_degraded`: `details` contain whether it begins or ends, and its reason."""
    message = _DEGRADED[reason] if has_begun else "the session is stored as it should be again"
    details = {"state": "begin" if has_begun else "end", "reason": reason}
    return pb.TranscribeResponse(warning=pb.Warning(code="persistence_degraded", message=message, details=details))


def _lagging(*, has_begun: bool) -> pb.TranscribeResponse:
    """`processing_lag`: `details` contain whether it begins or ends."""
    message = "recognition has caught up"
    if has_begun:
        message = f"recognition is {RECORDED_LAG_SECONDS:g} s behind: audio is recorded, its text comes later"
    details = {"state": "begin" if has_begun else "end"}
    return pb.TranscribeResponse(warning=pb.Warning(code="processing_lag", message=message, details=details))
