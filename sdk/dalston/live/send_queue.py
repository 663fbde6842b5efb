"""What is to be sent, in its order, to a session or to the one that takes its place."""

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
class _Instruction:
    """A flush, or a language where there is one, at its place in the audio."""

    position: int
    language: str | None = None

    @property
    def message(self) -> TranscribeControl:
        if self.language is None:
            return FLUSH
        return TranscribeControl(set_language=TranscribeControl.SetLanguage(language=self.language))


class SendQueue:
    """The caller's audio and instructions. Positions are bytes from the first of the caller's audio.

    Whatever it is told takes effect at once; `changed` tells those who wait for it.
    """

    def __init__(self, format_: AudioFormat, language: str) -> None:
        self.format = format_
        self.audio = RetransmissionBuffer()
        self.position = 0
        """What the current session is sent next."""
        self.is_finished = False
        """Whether no more audio comes."""
        self.is_leaving = False
        """Whether the current session is ended here, to go on in another."""
        self._is_ended = False
        self._language = language
        self._instructions: list[_Instruction] = []
        self._due: deque[_Instruction] = deque()
        self._wake = asyncio.Event()

    def take(self, audio: bytes) -> None:
        """More audio, in whole frames."""
        self.audio.append(audio)
        self._wake.set()

    def flush(self) -> None:
        """To be flushed behind the audio taken so far."""
        self._instruct(_Instruction(self.audio.end))

    def set_language(self, language: str) -> None:
        """Another language behind the audio taken so far."""
        self._instruct(_Instruction(self.audio.end, language))

    def finish(self) -> None:
        """No more audio comes."""
        self.is_finished = True
        self._wake.set()

    def leave(self) -> None:
        """The current session is to be ended where it is, unless it is at its end already."""
        if not self._is_ended:
            self.is_leaving = True
            self._wake.set()

    def begin(self, position: int) -> None:
        """A session begins, with the audio from `position` on."""
        self.position = position
        self.is_leaving = self._is_ended = False
        self._due = deque(each for each in self._instructions if each.language is None or each.position > position)

    def language_at(self, position: int) -> str:
        """The language that a session which begins there has to begin with."""
        before = [each.language for each in self._instructions if each.language and each.position <= position]
        return before[-1] if before else self._language

    def next(self, most: int) -> bytes | TranscribeControl | None:
        """What is to be sent now, at most so many bytes of audio; None if there is nothing yet. `END` is the last."""
        if self.is_leaving:
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

    def answered(self) -> None:
        """The oldest flush has been answered."""
        flush = next((each for each in self._instructions if each.language is None), None)
        if flush is not None:
            self._instructions.remove(flush)

    @property
    def is_told(self) -> bool:
        """Whether all of it was sent and every flush answered."""
        is_flushed = all(each.language is not None for each in self._instructions)
        return self.is_finished and self.position == self.audio.end and is_flushed

    def release(self, before: int) -> None:
        """No session will begin before this position any more."""
        self.audio.release(min(before, self.position))
        self._language = self.language_at(self.audio.start)
        self._instructions = [
            each for each in self._instructions if each.language is None or each.position > self.audio.start
        ]
        self._wake.set()

    async def changed(self) -> None:
        """Waits until something is other than it is now."""
        self._wake.clear()
        await self._wake.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something is true of it."""
        while not condition():
            await self.changed()

    def _end(self) -> TranscribeControl:
        self._is_ended = True
        return END

    def _instruct(self, instruction: _Instruction) -> None:
        self._instructions.append(instruction)
        self._due.append(instruction)
        self._wake.set()
