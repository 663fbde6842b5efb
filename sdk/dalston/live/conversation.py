"""The sessions of one transcription, one after the other, as connections come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

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
from dalston.events import Ended, Event, Final, Partial, Reconnecting, Resumed, SessionBegan, Warned, Word
from dalston.live.outgoing import END, KEEP_ALIVE, Outgoing
from dalston.live.tasks import stop
from dalston.live.timeline import Timeline
from dalston.live.transport import OPEN_SECONDS, Connection, Transport
from dalston.options import Behaviour
from dalston.v1 import transcription_pb2 as pb

SILENCE_SECONDS = 30.0
"""Without a message: the service acknowledges every 5 s even when there is nothing new."""
_BACKOFF = Backoff(first=0.25, longest=15.0)
_KEEP_ALIVE_SECONDS = 10.0
_CLOSING_SECONDS = 5.0
_MESSAGE_BYTES = 16_384
"""Half a second of the default format."""
_LIMIT_SHARE = 0.05
_LIMIT_SECONDS = 30.0
"""How long before the longest time of a session another takes its place: this, or that share of it if that is less."""

_LOST = (Unavailable, Busy, SessionActive, SessionTimeout)
_CANNOT_RESUME = (NotFound, Unsupported, InvalidRequest)


class Conversation:
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
        outgoing: Outgoing,
        emit: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._transport = transport
        self._config = config
        self._behaviour = behaviour
        self._outgoing = outgoing
        self._emit = emit
        self._timeline = Timeline()
        self._begin = pb.SessionBegin()
        self._base = 0  # Where in the caller's audio the current session begins.
        self._asked_base = 0  # Where the session begins that was asked for last,
        self._is_unanswered = False  # and whether it may have begun without our knowing.
        self._is_orphan = False  # Whether the next session cannot continue the one before.
        self._holds_back = False  # Whether the next session has to tell what this one was cut off in.
        self._began_at = 0.0
        self._trouble: DalstonError | None = None  # Why there is no connection; None if that is on purpose.
        self._outage_began: float | None = None
        self._attempt = 0
        self._furthest = 0.0
        self.session_ids: list[str] = []
        self.finals: list[Final] = []

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
        return self._outgoing.format.size(min(acknowledged.received, acknowledged.processed))

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
            pause = 0.0 if self._trouble is None else self._pause_or_give_up(self._trouble)
            reason = "the session moves to another server" if self._trouble is None else self._trouble.message
            await self._emit(Reconnecting(self._attempt, pause, reason))
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
        audio, format_ = self._outgoing.audio, self._outgoing.format
        point = self._timeline.resume_point(format_.seconds(audio.start), stores_audio=self._config.store_audio)
        position = min(max(format_.size(point), audio.start, self._base), audio.end)
        self._asked_base = position
        config = pb.TranscribeConfig()
        config.CopyFrom(self._config)
        config.language = self._outgoing.language_at(position)
        config.ClearField("resume_session_id")
        config.ClearField("resume_from_seconds")
        if not self._is_orphan:
            config.resume_session_id = self.session_ids[-1]
            config.resume_from_seconds = format_.seconds(position - self._base)
        return config

    async def _resumed(self, begin: pb.SessionBegin) -> None:
        previous, position = self.session_ids[-1], self._asked_base
        if begin.HasField("resume_from_seconds"):
            position = self._base + self._outgoing.format.size(begin.resume_from_seconds)
        if not self._outgoing.audio.start <= position <= self._outgoing.audio.end:
            raise ServerError("the service resumed at a point that was not asked for")
        self._take_begin(begin, position)
        await self._emit(Resumed(begin.session_id, previous, self._timeline.offset))

    def _take_begin(self, begin: pb.SessionBegin, position: int) -> None:
        self._begin, self._base, self._began_at = begin, position, _now()
        self._is_orphan = self._is_unanswered = self._holds_back = False
        self._trouble = None
        self.session_ids.append(begin.session_id)
        self._timeline.begin(self._outgoing.format.seconds(position))
        self._outgoing.begin(position)

    def _follow(self, error: SessionResumed) -> None:
        """Goes on behind a session that began without our knowing, because its `session_begin` was lost."""
        if not self._is_unanswered:
            raise error
        self._lost(error)
        if error.resumed_by:  # Otherwise it will give way when the service notices that it has no client.
            self.session_ids.append(error.resumed_by)
            self._base = self._asked_base
            self._timeline.begin(self._outgoing.format.seconds(self._base))
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

    def _pause_or_give_up(self, trouble: DalstonError) -> float:
        pause = _pause(self._attempt, trouble)
        if self._outage_began is not None and _now() + pause > self._outage_began + self._behaviour.give_up_after:
            raise ConnectionLost(
                f"the connection was lost and could not be made again: {trouble.message}",
                session_id=self.session_ids[-1],
                finals=tuple(self.finals),
            )
        return pause

    async def _talk(self, connection: Connection) -> bool:
        """Sends and receives until the session ends. Whether that was the end of all."""
        sending = asyncio.create_task(self._send(connection))
        receiving = asyncio.create_task(self._receive(connection))
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()  # Nothing more is sent; the session goes on to its end.
            return await receiving
        except _LOST as error:
            self._lost(error)
            return False
        finally:
            await stop(sending, receiving)
            await connection.close()

    async def _send(self, connection: Connection) -> None:
        frame = self._outgoing.format.frame_bytes
        most = min(self._begin.limits.max_message_bytes or _MESSAGE_BYTES, _MESSAGE_BYTES) // frame * frame
        idle = min(_KEEP_ALIVE_SECONDS, (self._begin.limits.idle_timeout_seconds or 30.0) / 3)
        while True:
            if self._is_long_enough():
                self._outgoing.leave()
            item = self._outgoing.next(most)
            if item is None:
                try:
                    async with asyncio.timeout(idle):
                        await self._outgoing.changed()
                    continue
                except TimeoutError:
                    item = KEEP_ALIVE
            if isinstance(item, bytes):
                is_sent = await connection.send_audio(item)
            else:
                is_sent = await connection.send_control(item)
            if not is_sent or item is END:
                return

    def _is_long_enough(self) -> bool:
        """Whether another session has to go on, before the service ends this one."""
        longest = self._begin.limits.max_session_seconds
        if longest <= 0:
            return False
        sent = self._outgoing.format.seconds(self._outgoing.position - self._base)
        return max(sent, _now() - self._began_at) > longest - min(_LIMIT_SECONDS, longest * _LIMIT_SHARE)

    async def _receive(self, connection: Connection) -> bool:
        """Takes messages until the session has ended well. Whether that was the end of all.

        Raises:
            DalstonError: it has ended otherwise.
        """
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    response = await connection.receive()
            except TimeoutError:
                raise DeadlineExceeded(f"the service said nothing for {SILENCE_SECONDS:g} seconds") from None
            if response is None:
                raise Unavailable("the session ended without its end")
            if response.HasField("session_end"):
                await _read_out(connection)
                return await self._completed(response.session_end)
            await self._take(response)

    async def _take(self, response: pb.TranscribeResponse) -> None:
        timeline = self._timeline
        event: Event | None = None
        match response.WhichOneof("response"):
            case "final":
                event = self._final(response.final)
            case "partial":
                event = timeline.partial(Partial(response.partial.text, response.partial.start, response.partial.end))
            case "speech_start":
                event = timeline.speech_started(response.speech_start.timestamp)
            case "speech_end":
                event = timeline.speech_ended(response.speech_end.timestamp)
            case "flushed":
                self._outgoing.answered()
                event = timeline.flushed(response.flushed.timestamp)
            case "audio_ack":
                event = self._acknowledged(response.audio_ack)
            case "warning":
                warning = response.warning
                event = Warned(warning.code, warning.message, dict(warning.details))
            case "session_terminating":
                self._outgoing.leave()
                grace = f"{response.session_terminating.grace_seconds:g}"
                message = "the server is stopping; the session moves to another"
                event = Warned("terminating", message, {"grace_seconds": grace})
        if event is not None:
            await self._emit(event)

    def _final(self, message: pb.Final) -> Final | None:
        words = tuple(Word(word.word, word.start, word.end, word.confidence) for word in message.words)
        final = Final(message.text, message.start, message.end, message.confidence, message.language, words)
        sent = self._outgoing.format.seconds(self._outgoing.position) if self._outgoing.is_leaving else None
        told = self._timeline.final(final, sent)
        if told is not None:
            self.finals.append(told)
            self._progressed()
        elif sent is not None:
            self._holds_back = True
        return told

    def _acknowledged(self, ack: pb.AudioAck) -> Event:
        told = self._timeline.acknowledge(ack.received_seconds, ack.processed_seconds, ack.stored_seconds)
        format_, audio = self._outgoing.format, self._outgoing.audio
        if told.received > self._furthest or format_.size(told.received) >= audio.end:
            self._furthest = told.received
            self._progressed()
        before = self._timeline.releasable(stores_audio=self._config.store_audio)
        self._outgoing.release(format_.size(before))
        self._timeline.forget(format_.seconds(audio.start))
        return told

    def _progressed(self) -> None:
        self._outage_began, self._attempt = None, 0

    async def _completed(self, end: pb.SessionEnd) -> bool:
        self._timeline.completed(end.total_duration)
        if self._outgoing.is_leaving and (self._holds_back or not self._outgoing.is_told):
            return False
        await self._emit(
            Ended(
                session_id=end.session_id,
                session_ids=tuple(self.session_ids),
                duration=self._timeline.offset + end.total_duration,
                text=" ".join(final.text for final in self.finals),
                enhancement_job_id=end.enhancement_job_id if end.HasField("enhancement_job_id") else None,
                audio_uri=end.audio_uri if end.HasField("audio_uri") else None,
                transcript_uri=end.transcript_uri if end.HasField("transcript_uri") else None,
            )
        )
        return True


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
    )


def _begin_of(response: pb.TranscribeResponse | None) -> pb.SessionBegin:
    if response is None or not response.HasField("session_begin"):
        raise ServerError("the service began a session without saying so")
    return response.session_begin


async def _read_out(connection: Connection) -> None:
    """Waits for the end of a stream whose session has ended: broken off, it would look like a client that vanished."""
    with suppress(DalstonError, TimeoutError):
        async with asyncio.timeout(_CLOSING_SECONDS):
            while await connection.receive() is not None:
                pass


def _pause(attempt: int, error: DalstonError) -> float:
    return _BACKOFF.pause(attempt, error.retry_after if isinstance(error, Busy) else None)


def _now() -> float:
    return asyncio.get_running_loop().time()
