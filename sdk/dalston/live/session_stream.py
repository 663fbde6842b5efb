"""The messages of one session between `session_begin` and `session_end`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from dalston.errors import DalstonError, DeadlineExceeded, Unavailable
from dalston.events import Acknowledged, Event, FinalResult, PartialResult, Warned, Word
from dalston.live.cancellation import cancel_and_wait
from dalston.live.send_queue import END, KEEP_ALIVE, SendQueue
from dalston.live.timeline import Timeline
from dalston.live.transport import Connection
from dalston.v1 import transcription_pb2 as pb

SILENCE_SECONDS = 30.0
"""Longest time without a message. The service acknowledges every 5 s even if nothing has changed."""
_KEEP_ALIVE_SECONDS = 10.0
_CLOSING_SECONDS = 5.0
_MESSAGE_BYTES = 16_384
"""Half a second of the default format."""
_LIMIT_SHARE = 0.05
_LIMIT_SECONDS = 30.0
"""A session is handed over this long before its maximum length, or that share of the length if it is shorter."""


@dataclass
class SessionStream:
    """Sends the items of the send queue, and converts responses to events."""

    connection: Connection
    limits: pb.SessionLimits
    base: int
    """Position in the caller's audio at which the session begins, in bytes."""
    send_queue: SendQueue
    timeline: Timeline
    finals: list[FinalResult]
    """Emitted finals are appended."""
    stores_audio: bool
    emit: Callable[[Event], Awaitable[None]]
    on_progress: Callable[[], None]
    """Called when the transcription has advanced."""
    _began_at: float = 0.0
    _has_withheld_final: bool = field(default=False)
    """Whether a final was withheld because the next session transcribes its utterance as a whole."""

    async def run(self) -> pb.SessionEnd | None:
        """Runs until `session_end`. Returns it, or None if another session has to continue.

        Raises:
            DalstonError: the session ended with an error.
        """
        self._began_at = _now()
        sending = asyncio.create_task(self._send())
        receiving = asyncio.create_task(self._receive())
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()  # Everything is sent; the session continues until its end.
            end = await receiving
        finally:
            await cancel_and_wait(sending, receiving)
        self.timeline.completed(end.total_duration)
        needs_successor = self.send_queue.is_handing_over and (
            self._has_withheld_final or not self.send_queue.is_delivered
        )
        return None if needs_successor else end

    async def _send(self) -> None:
        frame = self.send_queue.format.frame_bytes
        most = min(self.limits.max_message_bytes or _MESSAGE_BYTES, _MESSAGE_BYTES) // frame * frame
        idle = min(_KEEP_ALIVE_SECONDS, (self.limits.idle_timeout_seconds or 30.0) / 3)
        silent_until = _now() + idle
        while True:
            if self._is_near_time_limit():
                self.send_queue.hand_over()
            item = self.send_queue.next_item(most)
            if item is None:
                try:
                    # An absolute deadline: acknowledgements also wake this task and must not postpone the keep-alive.
                    async with asyncio.timeout_at(silent_until):
                        await self.send_queue.wait_for_change()
                    continue
                except TimeoutError:
                    item = KEEP_ALIVE
            silent_until = _now() + idle
            if isinstance(item, bytes):
                is_sent = await self.connection.send_audio(item)
            else:
                is_sent = await self.connection.send_control(item)
            if not is_sent or item is END:
                return

    def _is_near_time_limit(self) -> bool:
        """Whether to hand over to another session before the service ends this one."""
        longest = self.limits.max_session_seconds
        if longest <= 0:
            return False
        sent = self.send_queue.format.seconds(self.send_queue.position - self.base)
        return max(sent, _now() - self._began_at) > longest - min(_LIMIT_SECONDS, longest * _LIMIT_SHARE)

    async def _receive(self) -> pb.SessionEnd:
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    response = await self.connection.receive()
            except TimeoutError:
                raise DeadlineExceeded(f"the service sent nothing for {SILENCE_SECONDS:g} seconds") from None
            if response is None:
                raise Unavailable("the stream ended without session_end")
            if response.HasField("session_end"):
                await self._drain()
                return response.session_end
            if event := self._event_of(response):
                await self.emit(event)

    async def _drain(self) -> None:
        """Reads the stream to its end: the service would record a cancelled stream as a disconnect."""
        with suppress(DalstonError, TimeoutError):
            async with asyncio.timeout(_CLOSING_SECONDS):
                while await self.connection.receive() is not None:
                    pass

    def _event_of(self, response: pb.TranscribeResponse) -> Event | None:
        timeline = self.timeline
        match response.WhichOneof("response"):
            case "final":
                return self._final(response.final)
            case "partial":
                return timeline.partial(
                    PartialResult(response.partial.text, response.partial.start, response.partial.end)
                )
            case "speech_start":
                return timeline.speech_started(response.speech_start.timestamp)
            case "speech_end":
                return timeline.speech_ended(response.speech_end.timestamp)
            case "flushed":
                self.send_queue.flush_answered()
                return timeline.flushed(response.flushed.timestamp)
            case "audio_ack":
                return self._acknowledged(response.audio_ack)
            case "warning":
                return self._warned(response.warning)
            case "session_terminating":
                return self._hand_over(response.session_terminating)
        return None

    def _final(self, message: pb.Final) -> FinalResult | None:
        words = tuple(Word(word.word, word.start, word.end, word.confidence) for word in message.words)
        final = FinalResult(
            text=message.text,
            start=message.start,
            end=message.end,
            confidence=message.confidence,
            language=message.language,
            words=words,
            language_probability=message.language_probability if message.HasField("language_probability") else None,
        )
        sent = self.send_queue.format.seconds(self.send_queue.position) if self.send_queue.is_handing_over else None
        event = self.timeline.final(final, sent)
        if event is not None:
            self.finals.append(event)
            self.on_progress()
        elif sent is not None:
            self._has_withheld_final = True
        return event

    def _warned(self, message: pb.Warning) -> Warned | None:
        warned = Warned(message.code, message.message, dict(message.details))
        return self.timeline.suppressed(warned) if warned.code == "speech_suppressed" else warned

    def _acknowledged(self, ack: pb.AudioAck) -> Acknowledged:
        furthest = self.timeline.acknowledged.received
        event = self.timeline.acknowledge(ack.received_seconds, ack.processed_seconds, ack.stored_seconds)
        format_, audio = self.send_queue.format, self.send_queue.audio
        if event.received > furthest or format_.size(event.received) >= audio.end:
            self.on_progress()
        self.send_queue.discard_before(format_.size(self.timeline.safe_until(stores_audio=self.stores_audio)))
        self.timeline.discard_before(format_.seconds(audio.start))
        return event

    def _hand_over(self, terminating: pb.SessionTerminating) -> Warned:
        self.send_queue.hand_over()
        details = {"grace_seconds": f"{terminating.grace_seconds:g}"}
        return Warned("terminating", "the server is stopping; the session moves to another", details)


def _now() -> float:
    return asyncio.get_running_loop().time()
