"""One transcription as a chain of linked sessions that survives lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dalston.backoff import Backoff
from dalston.errors import (
    Busy,
    ConnectionLost,
    DalstonError,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    ServerError,
    SessionActive,
    SessionResumed,
    SessionTimeout,
    Unavailable,
    Unsupported,
)
from dalston.events import Ended, Event, FinalResult, Reconnecting, Resumed, SessionBegan, Warned
from dalston.live.send_queue import SendQueue
from dalston.live.session_stream import SessionStream
from dalston.live.timeline import Timeline
from dalston.live.transport import OPEN_SECONDS, Connection, Transport
from dalston.options import Behaviour
from dalston.v1 import transcription_pb2 as pb

_BACKOFF = Backoff(first=0.25, longest=15.0)

_HANDOVER = "the session moves to another server"
_RETRYABLE = (Unavailable, Busy, SessionActive, SessionTimeout)
_CANNOT_RESUME = (NotFound, Unsupported, InvalidRequest)


class ResumableSession:
    """Runs once. `session_ids`, `finals`, `language` and `duration` can be read at any time.

    Args:
        config: the config of the first session.
        emit: delivers an event; waits for room in the queue.
    """

    def __init__(
        self,
        transport: Transport,
        config: pb.TranscribeConfig,
        behaviour: Behaviour,
        send_queue: SendQueue,
        emit: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._transport = transport
        self._config = config
        self._behaviour = behaviour
        self._send_queue = send_queue
        self._emit = emit
        self._timeline = Timeline()
        self._begin = pb.SessionBegin()
        self._base = 0  # Position in the caller's audio at which the current session begins.
        self._requested_base = 0  # Position at which the session requested last begins,
        self._is_unanswered = False  # and whether it may have begun although no response arrived.
        self._is_orphan = False  # Whether the next session cannot continue the previous one.
        self._outage_error: DalstonError | None = (
            None  # The error that ended the connection; None for a planned handover.
        )
        self._outage_began: float | None = None
        self._attempt = 0
        self.session_ids: list[str] = []
        self.finals: list[FinalResult] = []

    @property
    def duration(self) -> float:
        """Seconds of audio that the service has received."""
        return self._timeline.acknowledged.received

    @property
    def language(self) -> str:
        """The language at the beginning of the current session."""
        return self._begin.config.language or self._config.language or "auto"

    @property
    def received_bytes(self) -> int:
        """The service has received and recognised the audio before this position, whether or not it is stored."""
        acknowledged = self._timeline.acknowledged
        return self._send_queue.format.size(min(acknowledged.received, acknowledged.processed))

    async def run(self) -> None:
        """Returns after `Ended`.

        Raises:
            DalstonError: the service rejected the session.
            ConnectionLost: the connection was lost and could not be restored in time.
        """
        connection = await self._connect()
        while not await self._run_session(connection):
            connection = await self._reconnect()

    async def _connect(self) -> Connection:
        deadline, attempt = _now() + self._behaviour.wait, 0
        while True:
            attempt += 1
            try:
                connection, begin = await self._open(self._config)
            except _RETRYABLE as error:
                left = deadline - _now()
                if left <= 0:
                    raise
                pause = min(_pause(attempt, error), left)
                await self._emit(Reconnecting(attempt, pause, error.message))
                await asyncio.sleep(pause)
            else:
                self._apply_begin(begin, 0)
                await self._emit(_began(begin))
                return connection

    async def _reconnect(self) -> Connection:
        while True:
            self._attempt += 1
            pause = self._pause_or_give_up()
            await self._emit(
                Reconnecting(self._attempt, pause, self._outage_error.message if self._outage_error else _HANDOVER)
            )
            await asyncio.sleep(pause)
            try:
                connection, begin = await self._open(self._resuming_config())
            except SessionResumed as error:
                self._follow_resumed(error)
            except _CANNOT_RESUME as error:
                await self._replace(error)
            except _RETRYABLE as error:
                self._note_outage(error)
                self._is_unanswered = self._is_unanswered or isinstance(error, Unavailable)
            else:
                await self._apply_resumption(begin)
                return connection

    async def _open(self, config: pb.TranscribeConfig) -> tuple[Connection, pb.SessionBegin]:
        """Opens a connection and begins a session.

        Raises:
            DalstonError: the session was rejected, or the connection failed.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                connection = await self._transport.open(config)
                response = await connection.receive()
            return connection, _begin_of(response)
        except BaseException as error:
            if connection is not None:
                await connection.close()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("the service did not begin the session in time") from None
            raise

    def _resuming_config(self) -> pb.TranscribeConfig:
        """The config of the session that continues the current one."""
        audio, format_ = self._send_queue.audio, self._send_queue.format
        point = self._timeline.resume_point(format_.seconds(audio.start), stores_audio=self._config.store_audio)
        position = min(max(format_.size(point), audio.start, self._base), audio.end)
        self._requested_base = position
        config = pb.TranscribeConfig()
        config.CopyFrom(self._config)
        config.language = self._send_queue.language_at(position)
        config.ClearField("resume_session_id")
        config.ClearField("resume_from_seconds")
        if not self._is_orphan:
            config.resume_session_id = self.session_ids[-1]
            config.resume_from_seconds = format_.seconds(position - self._base)
        return config

    async def _apply_resumption(self, begin: pb.SessionBegin) -> None:
        previous, position = self.session_ids[-1], self._requested_base
        if begin.HasField("resume_from_seconds"):
            position = self._base + self._send_queue.format.size(begin.resume_from_seconds)
        if not self._send_queue.audio.start <= position <= self._send_queue.audio.end:
            raise ServerError("the service resumed at a point that was not requested")
        self._apply_begin(begin, position)
        await self._emit(Resumed(begin.session_id, previous, self._timeline.offset))

    def _apply_begin(self, begin: pb.SessionBegin, position: int) -> None:
        self._begin, self._base = begin, position
        self._is_orphan = self._is_unanswered = False
        self._outage_error = None
        self.session_ids.append(begin.session_id)
        self._timeline.begin_session(self._send_queue.format.seconds(position))
        self._send_queue.begin_session(position)

    def _follow_resumed(self, error: SessionResumed) -> None:
        """Continues after a session that began although its `session_begin` was lost."""
        if not self._is_unanswered:
            raise error
        self._note_outage(error)
        if error.resumed_by:  # Without an id, wait until the service notices that the session has no client.
            self.session_ids.append(error.resumed_by)
            self._base = self._requested_base
            self._timeline.begin_session(self._send_queue.format.seconds(self._base))
            self._is_unanswered = False

    async def _replace(self, error: DalstonError) -> None:
        """Abandons the current session; the next one does not continue it."""
        if self._is_orphan:
            raise error
        self._is_orphan = True
        message = f"session {self.session_ids[-1]} cannot be continued; a new session replaces it: {error.message}"
        await self._emit(Warned("session_replaced", message, {"session_id": self.session_ids[-1]}))

    def _note_outage(self, error: DalstonError) -> None:
        """Records the beginning of an outage and its error."""
        if self._outage_began is None:
            self._outage_began = _now()
        self._outage_error = error

    def _pause_or_give_up(self) -> float:
        """Seconds until the next attempt; 0 for the first attempt after a planned handover.

        Raises:
            ConnectionLost: the next attempt would exceed `give_up_after`.
        """
        if self._outage_error is None and self._attempt == 1:
            return 0.0
        pause = _pause(self._attempt, self._outage_error)
        if self._outage_began is not None and _now() + pause > self._outage_began + self._behaviour.give_up_after:
            reason = self._outage_error.message if self._outage_error else _HANDOVER
            raise ConnectionLost(
                f"the connection was lost and could not be restored: {reason}",
                session_id=self.session_ids[-1],
                finals=tuple(self.finals),
            )
        return pause

    async def _run_session(self, connection: Connection) -> bool:
        """Runs a session to its end. Returns whether the transcription is complete."""
        stream = SessionStream(
            connection=connection,
            limits=self._begin.limits,
            base=self._base,
            send_queue=self._send_queue,
            timeline=self._timeline,
            finals=self.finals,
            stores_audio=self._config.store_audio,
            emit=self._emit,
            on_progress=self._on_progress,
        )
        try:
            end = await stream.run()
        except _RETRYABLE as error:
            self._note_outage(error)
            return False
        finally:
            await connection.close()
        if end is not None:
            await self._emit(self._ended(end))
        return end is not None

    def _on_progress(self) -> None:
        self._outage_began, self._attempt = None, 0

    def _ended(self, end: pb.SessionEnd) -> Ended:
        offset = self._timeline.offset
        before = sum(final.end - final.start for final in self.finals if final.start < offset)
        return Ended(
            session_id=end.session_id,
            session_ids=tuple(self.session_ids),
            duration=offset + end.total_duration,
            text=" ".join(final.text for final in self.finals),
            enhancement_job_id=end.enhancement_job_id if end.HasField("enhancement_job_id") else None,
            audio_uri=end.audio_uri if end.HasField("audio_uri") else None,
            transcript_uri=end.transcript_uri if end.HasField("transcript_uri") else None,
            speech_duration=before + end.total_speech_duration,
            finals=tuple(self.finals),
        )


def _began(begin: pb.SessionBegin) -> SessionBegan:
    config = begin.config
    return SessionBegan(
        session_id=begin.session_id,
        language=config.language,
        model=config.model,
        encoding=config.encoding,
        sample_rate=config.sample_rate,
        channels=config.channels,
        max_session_seconds=begin.limits.max_session_seconds,
        resumed_from=begin.resumed_from if begin.HasField("resumed_from") else None,
        resume_from_seconds=begin.resume_from_seconds if begin.HasField("resume_from_seconds") else None,
        idle_timeout_seconds=begin.limits.idle_timeout_seconds,
        max_message_bytes=begin.limits.max_message_bytes,
    )


def _begin_of(response: pb.TranscribeResponse | None) -> pb.SessionBegin:
    if response is None or not response.HasField("session_begin"):
        raise ServerError("the service did not confirm the session with session_begin")
    return response.session_begin


def _pause(attempt: int, error: DalstonError | None) -> float:
    return _BACKOFF.pause(attempt, error.retry_after if isinstance(error, Busy) else None)


def _now() -> float:
    return asyncio.get_running_loop().time()
