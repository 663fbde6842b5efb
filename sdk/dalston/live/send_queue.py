"""The audio and controls to send, in order, to the current session or to the one that continues it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dalston.live.audio_format import AudioFormat
from dalston.live.retransmission_buffer import RetransmissionBuffer
from dalston.v1.transcription_pb2 import TranscribeControl

FLUSH = TranscribeControl(flush=TranscribeControl.Flush())
END = TranscribeControl(end=TranscribeControl.End())
KEEP_ALIVE = TranscribeControl(keep_alive=TranscribeControl.KeepAlive())


@dataclass(frozen=True, slots=True)
class _PositionedControl:
    """A flush, or a change of language if `language` is set, at a position of the audio."""

    position: int
    language: str | None = None

    @property
    def message(self) -> TranscribeControl:
        if self.language is None:
            return FLUSH
        return TranscribeControl(set_language=TranscribeControl.SetLanguage(language=self.language))


class SendQueue:
    """The caller's audio and controls. Positions are bytes from the start of the caller's audio.

    Methods take effect immediately and wake the tasks in `wait_for_change`.
    """

    def __init__(self, format_: AudioFormat, language: str) -> None:
        self.format = format_
        self.audio = RetransmissionBuffer()
        self.position = 0
        """Position of the audio that is sent next."""
        self.is_finished = False
        """Whether the audio is complete."""
        self.is_handing_over = False
        """Whether the current session ends here and another one continues it."""
        self._has_sent_end = False
        self._language = language
        self._controls: list[_PositionedControl] = []
        self._due: deque[_PositionedControl] = deque()
        self._wake = asyncio.Event()

    def append_audio(self, audio: bytes) -> None:
        """Appends audio in whole sample frames."""
        self.audio.append(audio)
        self._wake.set()

    def flush(self) -> None:
        """Adds a flush after the audio so far."""
        self._add(_PositionedControl(self.audio.end))

    def set_language(self, language: str) -> None:
        """Adds a change of language after the audio so far."""
        self._add(_PositionedControl(self.audio.end, language))

    def finish(self) -> None:
        """Marks the audio as complete."""
        self.is_finished = True
        self._wake.set()

    def hand_over(self) -> None:
        """Ends the current session at the current position, unless its end has been sent."""
        if not self._has_sent_end:
            self.is_handing_over = True
            self._wake.set()

    def begin_session(self, position: int) -> None:
        """Starts a session that is sent the audio from `position` on."""
        self.position = position
        self.is_handing_over = self._has_sent_end = False
        self._due = deque(each for each in self._controls if each.language is None or each.position > position)

    def language_at(self, position: int) -> str:
        """The language at this position of the audio."""
        before = [each.language for each in self._controls if each.language and each.position <= position]
        return before[-1] if before else self._language

    def next_item(self, most: int) -> bytes | TranscribeControl | None:
        """The next item to send, at most `most` bytes of audio; None if there is nothing yet. `END` is the last."""
        if self.is_handing_over:
            return self._end()
        if self._due and self._due[0].position <= self.position:
            return self._due.popleft().message
        if self._due:
            most = min(most, self._due[0].position - self.position)
        if audio := self.audio.read(self.position, most):
            self.position += len(audio)
            self._wake.set()
            return audio
        return self._end() if self.is_finished else None

    def flush_answered(self) -> None:
        """Removes the oldest flush, which the service has answered."""
        flush = next((each for each in self._controls if each.language is None), None)
        if flush is not None:
            self._controls.remove(flush)

    @property
    def is_delivered(self) -> bool:
        """Whether all audio was sent and every flush answered."""
        is_flushed = all(each.language is not None for each in self._controls)
        return self.is_finished and self.position == self.audio.end and is_flushed

    def discard_before(self, before: int) -> None:
        """Discards the audio before a position at which no session will begin any more."""
        self.audio.discard_before(min(before, self.position))
        self._language = self.language_at(self.audio.start)
        self._controls = [each for each in self._controls if each.language is None or each.position > self.audio.start]
        self._wake.set()

    async def wait_for_change(self) -> None:
        """Waits for the next change of the queue."""
        self._wake.clear()
        await self._wake.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition on the queue holds."""
        while not condition():
            await self.wait_for_change()

    def _end(self) -> TranscribeControl:
        self._has_sent_end = True
        return END

    def _add(self, control: _PositionedControl) -> None:
        self._controls.append(control)
        self._due.append(control)
        self._wake.set()
