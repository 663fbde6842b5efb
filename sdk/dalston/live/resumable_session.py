"""The sessions of one transcription, one after the other, as connections come and go."""

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

_MOVES = "the session moves to another server"
_LOST = (Unavailable, Busy, SessionActive, SessionTimeout)
_CANNOT_RESUME = (NotFound, Unsupported, InvalidRequest)


class ResumableSession:
    """Runs once. `session_ids`, `finals`, `language` and `duration` can be read all the time.

    Args:
        config: of the first session.
        emit: takes an event, when there is room for it.
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
        self._base = 0  # Where in the caller's audio the current session begins.
        self._asked_base = 0  # Where the session begins that was asked for last,
        self._is_unanswered = False  # and whether it may have begun without our knowing.
        self._is_orphan = False  # Whether the next session cannot continue the one before.
        self._trouble: DalstonError | None = None  # Why there is no connection; None if that is on purpose.
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
        """The language in force at the beginning."""
        return self._begin.config.language or self._config.language or "auto"

    @property
    def received_bytes(self) -> int:
        """Audio before this position is with the service and recognised, stored or not."""
        acknowledged = self._timeline.acknowledged
        return self._send_queue.format.size(min(acknowledged.received, acknowledged.processed))

    async def run(self) -> None:
        """Returns after `Ended`.

        Raises:
            DalstonError: it was refused at first, or in the end.
            ConnectionLost: the connection was lost and could not be made again in time.
        """
        connection = await self._first()
        while not await self._talk(connection):
            connection = await self._again()

    async def _first(self) -> Connection:
        deadline, attempt = _now() + self._behaviour.wait, 0
        while True:
            attempt += 1
            try:
                connection, begin = await self._open(self._config)
            except _LOST as error:
                left = deadline - _now()
                if left <= 0:
                    raise
                pause = min(_pause(attempt, error), left)
                await self._emit(Reconnecting(attempt, pause, error.message))
                await asyncio.sleep(pause)
            else:
                self._take_begin(begin, 0)
                await self._emit(_began(begin))
                return connection

    async def _again(self) -> Connection:
        while True:
            self._attempt += 1
            pause = self._pause_or_give_up()
            await self._emit(Reconnecting(self._attempt, pause, self._trouble.message if self._trouble else _MOVES))
            await asyncio.sleep(pause)
            try:
                connection, begin = await self._open(self._resuming_config())
            except SessionResumed as error:
                self._follow(error)
            except _CANNOT_RESUME as error:
                await self._replace(error)
            except _LOST as error:
                self._lost(error)
                self._is_unanswered = self._is_unanswered or isinstance(error, Unavailable)
            else:
                await self._resumed(begin)
                return connection

    async def _open(self, config: pb.TranscribeConfig) -> tuple[Connection, pb.SessionBegin]:
        """Begins a session.

        Raises:
            DalstonError: it was refused, or the connection failed.
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
                raise DeadlineExceeded("the service did not take the session in time") from None
            raise

    def _resuming_config(self) -> pb.TranscribeConfig:
        """The config of the session that takes the place of the current one."""
        audio, format_ = self._send_queue.audio, self._send_queue.format
        point = self._timeline.resume_point(format_.seconds(audio.start), stores_audio=self._config.store_audio)
        position = min(max(format_.size(point), audio.start, self._base), audio.end)
        self._asked_base = position
        config = pb.TranscribeConfig()
        config.CopyFrom(self._config)
        config.language = self._send_queue.language_at(position)
        config.ClearField("resume_session_id")
        config.ClearField("resume_from_seconds")
        if not self._is_orphan:
            config.resume_session_id = self.session_ids[-1]
            config.resume_from_seconds = format_.seconds(position - self._base)
        return config

    async def _resumed(self, begin: pb.SessionBegin) -> None:
        previous, position = self.session_ids[-1], self._asked_base
        if begin.HasField("resume_from_seconds"):
            position = self._base + self._send_queue.format.size(begin.resume_from_seconds)
        if not self._send_queue.audio.start <= position <= self._send_queue.audio.end:
            raise ServerError("the service resumed at a point that was not asked for")
        self._take_begin(begin, position)
        await self._emit(Resumed(begin.session_id, previous, self._timeline.offset))

    def _take_begin(self, begin: pb.SessionBegin, position: int) -> None:
        self._begin, self._base = begin, position
        self._is_orphan = self._is_unanswered = False
        self._trouble = None
        self.session_ids.append(begin.session_id)
        self._timeline.begin(self._send_queue.format.seconds(position))
        self._send_queue.begin(position)

    def _follow(self, error: SessionResumed) -> None:
        """Goes on behind a session that began without our knowing, because its `session_begin` was lost."""
        if not self._is_unanswered:
            raise error
        self._lost(error)
        if error.resumed_by:  # Otherwise it will give way when the service notices that it has no client.
            self.session_ids.append(error.resumed_by)
            self._base = self._asked_base
            self._timeline.begin(self._send_queue.format.seconds(self._base))
            self._is_unanswered = False

    async def _replace(self, error: DalstonError) -> None:
        """Gives up to continue the session; the next is one of its own."""
        if self._is_orphan:
            raise error
        self._is_orphan = True
        message = f"session {self.session_ids[-1]} cannot be continued, a new one goes on: {error.message}"
        await self._emit(Warned("session_replaced", message, {"session_id": self.session_ids[-1]}))

    def _lost(self, error: DalstonError) -> None:
        """Notes that there is no connection, and why."""
        if self._outage_began is None:
            self._outage_began = _now()
        self._trouble = error

    def _pause_or_give_up(self) -> float:
        """Seconds until the next attempt; none for the first of a session that is left on purpose.

        Raises:
            ConnectionLost: it would be too late.
        """
        if self._trouble is None and self._attempt == 1:
            return 0.0
        pause = _pause(self._attempt, self._trouble)
        if self._outage_began is not None and _now() + pause > self._outage_began + self._behaviour.give_up_after:
            reason = self._trouble.message if self._trouble else _MOVES
            raise ConnectionLost(
                f"the connection was lost and could not be made again: {reason}",
                session_id=self.session_ids[-1],
                finals=tuple(self.finals),
            )
        return pause

    async def _talk(self, connection: Connection) -> bool:
        """Runs a session to its end. Whether that was the end of all."""
        stream = SessionStream(
            connection=connection,
            limits=self._begin.limits,
            base=self._base,
            send_queue=self._send_queue,
            timeline=self._timeline,
            finals=self.finals,
            stores_audio=self._config.store_audio,
            emit=self._emit,
            progressed=self._progressed,
        )
        try:
            end = await stream.run()
        except _LOST as error:
            self._lost(error)
            return False
        finally:
            await connection.close()
        if end is not None:
            await self._emit(self._ended(end))
        return end is not None

    def _progressed(self) -> None:
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
        raise ServerError("the service began a session without saying so")
    return response.session_begin


def _pause(attempt: int, error: DalstonError | None) -> float:
    return _BACKOFF.pause(attempt, error.retry_after if isinstance(error, Busy) else None)


def _now() -> float:
    return asyncio.get_running_loop().time()
