"""Reads the requests of one call: records their audio, then queues them for the servicer."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Final

import grpc
from dalston.v1.transcription_pb2 import TranscribeConfig, TranscribeRequest

from domain.audio_message import AudioFault, Checked, check_audio
from persistence.errors import DiskUnavailable
from persistence.recording.call_end import CallEnd
from persistence.recording.call_recording import CallRecording
from persistence.recording.interruptible import Interruptible
from persistence.recording.request_queue import RequestQueue
from persistence.recording.session_recorder import SessionRecorder
from telemetry.logs import get_logger

log = get_logger(__name__)

RECORDED_LAG_SECONDS: Final = 30.0
"""How far recognition may lag before audio that is recorded is dropped from memory and read back later, and before the
client of a session that stores only its transcript is paused. The transport pauses one that stores nothing."""

_UNRECORDED_BYTES: Final = 256 * 1024


class RequestReader:
    """Reads from the transport in a task of its own, and receives the config first."""

    def __init__(self, recording: CallRecording, end: CallEnd) -> None:
        self._recording = recording
        self._end = end
        self.queue = RequestQueue(_UNRECORDED_BYTES)
        """The requests for the servicer."""
        self.config: TranscribeConfig | None = None
        """The client's config, once it has been received."""
        self.wants_acks = False
        """Whether the client asks for acknowledgements: the config that the servicer receives always does."""
        self._is_refused = False
        self._waiting_since: float | None = None
        self._source: Interruptible[TranscribeRequest] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def has_started(self) -> bool:
        """Whether the requests of the transport are being read, or were."""
        return self._source is not None

    @property
    def silent_seconds(self) -> float:
        """How long the client has sent nothing although it could have; infinite after a disconnect."""
        if self._end.is_disconnected:
            return math.inf
        return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    def start(self, requests: AsyncIterator[TranscribeRequest]) -> None:
        """Begins to read until the client ends its requests or disconnects."""
        self._source = Interruptible(requests)
        self._task = asyncio.create_task(self._read(self._source), name="recorded requests")

    def configure_queue(self, recorder: SessionRecorder) -> None:
        """Sets the limits of the queue for the session that has begun."""
        if recorder.start.stores:
            frames = int(RECORDED_LAG_SECONDS * recorder.start.sample_rate)
            self.queue.limit_bytes = frames * recorder.frame_bytes
            self.queue.recorded = recorder.spool if recorder.start.store_audio else None

    def interrupt(self, error: Exception) -> None:
        """Ends the requests by `error`, after those that are queued."""
        if self._source is not None:
            self._source.end(error)

    def disconnect(self) -> None:
        """The transport has abandoned the call."""
        self._end.note_disconnect()
        self.queue.end()

    def cancel(self) -> None:
        """Reads nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """Returns when nothing more will be recorded."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _read(self, requests: AsyncIterator[TranscribeRequest]) -> None:
        try:
            if not await self._read_to_end(requests):
                self._end.note_half_close()
            self.queue.end()
        except OSError:
            # The audio that follows could not be stored as requested: the session ends with what is recorded.
            log.exception("audio cannot be recorded")
            self.queue.end(DiskUnavailable("the recording cannot be kept: the spool cannot be written"))
        except grpc.aio.BaseError:
            self.disconnect()
        except Exception as error:  # for example a message that cannot be decoded: the servicer answers it
            self.queue.end(error)

    async def _read_to_end(self, requests: AsyncIterator[TranscribeRequest]) -> bool:
        """Reads until `end` or a half-close; returns whether it was `end`."""
        self._waiting_since = time.monotonic()
        async for request in requests:
            self._waiting_since = None
            kind = request.WhichOneof("request")
            is_config = kind == "config" and self.config is None
            if is_config:
                self._request_acks(request.config)
            fault = self._fault(request)
            offset = await self._record(request, fault)
            await self.queue.put(Checked(request, fault), offset)
            if is_config:
                self.config = request.config
                await self._recording.begun.wait()
            elif kind == "control" and request.control.WhichOneof("control") == "end":
                self._end.note_end()
                return True
            self._waiting_since = time.monotonic()
        return False

    def _request_acks(self, config: TranscribeConfig) -> None:
        # A session that resumes this one must know how far recognition is, even if this client does not ask.
        self.wants_acks = config.acks
        config.acks = True

    def _fault(self, request: TranscribeRequest) -> AudioFault | None:
        # Audio before the config has no format to be checked with: the servicer refuses it for its order.
        recorder = self._recording.recorder
        return None if recorder is None else check_audio(len(request.audio), recorder.frame_bytes)

    async def _record(self, request: TranscribeRequest, fault: AudioFault | None) -> int | None:
        """The offset of the request's audio in the recording; None if it is not recorded."""
        recorder = self._recording.recorder
        if recorder is None or self._is_refused:
            return None
        kind = request.WhichOneof("request")
        if kind == "audio" and fault is None:
            await self._recording.pipeline.append_audio(recorder, request.audio)
            return recorder.received_bytes - len(request.audio) if recorder.start.store_audio else None
        # The servicer ends the session at a message that it refuses: its audio ends there.
        self._is_refused = kind != "control"
        return None
